//! What other threads may do to the evaluator while a cell runs: stop the cell, or end everything.

use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use wavemesh_cell::protocol::Order;

use super::Output;
use super::assist::Assistant;
use super::compiler::Compiler;
use super::pipes::Pipes;
use super::report::{self, Places};
use super::temporary::Folder;

/// How long a stopped cell may take to stop by itself.
const GRACE: Duration = Duration::from_secs(2);
/// How long the kernel then tries to leave the cell's thread behind, before it says that only force is left.
const LEAVING: Duration = Duration::from_secs(3);

/// The state that other threads may use while a cell runs.
pub struct Shared {
    /// The evaluator, once it is there.
    running: Mutex<Option<Arc<Evaluator>>>,
    started: Condvar,
    /// Locked while a stop is carried out, so that the cell cannot end in between and the stop hit the next cell.
    turn: Mutex<Turn>,
    ended: Condvar,
    grace_ms: AtomicU64,
    /// The process group of a shell command.
    shell: Mutex<Option<Pid>>,
    closed: AtomicBool,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            running: Mutex::default(),
            started: Condvar::new(),
            turn: Mutex::default(),
            ended: Condvar::new(),
            grace_ms: AtomicU64::new(GRACE.as_millis() as u64),
            shell: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }
}

/// The running cell or, if none runs, the last one.
#[derive(Default)]
struct Turn {
    /// Counts cells.
    cell: u64,
    busy: bool,
    interrupted: bool,
    /// The number of the run in the process that runs cells, if one is running.
    run: Option<u64>,
    /// Whether the cell did not stop, and the user was told that another stop ends the process.
    stuck: bool,
    /// Whether the kernel has ended the cell's process and this was not reported yet.
    killed: bool,
}

impl Turn {
    fn is_of(&self, cell: u64) -> bool {
        self.busy && self.cell == cell
    }
}

/// The parts of the evaluator that other threads use.
pub struct Evaluator {
    pub compiler: Arc<Compiler>,
    pub pipes: Arc<Pipes>,
    pub assistant: Arc<Assistant>,
    child: Mutex<Option<Arc<Mutex<Child>>>>,
    folder: Mutex<Option<Folder>>,
}

impl Evaluator {
    pub fn new(compiler: Arc<Compiler>, pipes: Arc<Pipes>, child: Arc<Mutex<Child>>, folder: Folder) -> Arc<Evaluator> {
        let assistant = Assistant::new(Arc::clone(&compiler), Arc::clone(&pipes));
        let (child, folder) = (Mutex::new(Some(child)), Mutex::new(Some(folder)));
        Arc::new(Evaluator { compiler, pipes, assistant, child, folder })
    }

    /// Sets the process to which signals go from now on.
    pub fn set_child(&self, child: Arc<Mutex<Child>>) {
        *lock(&self.child) = Some(child);
    }

    /// The process that runs user code, if it is alive.
    pub fn child_id(&self) -> Option<Pid> {
        let handle = lock(&self.child).clone()?;
        let mut child = lock(&handle);
        matches!(child.try_wait(), Ok(None)).then(|| Pid::from_child(&child))
    }
}

/// Ends a process that runs user code, and its group, by force.
fn kill(id: Pid) {
    let _ = kill_process(id, Signal::KILL);
    let _ = kill_process_group(id, Signal::KILL);
}

impl Shared {
    /// Notes that the evaluator has started.
    pub fn started(&self, evaluator: Arc<Evaluator>) {
        *lock(&self.running) = Some(evaluator);
        self.started.notify_all();
        if self.closed.load(Ordering::SeqCst) {
            self.shutdown();
        }
    }

    /// The evaluator, if it has started.
    pub fn evaluator(&self) -> Option<Arc<Evaluator>> {
        lock(&self.running).clone()
    }

