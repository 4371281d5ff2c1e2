//! Limits the work of many queries of one tree.
//!
//! A tree answers in few steps because it separates things that lie apart. Triangles that all lie across each other cannot be separated,
//! and every query meets every one of them: a file of some megabytes would keep a machine busy for hours. So queries count the boxes that
//! they visit, and the sum has a limit that no real mesh comes near.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// How many boxes a query may visit on average. Queries of real meshes visit 20 to 400.
const MOST_BOXES: u64 = 4096;

/// How often all queries together may visit each box beyond that: the centre of a ball is equally far from all of its surface.
const MOST_WALKS: u64 = 16;

/// How many boxes a thread counts before it tells the others.
const LUMP: u64 = 1 << 16;

/// The boxes that all queries of a call, on all threads, may visit.
pub(crate) struct Work {
    limit: u64,
    spent: AtomicU64,
}

impl Work {
    /// The limit for `queries` queries of a tree with `boxes` boxes.
    pub fn new(queries: usize, boxes: usize) -> Self {
        let limit =
            (queries as u64).saturating_mul(MOST_BOXES).saturating_add((boxes as u64).saturating_mul(MOST_WALKS));
        Self { limit, spent: AtomicU64::new(0) }
    }

    /// The counter of one thread.
    pub fn share(&self) -> Share<'_> {
        Share { work: self, unsaid: 0, over: self.spent() > self.limit }
    }

    /// The number of boxes visited so far, as far as the threads have reported.
    pub fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Checks that the limit was not reached.
    ///
    /// # Errors
    /// [`Error::Argument`] if it was: results since then are useless.
    pub fn check(&self, op: &'static str, what: &'static str) -> Result<()> {
        if self.spent() <= self.limit {
            return Ok(());
        }
        let got = format!("one of overlapping triangles: {} steps were not enough to measure distances", self.limit);
        let expected = "triangles that seldom overlap; `repair` drops duplicates";
        Err(Error::argument(op, what, got, expected))
    }
}

/// The counter of one thread. It reports to [`Work`] now and then, and when it is dropped.
pub(crate) struct Share<'a> {
    work: &'a Work,
    unsaid: u64,
    over: bool,
}

impl Share<'_> {
    /// Counts boxes that were visited.
    #[inline]
    pub fn spend(&mut self, boxes: u64) {
        self.unsaid += boxes;
        if self.unsaid >= LUMP {
            self.tell();
        }
    }

    /// Whether all threads together are over the limit, so that continuing is useless.
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
