//! The thread that reads what the child writes. It never drops anything: if the frontend is slow, the pipe fills and the cell waits.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use wavemesh_cell::protocol::{Decoder, Report};

use super::assembly::Assembly;
use super::{Pipes, log};

/// Small writes that arrive within this time are sent together.
const BATCH: Duration = Duration::from_millis(12);
/// A batch larger than this is sent at once.
const BATCH_BYTES: usize = 256 << 10;

/// Starts the thread: `streams` are standard output and error.
pub fn start(
    pipes: Arc<Pipes>,
    streams: [OwnedFd; 2],
    control: OwnedFd,
    wake: OwnedFd,
    token: &str,
) -> std::io::Result<()> {
    let assembly = Assembly::new(token);
    let reader = Reader { pipes, streams, control, wake, assembly, reports: Decoder::default() };
    std::thread::Builder::new().name("output".into()).spawn(move || reader.run())?;
    Ok(())
}

struct Reader {
    pipes: Arc<Pipes>,
    streams: [OwnedFd; 2],
    control: OwnedFd,
    wake: OwnedFd,
    assembly: Assembly,
    reports: Decoder,
}

impl Reader {
    fn run(mut self) {
        let mut buffer = vec![0u8; 1 << 16];
        let mut last_sent = Instant::now();
        loop {
            let draining = self.pipes.state().drain;
            let patience = match () {
                () if draining => Some(Duration::ZERO),
                () if self.assembly.is_waiting() => Some(BATCH),
                () => None,
            };
            let ready = self.wait(patience);
            let idle = ready == [false; 4];
            if ready[2] {
                self.read_reports(&mut buffer);
            }
            if ready[3] {
                let _ = rustix::io::read(&self.wake, &mut buffer[..]);
            }
            let mut ended = [false; 2];
            for stream in [0, 1] {
                if ready[stream]
                    && let Ok(read) = rustix::io::read(&self.streams[stream], &mut buffer[..])
                {
                    ended[stream] = self.assembly.take(stream, &buffer[..read], &mut self.pipes.state().cell);
                }
            }
            let any_ended = ended != [false; 2];
            if idle {
                self.assembly.let_go();
            }
            if self.assembly.has_outputs()
                && (idle || any_ended || self.assembly.bytes() > BATCH_BYTES || last_sent.elapsed() > BATCH)
            {
                let sink = self.pipes.state().cell.sink.clone();
                self.assembly.send(sink.as_ref());
                last_sent = Instant::now();
            }
            // Waiting threads are told only after everything has been sent.
            if any_ended || (idle && draining) {
                let mut state = self.pipes.state();
                state.cell.end(ended);
                state.drain &= !idle;
                drop(state);
                self.pipes.changed.notify_all();
            }
        }
    }

    /// Waits up to `patience` until one of these can be read: standard output, standard error, control, wake.
    fn wait(&self, patience: Option<Duration>) -> [bool; 4] {
        let mut waiting =
            [&self.streams[0], &self.streams[1], &self.control, &self.wake].map(|end| PollFd::new(end, PollFlags::IN));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        while let Err(rustix::io::Errno::INTR) = poll(&mut waiting, patience.as_ref()) {}
        waiting.map(|end| !end.revents().is_empty())
    }

    fn read_reports(&mut self, buffer: &mut [u8]) {
        let Ok((_, read)) = recv(&self.control, &mut *buffer, RecvFlags::DONTWAIT) else { return };
        for report in self.reports.decode::<Report>(&buffer[..read]) {
            match report {
                Ok(report) => {
                    let told = self.pipes.state().cell.note(report);
                    if let (Some((thread, panic)), Some(tell)) = (told, self.pipes.tell_panic.get()) {
                        self.assembly.push_error(tell(&thread, &panic));
                    }
                }
                Err(malformed) => log(&format!("not a report of a cell: {:?}", malformed.beginning)),
            }
        }
    }
}
