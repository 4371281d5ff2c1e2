//! Progress bars in the manner of tqdm: `for x in progress(items)`, nested, with rate, remaining time and a postfix.
//!
//! All bars that are alive at one time share one output, updated in place at most ten times a second: the first bar with
//! the bars inside it below. Inner bars leave when they end; the outer one stays. In a terminal, indicatif draws the bars.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use super::frontend::Frontend;
use super::html::{count, seconds};
use super::{Display, MimeBundle, Rich, display, escape};

const UPDATE_EVERY: Duration = Duration::from_millis(100);

/// Wraps an iterator so that going through it moves a progress bar.
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
/// To write beside the bar while it moves, take it along with each item:
///
/// ```
/// # use wavemesh::notebook::progress;
/// for (bar, step) in progress(0..3).with_bar() {
///     bar.set_postfix(format!("loss {:.3}", 1.0 / (step + 1) as f32));
/// }
/// ```
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

    /// Sets the number of items, for iterators that do not know it.
    pub fn total(mut self, total: usize) -> Self {
        self.total = Some(total as u64);
        self
    }

    /// Makes every item come with the bar: `(bar, item)`.
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
        // An item counts as done when the next one is asked for.
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

/// A progress bar moved by hand. It ends when its last clone is dropped.
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

    /// Shows a counter of steps whose number is not known.
    pub fn unknown(label: impl Into<String>) -> Self {
        Self::start(label.into(), None)
    }

    pub(crate) fn start(label: String, total: Option<u64>) -> Self {
        let row = Arc::new(Row::new(label, total));
        lock_board().add(row.clone());
        Self(Arc::new(Handle { row, yielded: AtomicBool::new(false) }))
    }

    /// Counts `steps` more as done.
    pub fn advance(&self, steps: usize) {
        self.0.row.done.fetch_add(steps as u64, Ordering::Relaxed);
        tick();
    }

    /// Sets how many steps are done.
    pub fn set_done(&self, steps: usize) {
        self.0.row.done.store(steps as u64, Ordering::Relaxed);
        tick();
    }

    /// Writes a few words after the bar, such as the current loss.
    pub fn set_postfix(&self, postfix: impl Into<String>) {
        *lock(&self.0.row.postfix) = postfix.into();
        tick();
    }
}

/// One bar's state.
struct Row {
    label: String,
    total: Option<u64>,
    done: AtomicU64,
    start: Instant,
    ended: OnceLock<Instant>,
    postfix: Mutex<String>,
    /// (steps a second, smoothed; when; steps then)
    rate: Mutex<(Option<f64>, Instant, u64)>,
    terminal: Option<indicatif::ProgressBar>,
}

impl Row {
    fn new(label: String, total: Option<u64>) -> Self {
        let start = Instant::now();
        Self {
            label,
            total,
            done: AtomicU64::new(0),
            start,
            ended: OnceLock::new(),
            postfix: Mutex::default(),
            rate: Mutex::new((None, start, 0)),
            terminal: Frontend::current().is_terminal().then(|| terminal_bar(total)),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let done = self.done.load(Ordering::Relaxed);
        let now = self.ended.get().copied().unwrap_or_else(Instant::now);
        let elapsed = now.duration_since(self.start).as_secs_f64();
        let mut rate = lock(&self.rate);
        let since = now.duration_since(rate.1).as_secs_f64();
        let per_second = if self.ended.get().is_some() {
            (elapsed > 0.0).then(|| done as f64 / elapsed)
        } else if since > 0.02 && done > rate.2 {
            let recent = (done - rate.2) as f64 / since;
            *rate = (Some(rate.0.map_or(recent, |smooth| 0.7 * smooth + 0.3 * recent)), now, done);
            rate.0
        } else {
            rate.0
        };
        Snapshot {
            label: self.label.clone(),
            done,
            total: self.total,
            elapsed,
            per_second,
            postfix: lock(&self.postfix).clone(),
            ended: self.ended.get().is_some(),
        }
    }
}

/// What a bar says at one moment.
#[derive(Clone, Debug)]
struct Snapshot {
    label: String,
    done: u64,
    total: Option<u64>,
    elapsed: f64,
    per_second: Option<f64>,
    postfix: String,
    ended: bool,
}

impl Snapshot {
    fn part(&self) -> Option<f64> {
        self.total.map(|total| if total == 0 { 1.0 } else { (self.done as f64 / total as f64).min(1.0) })
    }

    fn complete(&self) -> bool {
        self.total.is_some_and(|total| self.done >= total) || (self.total.is_none() && self.ended)
    }

    /// `45/100 [12.1 s < 14.8 s, 3.7/s, loss 0.1]`
    fn figures(&self) -> String {
        let mut figures = count(self.done);
        if let Some(total) = self.total {
            figures += &format!("/{}", count(total));
        }
        figures += &format!(" [{}", seconds(self.elapsed));
        if let (Some(total), Some(rate), false) = (self.total, self.per_second, self.ended) {
            figures += &format!(" < {}", seconds(total.saturating_sub(self.done) as f64 / rate));
        }
        match self.per_second {
            Some(rate) if rate >= 1.0 => figures += &format!(", {}/s", super::html::number(rate)),
            Some(rate) if rate > 0.0 => figures += &format!(", {} each", seconds(1.0 / rate)),
            _ => {}
        }
        if !self.postfix.is_empty() {
            figures += &format!(", {}", self.postfix);
        }
        figures + "]"
    }

