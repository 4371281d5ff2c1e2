//! The thread that runs cells in the child, and how it is stopped or left behind.

use std::ffi::{c_int, c_void};
use std::io::{Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wavemesh_cell::protocol::Holder;

use super::child::{PRIVATE, Runtime};
use super::waits::Waits;
use super::{crash, signals};

/// The stack for user code, in bytes; if the system refuses one size, the next is tried.
const STACKS: [usize; 3] = [256 << 20, 64 << 20, 8 << 20];
/// How often a cell that has to stop is signalled.
const REMINDER: Duration = Duration::from_millis(10);
/// How long one attempt to catch the thread in the cell's own code takes. It is long because the thread may be in other code nearly all the
/// time.
const CATCHING: Duration = Duration::from_millis(60);
/// The same for a thread that was left behind; short because other cells are running.
const GLANCE: Duration = Duration::from_millis(1);
/// A thread that is seen this many times in a row in the same system call counts as waiting.
const WAITING: u32 = 6;

/// Runs cells, one after the other.
pub struct Worker {
    thread: c_int,
    cells: Sender<Cell>,
    done: Arc<Done>,
    pub runtime: Runtime,
    /// Threads that were left behind but are not parked yet.
    loose: Vec<c_int>,
}

/// A cell that is ready to be called.
#[derive(Clone, Copy)]
pub struct Cell {
    pub run: u64,
    pub code: extern "C" fn(),
}

/// The progress of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The cell may still notice.
    None,
    /// Its thread cannot be left behind where it is. This is reported once.
    Held(Holder),
    /// Its thread was left behind.
    Left,
}

/// A pipe through which a worker reports that it has run a cell.
struct Done {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Done {
    fn new() -> Result<Done> {
        let (reader, writer) = std::io::pipe()?;
        let high = |end: BorrowedFd| rustix::io::fcntl_dupfd_cloexec(end, PRIVATE);
        Ok(Done { reader: high(reader.as_fd())?, writer: high(writer.as_fd())? })
    }
}

impl Worker {
    pub fn start(runtime: Runtime) -> Result<Worker> {
        let done = Arc::new(Done::new()?);
        let (thread, cells) = spawn(&runtime, &done)?;
        Ok(Worker { thread, cells, done, runtime, loose: Vec::new() })
    }

    /// Starts a cell; [`wait`](Self::wait) returns when it has ended.
    pub fn begin(&self, cell: Cell) -> Result<()> {
        (self.runtime.begin)(cell.run, cell.code as *mut c_void);
        self.cells.send(cell).map_err(|_| Error::other("the thread that runs cells is gone"))
    }

    /// Waits until the cell has ended or `control` can be read; if `stop`, only for a moment. Returns true if the cell has ended.
    pub fn wait(&mut self, control: BorrowedFd, stop: bool) -> Result<bool> {
        let patience = if stop { Some(REMINDER) } else { self.tend() };
        let mut ready =
            [PollFd::new(&self.done.reader, PollFlags::IN), PollFd::from_borrowed_fd(control, PollFlags::IN)];
        wait_for(&mut ready, patience)?;
        if ready[0].revents().is_empty() {
            return Ok(false);
        }
        rustix::io::read(&self.done.reader, &mut [0u8])?;
        Ok(true)
    }

    /// Waits until something can be read from `requests`.
    pub fn idle(&mut self, requests: BorrowedFd) -> Result<()> {
        loop {
            let patience = self.tend();
            let mut ready = [PollFd::from_borrowed_fd(requests, PollFlags::IN)];
            wait_for(&mut ready, patience)?;
            if patience.is_none() || !ready[0].revents().is_empty() {
                return Ok(());
            }
        }
    }

    /// Parks threads that were left behind while they waited, if they have returned to a cell's code. Returns when to try again.
    fn tend(&mut self) -> Option<Duration> {
        if self.loose.is_empty() {
            return None;
        }
        self.loose.retain(|&thread| is_there(thread) && !signals::try_to_park(thread, GLANCE));
        Some(Duration::from_millis(250))
    }

