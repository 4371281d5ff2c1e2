//! [`Watch`]: the processes of a group watch each other, beside the engine that moves their numbers.
//!
//! Every rank keeps a TCP connection to rank 0, and reports now and then how many of the engine's operations it has started and completed.
//! So rank 0 notices a process that has ended (its connection closed), one that no longer reports, and one that does not come to an
//! operation in which others wait. It tells everybody, and every process that waits for the engine gives up with an error that names the
//! rank. Short texts that all members must know go the same way.
//!
//! Messages are lines of JSON. A connection is closed if it does not begin like one from a member of this group.

mod meeting;
mod message;
mod shared;
mod state;

use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(super) use meeting::Meeting;
use message::Message;
use shared::Shared;
use state::Failure;

use crate::sync::lock;
use crate::{Error, Result};

/// How long a goodbye may take.
const PARTING: Duration = Duration::from_secs(1);

/// One member's side of the watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    rounds: AtomicU64,
    readers: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Meets the other members; returns when all have arrived.
    ///
    /// # Errors
    /// [`Error::Group`], which names the ranks that have not arrived within `timeout`, or an address that cannot be reached.
    pub fn start(rank: usize, world_size: usize, meeting: Meeting, timeout: Duration) -> Result<Self> {
        let mut connections = Vec::new();
        let mut writers = Vec::new();
        for (rank, stream) in meeting.peers(rank, world_size, timeout)? {
            writers.push((rank, Mutex::new(stream.try_clone().map_err(|error| lost(rank, &error))?)));
            connections.push((rank, stream));
        }
        let shared = Arc::new(Shared::new(rank, world_size, timeout, writers));
        let mut readers = Vec::new();
        for (peer, stream) in connections {
            let shared = shared.clone();
            readers.push(spawn(format!("wavemesh-hears-{peer}"), move || shared.listen(peer, stream))?);
        }
        let beating = shared.clone();
        spawn("wavemesh-watch".into(), move || beating.beat())?;
        Ok(Self { shared, rounds: AtomicU64::new(0), readers })
    }

    /// Returns an error if the group has failed.
    ///
    /// # Errors
    /// [`Error::Group`] if the group has failed.
    pub fn check(&self) -> Result<()> {
        if !self.shared.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        lock(&self.shared.state).failure.clone().map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Runs an operation in which all members wait for each other.
    ///
    /// # Errors
    /// The errors of the operation.
    pub fn operation<T>(&self, body: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<T>) -> Result<T> {
        self.check()?;
        self.shared.entered.fetch_add(1, Ordering::AcqRel);
        let done = body(&|| self.check())?;
        self.shared.left.fetch_add(1, Ordering::AcqRel);
        Ok(done)
    }

    /// The texts of all members, by rank, if all of them reach this round within `limit`.
    ///
    /// # Errors
    /// [`Error::Group`], which names a rank that has not arrived.
    pub fn exchange(&self, text: String, what: &str, limit: Duration) -> Result<Vec<String>> {
        let shared = &self.shared;
        let round = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        if shared.rank == 0 {
            shared.said(0, round, text, (limit, what));
        } else {
            let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            shared.tell(0, &Message::Say { round, text, milliseconds, what: what.to_string() });
        }
        let mut state = lock(&shared.state);
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone().into());
            }
            state.asking = state.answers.0 != round;
            if !state.asking {
                return Ok(std::mem::take(&mut state.answers.1));
            }
            state = shared.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Ends the group: in every other process, the current or next operation returns this as an error.
    pub fn fail(&self, rank: Option<usize>, problem: &str) {
        self.shared.fail(Failure { rank, problem: problem.to_string() });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let shared = &self.shared;
        if thread::panicking() {
            self.fail(Some(shared.rank), "it panicked");
        }
        shared.closing.store(true, Ordering::Release);
        for (peer, stream) in &shared.peers {
            shared.tell(*peer, &Message::Bye { entered: shared.entered.load(Ordering::Acquire) });
            let _ = lock(stream).shutdown(Shutdown::Write);
        }
        // Read what others still send to its end: closing the connection earlier would discard our last messages to them.
        let until = Instant::now() + PARTING;
        while Instant::now() < until && self.readers.iter().any(|reader| !reader.is_finished()) {
            thread::sleep(Duration::from_millis(2));
        }
        for (_, stream) in &shared.peers {
            let _ = lock(stream).shutdown(Shutdown::Both);
        }
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let failed = |error| Error::Group { rank: None, problem: format!("a thread cannot be started: {error}") };
    thread::Builder::new().name(name).spawn(body).map_err(failed)
}

fn lost(rank: usize, error: &std::io::Error) -> Error {
    Error::Group { rank: Some(rank), problem: format!("the connection to it is lost: {error}") }
}