    fn text(&self) -> String {
        let label = if self.label.is_empty() { String::new() } else { format!("{}: ", self.label) };
        let Some(part) = self.part() else { return format!("{label}{}", self.figures()) };
        let eighths = (part * 160.0).floor() as usize;
        let mut bar = "█".repeat(eighths / 8);
        if !eighths.is_multiple_of(8) {
            bar.push(char::from_u32(0x2590 - eighths as u32 % 8).unwrap_or(' '));
        }
        format!("{label}{:3.0}%|{bar:<20}| {}", (part * 100.0).floor(), self.figures())
    }

    fn html(&self, depth: usize) -> String {
        let color = match (self.complete(), self.ended) {
            (true, _) => "#2a9d6f",
            (false, true) => "#d98e04",
            (false, false) => "#3b82c4",
        };
        let bar = self.part().map_or_else(String::new, |part| {
            format!(
                "<div style=\"width:180px;height:8px;border-radius:4px;background:rgba(127,127,127,.3);overflow:hidden\">\
                 <div style=\"width:{:.1}%;height:8px;background:{color}\"></div></div>\
                 <span style=\"min-width:3em;text-align:right\">{:.0}%</span>",
                part * 100.0,
                (part * 100.0).floor()
            )
        });
        let label = if self.label.is_empty() { String::new() } else { format!("<span>{}</span>", escape(&self.label)) };
        format!(
            "<div style=\"display:flex;flex-wrap:wrap;align-items:center;gap:8px;padding-left:{}px;font:12px/1.7 ui-monospace,Menlo,Consolas,monospace\">{label}{bar}<span>{}</span></div>",
            depth * 16,
            escape(&self.figures())
        )
    }
}

impl Rich for Vec<Snapshot> {
    fn rich(&self) -> MimeBundle {
        let text: Vec<_> = self.iter().map(Snapshot::text).collect();
        let html: String = self.iter().enumerate().map(|(depth, row)| row.html(depth)).collect();
        MimeBundle::text(text.join("\n")).with_html(html)
    }
}

/// The bars that are alive, and the output they share.
#[derive(Default)]
struct Board {
    rows: Vec<Arc<Row>>,
    output: Option<Display>,
}

static BOARD: Mutex<Board> = Mutex::new(Board { rows: Vec::new(), output: None });
/// When the next update is due, in milliseconds of [`clock`].
static DUE: AtomicU64 = AtomicU64::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn lock_board() -> MutexGuard<'static, Board> {
    lock(&BOARD)
}

fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// Updates the shared output if it is time; cheap if it is not.
fn tick() {
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
    fn add(&mut self, row: Arc<Row>) {
        self.rows.push(row);
        if self.output.is_none() && !Frontend::current().is_terminal() {
            self.output = Some(display(&self.snapshots()));
            DUE.store(clock() + UPDATE_EVERY.as_millis() as u64, Ordering::Relaxed);
        } else {
            tick_locked(self);
        }
    }

    fn end(&mut self, row: &Arc<Row>) {
        let _ = row.ended.set(Instant::now());
        let is_first = self.rows.first().is_some_and(|first| Arc::ptr_eq(first, row));
        if let Some(bar) = &row.terminal {
            end_terminal_bar(bar, row, is_first);
        }
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
            None => self.rows.iter().for_each(|row| draw_in_terminal(row)),
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

fn terminal_bar(total: Option<u64>) -> indicatif::ProgressBar {
    static TERMINAL: OnceLock<indicatif::MultiProgress> = OnceLock::new();
    let bar = total.map_or_else(indicatif::ProgressBar::no_length, indicatif::ProgressBar::new);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    TERMINAL.get_or_init(indicatif::MultiProgress::new).add(bar)
}

fn draw_in_terminal(row: &Row) {
    if let Some(bar) = &row.terminal {
        bar.set_message(row.snapshot().text());
        bar.tick();
    }
}

fn end_terminal_bar(bar: &indicatif::ProgressBar, row: &Row, stays: bool) {
    if !stays {
        bar.finish_and_clear();
    } else if bar.is_hidden() {
        eprintln!("{}", row.snapshot().text());
    } else {
        bar.finish_with_message(row.snapshot().text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halfway() -> Snapshot {
        Snapshot {
            label: "fit <x>".into(),
            done: 45,
            total: Some(100),
            elapsed: 12.0,
            per_second: Some(3.75),
            postfix: "loss 0.1".into(),
            ended: false,
        }
    }

    #[test]
    fn a_bar_reads_like_tqdm() {
        assert_eq!(halfway().text(), "fit <x>:  45%|█████████           | 45/100 [12.0 s < 14.7 s, 3.750/s, loss 0.1]");
        let counter = Snapshot { total: None, per_second: Some(0.5), ..halfway() };
        assert_eq!(counter.text(), "fit <x>: 45 [12.0 s, 2.00 s each, loss 0.1]");
    }

    #[test]
    fn nested_bars_are_indented_escaped_and_show_how_they_ended() {
        let stopped = Snapshot { ended: true, ..halfway() };
        let complete = Snapshot { done: 100, ..stopped.clone() };
        let html = vec![halfway(), stopped, complete].rich().to_html();
        assert!(html.contains("fit &lt;x&gt;") && html.contains("padding-left:32px"));
        for color in ["#3b82c4", "#d98e04", "#2a9d6f"] {
            assert!(html.contains(color), "{color}");
        }
    }

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
        assert_eq!(Snapshot { done: 0, total: Some(0), ..halfway() }.part(), Some(1.0));
    }
}