    /// Makes another thread run the cells from now on.
    fn replace(&mut self, parked: bool) -> Result<()> {
        if !parked {
            self.loose.push(self.thread);
        }
        (self.thread, self.cells) = spawn(&self.runtime, &self.done)?;
        Ok(())
    }
}

fn wait_for(ends: &mut [PollFd], patience: Option<Duration>) -> Result<()> {
    let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
    match poll(ends, patience.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn spawn(runtime: &Runtime, done: &Arc<Done>) -> Result<(c_int, Sender<Cell>)> {
    let mut failed = Error::other("no stack was tried");
    for stack in STACKS {
        let ((tell, told), (cells, receiver)) = (channel(), channel());
        let (runtime, done) = (*runtime, Arc::clone(done));
        let thread = std::thread::Builder::new().name("main".into()).stack_size(stack).spawn(move || {
            (runtime.worker)();
            crash::make_room();
            // SAFETY: this only asks for the thread's id.
            let _ = tell.send(unsafe { libc::gettid() });
            work(receiver, &runtime, &done);
        });
        match thread {
            Ok(_) => return Ok((told.recv().map_err(Error::other)?, cells)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn work(cells: Receiver<Cell>, runtime: &Runtime, done: &Done) {
    for cell in cells {
        (cell.code)();
        // Before the end of the cell is reported, so that displays arrive while the cell counts as running.
        runtime.flush();
        (runtime.finish)();
        let _ = rustix::io::write(&done.writer, &[0]);
    }
}

/// A stop of a cell that is still running.
pub struct Stop {
    /// The time until which the cell may notice the stop.
    patience: Instant,
    /// The system call in which its thread was seen, and how many times in a row.
    seen: (String, u32),
    /// How many attempts to leave the thread there were.
    attempts: u32,
    waits: Waits,
    /// Whether the reason why its thread cannot be left was reported.
    told: bool,
}

impl Stop {
    /// Asks the cell to stop.
    pub fn begin(run: u64, grace: Duration, worker: &Worker) -> Stop {
        worker.runtime.stop(run);
        let now = Instant::now();
        let stop = Stop {
            patience: now.checked_add(grace).unwrap_or(now),
            seen: (String::new(), 0),
            attempts: 0,
            waits: Waits::default(),
            told: false,
        };
        signals::send(worker.thread);
        stop
    }

    /// Gives the cell this much time, from now on, to notice the stop.
    pub fn set_grace(&mut self, grace: Duration) {
        self.patience = self.patience.min(Instant::now() + grace);
    }

    /// Signals the cell and the threads that work for it again, or tries to leave the cell's thread.
    pub fn go_on(&mut self, worker: &mut Worker) -> Result<Progress> {
        self.wake(worker);
        if Instant::now() < self.patience {
            self.waits.allow(&worker.runtime);
            signals::send(worker.thread);
            return Ok(Progress::None);
        }
        let thread = worker.thread;
        // This must come before the signal, which wakes the thread for a moment.
        let waits = self.waits(thread);
        if signals::try_to_park(thread, CATCHING) {
            let is_free = worker.runtime.is_free();
            if is_free && (worker.runtime.leave)() {
                worker.replace(true)?;
                return Ok(Progress::Left);
            }
            signals::let_go_on(thread);
            return Ok(if is_free { Progress::None } else { self.held(Holder::Output) });
        }
        self.attempts += 1;
        if self.attempts.is_multiple_of(2 * WAITING) {
            signals::send(worker.thread);
        }
        if !waits {
            return Ok(Progress::None);
        }
        if (worker.runtime.waits_for_pool)() {
            return Ok(self.held(Holder::Pool));
        }
        if !worker.runtime.is_free() {
            return Ok(self.held(Holder::Output));
        }
        if !(worker.runtime.leave)() {
            return Ok(Progress::None);
        }
        worker.replace(false)?;
        Ok(Progress::Left)
    }

    fn held(&mut self, by: Holder) -> Progress {
        if std::mem::replace(&mut self.told, true) { Progress::None } else { Progress::Held(by) }
    }

    /// Signals the sleeping threads, which may be sleeping for the cell. This is repeated, since some go from one sleep to the next.
    fn wake(&self, worker: &Worker) {
        for _ in 0..10 {
            let mut sleeping = threads().filter(|&thread| thread != worker.thread && sleeps(thread)).peekable();
            if sleeping.peek().is_none() {
                break;
            }
            sleeping.for_each(signals::send);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether the thread has been waiting in one system call for a while.
    fn waits(&mut self, thread: c_int) -> bool {
        let call = system_call(thread);
        if call.is_empty() || call.starts_with("running") || call != self.seen.0 {
            self.seen = (call, 0);
            return false;
        }
        self.seen.1 += 1;
        self.seen.1 >= WAITING
    }
}

/// All threads of this process except the first.
fn threads() -> impl Iterator<Item = c_int> {
    let all = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let first = c_int::try_from(std::process::id()).unwrap_or(0);
    all.filter_map(|thread| thread.file_name().to_str()?.parse().ok()).filter(move |&thread| thread != first)
}

fn is_there(thread: c_int) -> bool {
    std::path::Path::new(&format!("/proc/self/task/{thread}")).exists()
}

/// The number and arguments of the system call in which a thread waits, as the system reports them.
fn system_call(thread: c_int) -> String {
    std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default()
}

fn sleeps(thread: c_int) -> bool {
    let call = system_call(thread);
    let number = call.split(' ').next().and_then(|number| number.parse::<libc::c_long>().ok());
    number.is_some_and(|number| number == libc::SYS_nanosleep || number == libc::SYS_clock_nanosleep)
}