    /// The evaluator, as soon as it has started; `None` after `patience`.
    pub fn wait_for_evaluator(&self, patience: Duration) -> Option<Arc<Evaluator>> {
        let running = lock(&self.running);
        let waited = self.started.wait_timeout_while(running, patience, |running| running.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Sets how long a stopped cell may take to stop by itself.
    pub fn set_grace(&self, grace: Duration) {
        self.grace_ms.store(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Notes that a cell begins.
    pub fn begin_cell(&self) {
        let mut turn = self.turn();
        *turn = Turn { cell: turn.cell + 1, busy: true, ..Turn::default() };
    }

    /// Notes that the cell has ended and can no longer be stopped. Returns true if its process was ended by force and this was not reported
    /// yet.
    pub fn end_cell(&self) -> bool {
        let mut turn = self.turn();
        turn.busy = false;
        self.ended.notify_all();
        std::mem::take(&mut turn.killed)
    }

    /// The number of the running cell or, if none runs, of the last one.
    pub fn cell(&self) -> u64 {
        self.turn().cell
    }

    /// Whether this cell still runs.
    pub fn runs(&self, cell: u64) -> bool {
        self.turn().is_of(cell)
    }

    /// Whether the cell was asked to stop.
    pub fn interrupted(&self) -> bool {
        self.turn().interrupted
    }

    /// Whether the kernel has ended the cell's process; returns true once.
    pub fn take_killed(&self) -> bool {
        std::mem::take(&mut self.turn().killed)
    }

    /// Notes that a shell command has started as this process group, or ended. If its cell is already being stopped, the command ends at
    /// once.
    pub fn set_shell(&self, group: Option<Pid>) {
        let turn = self.turn();
        *lock(&self.shell) = group;
        if let Some(group) = group.filter(|_| turn.interrupted) {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    /// Notes that the cell's code starts as this run. Returns false if the cell is being stopped, so its code must not start.
    pub fn begin_run(&self, run: u64) -> bool {
        let mut turn = self.turn();
        turn.run = Some(run);
        !turn.interrupted
    }

    /// The run has ended.
    pub fn end_run(&self) {
        self.turn().run = None;
    }

    /// Stops this cell if it still runs. A signal stops a compiler or a shell command. User code is asked to stop; after the grace time its
    /// thread is left behind. A second stop does not wait for the grace time. If that fails too, a further stop ends the process.
    pub fn interrupt(self: &Arc<Shared>, cell: u64) {
        let turn = self.turn();
        if turn.is_of(cell) {
            self.carry_out(turn);
        }
    }

    /// Stops this cell unless a stop is under way. A question that is given up because the cell has to stop is no second stop.
    pub fn interrupt_once(self: &Arc<Shared>, cell: u64) {
        let turn = self.turn();
        if turn.is_of(cell) && !turn.interrupted {
            self.carry_out(turn);
        }
    }

    fn carry_out(self: &Arc<Shared>, mut turn: MutexGuard<Turn>) {
        let cell = turn.cell;
        let again = std::mem::replace(&mut turn.interrupted, true);
        if let Some(shell) = *lock(&self.shell) {
            let _ = kill_process_group(shell, if again { Signal::KILL } else { Signal::TERM });
        }
        let Some(evaluator) = self.evaluator() else { return };
        evaluator.compiler.interrupt();
        if turn.stuck {
            if let Some(id) = evaluator.child_id().filter(|_| !turn.killed) {
                turn.killed = true;
                kill(id);
            }
            return;
        }
        let grace = if again { Duration::ZERO } else { Duration::from_millis(self.grace_ms.load(Ordering::SeqCst)) };
        if let Some(run) = turn.run {
            evaluator.pipes.order(&Order::Stop { run, grace });
        }
        drop(turn);
        if again {
            return;
        }
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            let now = Instant::now();
            if !shared.wait_for_end(cell, now + grace) {
                shared.end_shell(cell);
            }
            if !shared.wait_for_end(cell, now + grace + LEAVING) {
                shared.tell_stuck(cell, &evaluator);
            }
        });
    }

    /// Waits until the deadline; returns whether the cell has ended.
    fn wait_for_end(&self, cell: u64, deadline: Instant) -> bool {
        let patience = deadline.saturating_duration_since(Instant::now());
        let waited = self.ended.wait_timeout_while(self.turn(), patience, |turn| turn.is_of(cell));
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_of(cell)
    }

    /// Kills the shell command for which this cell waits, if it still runs.
    fn end_shell(&self, cell: u64) {
        let turn = self.turn();
        if let Some(shell) = lock(&self.shell).filter(|_| turn.is_of(cell)) {
            let _ = kill_process_group(shell, Signal::KILL);
        }
    }

    /// Tells the user that the code does not stop and its thread cannot be left behind. The only way left costs all variables, so the user
    /// decides.
    fn tell_stuck(&self, cell: u64, evaluator: &Evaluator) {
        let mut turn = self.turn();
        if turn.is_of(cell) && turn.run.is_some() {
            turn.stuck = true;
            drop(turn);
            let places = Places::new(evaluator.compiler.runs());
            let told = report::stuck(evaluator.pipes.held().as_ref(), &places);
            evaluator.pipes.send(Output::Stderr(told));
        }
    }

    /// Ends everything without waiting for the cell.
    pub fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut turn = self.turn();
        (turn.interrupted, turn.killed) = (true, true);
        let Some(evaluator) = self.evaluator() else { return };
        evaluator.compiler.interrupt();
        if let Some(id) = evaluator.child_id() {
            kill(id);
        }
        drop(turn);
        evaluator.assistant.stop();
        drop(lock(&evaluator.folder).take());
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        lock(&self.turn)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
