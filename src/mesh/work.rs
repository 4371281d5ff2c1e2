//! A bound on the work of many queries of one tree.
//!
//! A tree answers in few steps because it parts what lies apart. Triangles that all lie across each other cannot be parted, and every
//! query meets every one of them: a file of some megabytes would keep a machine busy for hours. Queries therefore count the boxes that
//! they look at, and their sum has a limit that no mesh of real life comes near.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Boxes that a query may look at, on average. Queries of real meshes look at 20 to 400.
const MOST_BOXES: u64 = 4096;

/// Times that all queries together may look at each box beyond that: a point in the middle of a ball is equally far from all of it.
const MOST_WALKS: u64 = 16;

/// Boxes that a thread counts before it tells the others.
const LUMP: u64 = 1 << 16;

/// The boxes that all queries of a call, on all threads, may look at.
pub(crate) struct Work {
    limit: u64,
    spent: AtomicU64,
}

impl Work {
    /// For `queries` queries of a tree of `boxes` boxes.
    pub fn new(queries: usize, boxes: usize) -> Self {
        let limit =
            (queries as u64).saturating_mul(MOST_BOXES).saturating_add((boxes as u64).saturating_mul(MOST_WALKS));
        Self { limit, spent: AtomicU64::new(0) }
    }

    /// A thread's share.
    pub fn share(&self) -> Share<'_> {
        Share { work: self, unsaid: 0, over: self.spent() > self.limit }
    }

    /// Boxes looked at so far, as far as the threads have told.
    pub fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Whether the limit was not reached.
    ///
    /// # Errors
    /// [`Error::Argument`] when it was: what was found since is worth nothing.
    pub fn check(&self, op: &'static str, what: &'static str) -> Result<()> {
        if self.spent() <= self.limit {
            return Ok(());
        }
        let got = format!("one of overlapping triangles: {} steps were not enough to measure distances", self.limit);
        let expected = "triangles that seldom overlap; `repair` drops duplicates";
        Err(Error::argument(op, what, got, expected))
    }
}

/// The boxes that one thread looks at. It tells [`Work`] of them now and then, and when it is dropped.
pub(crate) struct Share<'a> {
    work: &'a Work,
    unsaid: u64,
    over: bool,
}

impl Share<'_> {
    /// Counts boxes that were looked at.
    #[inline]
    pub fn spend(&mut self, boxes: u64) {
        self.unsaid += boxes;
        if self.unsaid >= LUMP {
            self.tell();
        }
    }

    /// Whether all threads together are over the limit, so that going on is no use.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn tell(&mut self) {
        let before = self.work.spent.fetch_add(self.unsaid, Ordering::Relaxed);
        self.over = before + self.unsaid > self.work.limit;
        self.unsaid = 0;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}
