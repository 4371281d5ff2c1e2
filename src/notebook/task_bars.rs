//! Shows the library's own long work ([`task`](crate::task)) as progress bars, if it takes a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::ProgressBar;
use super::notes::show_notes;
use crate::sync::lock;
use crate::task::{Observer, Task, set_observer};

/// Shorter work shows no bar: the bar would stay in the notebook and tell nothing.
const SHOW_AFTER: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// From now on, every operation of the library that runs for more than two seconds shows a progress bar, the library's warnings appear as
/// notes, and freed memory is kept for the next step. The kernel calls this at its start.
pub fn watch_tasks() {
    set_observer(Some(Arc::new(TaskBars::default())));
    show_notes();
    crate::keep_freed_memory();
}

#[derive(Default)]
struct TaskBars {
    watched: Mutex<HashMap<u64, (Instant, Option<ProgressBar>)>>,
    next_look: AtomicU64,
}

impl Observer for TaskBars {
    fn advanced(&self, task: &Task) {
        static START: OnceLock<Instant> = OnceLock::new();
        let now = Instant::now();
        let since = now.duration_since(*START.get_or_init(|| now)).as_millis() as u64;
        // Loops may turn millions of times a second, so only one turn in a while is checked.
        if since < self.next_look.load(Ordering::Relaxed) {
            return;
        }
        self.next_look.store(since + LOOK_EVERY.as_millis() as u64, Ordering::Relaxed);
        let mut watched = lock(&self.watched);
        let (start, bar) = watched.entry(task.id()).or_insert((now, None));
        if bar.is_none() && now.duration_since(*start) >= SHOW_AFTER {
            *bar = Some(ProgressBar::started(*start, task.label().to_owned(), Some(task.total())));
        }
        if let Some(bar) = bar {
            bar.set_done(task.done() as usize);
        }
    }

    fn ended(&self, task: &Task) {
        let mut watched = lock(&self.watched);
        if let Some((_, Some(bar))) = watched.remove(&task.id()) {
            bar.set_done(task.done() as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_that_lasts_gets_a_bar() {
        let bars = TaskBars::default();
        let task = Task::new("long", 3);
        let has_bar = || bars.watched.lock().unwrap().get(&task.id()).is_some_and(|(_, bar)| bar.is_some());
        bars.advanced(&task);
        assert!(!has_bar());
        std::thread::sleep(SHOW_AFTER + LOOK_EVERY);
        bars.advanced(&task);
        assert!(has_bar());
        bars.ended(&task);
        assert!(bars.watched.lock().unwrap().is_empty());
    }
}
