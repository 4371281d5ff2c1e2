//! Progress bars like tqdm: `for x in progress(items)`, nested, with rate, remaining time and a postfix.
//!
//! All bars that are active at the same time share one output, which is updated in place at most ten times a second: the outer bar, with
//! the bars inside it below. Inner bars disappear when they end; the outer one stays. In a terminal, indicatif draws the bars.

mod board;
mod row;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub(super) use board::flush;
use board::{lock_board, tick};
use row::Row;

/// Wraps an iterator so that a progress bar moves as you go through it.
///
/// ```
/// use wavemesh::notebook::progress;
/// let mut sum = 0;
/// for i in progress(0..100).label("summing") {
///     sum += i;
/// }
/// assert_eq!(sum, 4950);
/// ```
///
/// To write beside the bar while it moves, get the bar with each item:
///
/// ```
/// # use wavemesh::notebook::progress;
/// for (bar, step) in progress(0..3).with_bar() {
///     bar.set_postfix(format!("loss {:.3}", 1.0 / (step + 1) as f32));
/// }
/// ```
#[doc(alias = "tqdm")]
pub fn progress<I: IntoIterator>(items: I) -> Progress<I::IntoIter> {
    let items = items.into_iter();
    let total = match items.size_hint() {
        (low, Some(high)) if low == high => Some(low as u64),
        _ => None,
    };
    Progress { items, label: String::new(), total, bar: None }
}

/// An iterator with a progress bar; made by [`progress`].
pub struct Progress<I> {
    items: I,
    label: String,
    total: Option<u64>,
    bar: Option<ProgressBar>,
}

impl<I: Iterator> Progress<I> {
    /// Names the bar.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the number of items, for iterators that do not know theirs.
    pub fn total(mut self, total: usize) -> Self {
        self.total = Some(total as u64);
        self
    }

    /// Makes the iterator return the bar with every item: `(bar, item)`.
    pub fn with_bar(self) -> WithBar<I> {
        WithBar(self)
    }

    /// The bar; it appears on the first call or with the first item.
    pub fn bar(&mut self) -> &ProgressBar {
        let (label, total) = (&self.label, self.total);
        self.bar.get_or_insert_with(|| ProgressBar::start(label.clone(), total))
    }
}

impl<I: Iterator> Iterator for Progress<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        crate::task::stop_point();
        // An item counts as done when the next one is requested.
        if let Some(bar) = &self.bar {
            if bar.0.yielded.swap(true, Ordering::Relaxed) {
                bar.advance(1);
            }
        } else {
            self.bar().0.yielded.store(true, Ordering::Relaxed);
        }
        let item = self.items.next();
        if item.is_none() {
            self.bar = None;
        }
        item
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

/// An iterator over `(bar, item)`; made by [`Progress::with_bar`].
pub struct WithBar<I>(Progress<I>);

impl<I: Iterator> Iterator for WithBar<I> {
    type Item = (ProgressBar, I::Item);

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.0.next()?;
        Some((self.0.bar().clone(), item))
    }
}

/// A progress bar that you move yourself. It ends when its last clone is dropped.
///
/// ```
/// use wavemesh::notebook::ProgressBar;
/// let bar = ProgressBar::new("downloading", 1000);
/// bar.advance(400);
/// bar.set_postfix("mirror 2");
/// ```
#[derive(Clone)]
pub struct ProgressBar(Arc<Handle>);

struct Handle {
    row: Arc<Row>,
    yielded: AtomicBool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock_board().end(&self.row);
    }
}

impl ProgressBar {
    /// Shows a bar for `total` steps.
    pub fn new(label: impl Into<String>, total: usize) -> Self {
        Self::start(label.into(), Some(total as u64))
    }

    /// Shows a counter for an unknown number of steps.
    pub fn unknown(label: impl Into<String>) -> Self {
        Self::start(label.into(), None)
    }

    pub(crate) fn start(label: String, total: Option<u64>) -> Self {
        Self::started(Instant::now(), label, total)
    }

    /// A bar for work that began some time ago.
    pub(crate) fn started(start: Instant, label: String, total: Option<u64>) -> Self {
        let row = Arc::new(Row::new(start, label, total));
        lock_board().add(row.clone());
        Self(Arc::new(Handle { row, yielded: AtomicBool::new(false) }))
    }

    /// Counts `steps` more steps as done.
    pub fn advance(&self, steps: usize) {
        self.0.row.done.fetch_add(steps as u64, Ordering::Relaxed);
        tick();
    }

    /// Sets the number of steps that are done.
    pub fn set_done(&self, steps: usize) {
        self.0.row.done.store(steps as u64, Ordering::Relaxed);
        tick();
    }

    /// Shows a few words after the bar, such as the current loss.
    pub fn set_postfix(&self, postfix: impl Into<String>) {
        self.0.row.set_postfix(postfix.into());
        tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_pass_through_and_count_when_the_next_is_asked_for() {
        let mut bar = progress([1, 2, 3].iter().filter(|x| **x > 1)).total(2);
        assert_eq!(bar.next(), Some(&2));
        assert_eq!(bar.bar().0.row.done.load(Ordering::Relaxed), 0);
        assert_eq!(bar.next(), Some(&3));
        assert_eq!(bar.bar().0.row.snapshot().part(), Some(0.5));
        let row = bar.bar().0.row.clone();
        assert_eq!(bar.next(), None);
        assert!(row.snapshot().complete() && row.ended.get().is_some());
    }

    #[test]
    fn an_empty_iterator_is_complete() {
        assert_eq!(progress(0..0).count(), 0);
    }
}
