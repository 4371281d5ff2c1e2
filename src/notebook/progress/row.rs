//! One bar: its counts, and its text and HTML.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use crate::notebook::frontend::Frontend;
use crate::notebook::html::{count, number, seconds};
use crate::notebook::{MimeBundle, Rich, escape};
use crate::sync::lock;

/// One bar's state.
pub(super) struct Row {
    label: String,
    total: Option<u64>,
    pub done: AtomicU64,
    start: Instant,
    pub ended: OnceLock<Instant>,
    postfix: Mutex<String>,
    /// (steps per second, smoothed; when they were measured; the number of steps then)
    rate: Mutex<(Option<f64>, Instant, u64)>,
    terminal: Option<indicatif::ProgressBar>,
}

impl Row {
    pub fn new(start: Instant, label: String, total: Option<u64>) -> Self {
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

    pub fn snapshot(&self) -> Snapshot {
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

    pub fn set_postfix(&self, postfix: String) {
        *lock(&self.postfix) = postfix;
    }

    pub fn draw_in_terminal(&self) {
        if let Some(bar) = &self.terminal {
            bar.set_message(self.snapshot().text());
            bar.tick();
        }
    }

    /// Shows the last state, and then leaves it on the screen or removes it.
    pub fn end_in_terminal(&self, stays: bool) {
        let Some(bar) = &self.terminal else { return };
        if !stays {
            bar.finish_and_clear();
        } else if bar.is_hidden() {
            eprintln!("{}", self.snapshot().text());
        } else {
            bar.finish_with_message(self.snapshot().text());
        }
    }
}

/// The state of a bar at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    label: String,
    done: u64,
    total: Option<u64>,
    elapsed: f64,
    per_second: Option<f64>,
    postfix: String,
    ended: bool,
}

impl Snapshot {
    pub fn part(&self) -> Option<f64> {
        self.total.map(|total| if total == 0 { 1.0 } else { (self.done as f64 / total as f64).min(1.0) })
    }

    pub fn complete(&self) -> bool {
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
            Some(rate) if rate >= 1.0 => figures += &format!(", {}/s", number(rate)),
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

fn terminal_bar(total: Option<u64>) -> indicatif::ProgressBar {
    static TERMINAL: OnceLock<indicatif::MultiProgress> = OnceLock::new();
    let bar = total.map_or_else(indicatif::ProgressBar::no_length, indicatif::ProgressBar::new);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    TERMINAL.get_or_init(indicatif::MultiProgress::new).add(bar)
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
    fn nothing_to_do_is_complete() {
        assert_eq!(Snapshot { done: 0, total: Some(0), ..halfway() }.part(), Some(1.0));
    }
}
