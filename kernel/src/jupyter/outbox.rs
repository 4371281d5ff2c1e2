//! The messages that wait to be written to one peer, limited in bytes.
//!
//! A peer that reads slowly slows its publisher down, like a pipe. A peer that has stopped reading (a suspended program) would block it for
//! ever. So after [`STALL`] without a byte of progress, messages that do not fit are dropped for that peer alone, until half its backlog
//! has been read. A peer that reads loses nothing.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes that may wait for one peer. Larger single messages pass when nothing else waits.
const BACKLOG: usize = 128 << 20;
/// A peer that has taken no byte for this long is regarded as stopped.
const STALL: Duration = Duration::from_secs(5);

/// The frames of one message; clones share them.
#[derive(Clone)]
pub struct Frames {
    frames: Arc<[Bytes]>,
    command: bool,
}

impl Frames {
    /// One ZMTP command instead of a message.
    pub fn command(body: Vec<u8>) -> Frames {
        Frames { frames: Arc::new([Bytes::from(body)]), command: true }
    }

    /// Whether this is a ZMTP command.
    pub fn is_command(&self) -> bool {
        self.command
    }

    /// Bytes of all frames.
    pub fn size(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }
}

impl From<Vec<Bytes>> for Frames {
    fn from(frames: Vec<Bytes>) -> Frames {
        Frames { frames: frames.into(), command: false }
    }
}

impl Deref for Frames {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        &self.frames
    }
}

/// The queue of one peer. One task writes, one publishes, any may [`push`](Outbox::push).
#[derive(Default)]
pub struct Outbox {
    queue: Mutex<VecDeque<Frames>>,
    backlog: AtomicUsize,
    unflushed: AtomicBool,
    progress: AtomicU64,
    stalled: AtomicBool,
    is_closed: AtomicBool,
    arrived: Notify,
    room: Notify,
    idle: Notify,
    closing: Notify,
}

impl Outbox {
    /// Queues a message, however long the backlog is.
    pub fn push(&self, frames: Frames) {
        if self.is_closed.load(Ordering::Acquire) {
            return;
        }
        self.backlog.fetch_add(frames.size(), Ordering::AcqRel);
        self.unflushed.store(true, Ordering::Release);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(frames);
        self.arrived.notify_one();
    }

    /// Waits for room for `size` bytes; `false` when the peer has stopped reading or has gone.
    pub async fn room_for(&self, size: usize) -> bool {
        loop {
            let waiting = self.room.notified();
            let backlog = self.backlog.load(Ordering::Acquire);
            if self.is_closed.load(Ordering::Acquire) {
                return false;
            }
            if self.stalled.load(Ordering::Acquire) {
                if backlog > BACKLOG / 2 {
                    return false;
                }
                self.stalled.store(false, Ordering::Release);
            }
            if backlog == 0 || backlog + size <= BACKLOG {
                return true;
            }
            let before = self.progress.load(Ordering::Acquire);
            if tokio::time::timeout(STALL, waiting).await.is_err() && self.progress.load(Ordering::Acquire) == before {
                super::log!("a frontend has stopped reading; it misses output until it reads on");
                self.stalled.store(true, Ordering::Release);
            }
        }
    }

    /// The next message if one waits.
    pub fn try_next(&self) -> Option<Frames> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The next message; `None` once the outbox is closed.
    pub async fn next(&self) -> Option<Frames> {
        loop {
            if let Some(message) = self.try_next() {
                return Some(message);
            }
            if self.is_closed.load(Ordering::Acquire) {
                return None;
            }
            self.arrived.notified().await;
        }
    }

    /// Notes that the peer took some bytes.
    pub fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that a message of `size` bytes was given to the connection.
    pub fn written(&self, size: usize) {
        self.progressed();
        self.backlog.fetch_sub(size, Ordering::AcqRel);
        self.room.notify_one();
    }

    /// Notes that everything given to the connection has left the process.
    pub fn flushed(&self) {
        if self.backlog.load(Ordering::Acquire) == 0 {
            self.unflushed.store(false, Ordering::Release);
            self.idle.notify_waiters();
            // A push between the load and the store causes another flush.
            if self.backlog.load(Ordering::Acquire) != 0 {
                self.unflushed.store(true, Ordering::Release);
            }
        }
    }

    /// Waits until nothing is left to send.
    pub async fn drained(&self) {
        loop {
            let waiting = self.idle.notified();
            if self.is_closed.load(Ordering::Acquire) || !self.unflushed.load(Ordering::Acquire) {
                return;
            }
            waiting.await;
        }
    }

    /// Ends the connection. Messages that wait are still written if the peer takes them.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.arrived.notify_one();
        self.room.notify_one();
        self.idle.notify_waiters();
        self.closing.notify_one();
    }

    /// Waits for [`close`](Outbox::close).
    pub async fn closed(&self) {
        while !self.is_closed.load(Ordering::Acquire) {
            self.closing.notified().await;
        }
    }
}
