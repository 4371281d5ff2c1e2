//! The output that all active bars share, and the times of its updates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use super::row::{Row, Snapshot};
use crate::notebook::frontend::Frontend;
use crate::notebook::{Display, display};
use crate::sync::lock;

const UPDATE_EVERY: Duration = Duration::from_millis(100);

/// The active bars, and the output that they share.
#[derive(Default)]
pub(super) struct Board {
    rows: Vec<Arc<Row>>,
    output: Option<Display>,
}

static BOARD: Mutex<Board> = Mutex::new(Board { rows: Vec::new(), output: None });
/// The time of the next update, in milliseconds of [`clock`].
static DUE: AtomicU64 = AtomicU64::new(0);

pub(super) fn lock_board() -> MutexGuard<'static, Board> {
    lock(&BOARD)
}

/// Draws the bars in their present state, including those that stay alive in a variable.
pub(in crate::notebook) fn flush() {
    // A thread that was stopped for good may hold the lock of the board.
    if let Ok(board) = BOARD.try_lock() {
        board.draw(true);
    }
}

fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// Updates the shared output if it is time; otherwise this is cheap.
pub(super) fn tick() {
    let now = clock();
    let due = DUE.load(Ordering::Relaxed);
    if now >= due
        && DUE
            .compare_exchange(due, now + UPDATE_EVERY.as_millis() as u64, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    {
        lock_board().draw(false);
    }
}

impl Board {
    pub fn add(&mut self, row: Arc<Row>) {
        self.rows.push(row);
        if self.output.is_none() && !Frontend::current().is_terminal() {
            self.output = Some(display(self.snapshots()));
            DUE.store(clock() + UPDATE_EVERY.as_millis() as u64, Ordering::Relaxed);
        } else {
            tick_locked(self);
        }
    }

    pub fn end(&mut self, row: &Arc<Row>) {
        let _ = row.ended.set(Instant::now());
        let is_first = self.rows.first().is_some_and(|first| Arc::ptr_eq(first, row));
        row.end_in_terminal(is_first);
        if !is_first {
            self.rows.retain(|other| !Arc::ptr_eq(other, row));
        }
        if self.rows.iter().all(|row| row.ended.get().is_some()) {
            self.draw(true);
            *self = Self::default();
        } else {
            tick_locked(self);
        }
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.rows.iter().map(|row| row.snapshot()).collect()
    }

    fn draw(&self, last: bool) {
        match &self.output {
            Some(output) if last => output.update(self.snapshots()),
            Some(output) if Frontend::current().is_live() => output.update_passing(self.snapshots()),
            Some(_) => {}
            None => self.rows.iter().for_each(|row| row.draw_in_terminal()),
        }
    }
}

fn tick_locked(board: &Board) {
    let now = clock();
    if now >= DUE.load(Ordering::Relaxed) {
        DUE.store(now + UPDATE_EVERY.as_millis() as u64, Ordering::Relaxed);
        board.draw(false);
    }
}
