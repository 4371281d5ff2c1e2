//! One line that changes in place while the kernel itself does something that takes long.

use serde_json::json;

use super::Output;
use super::pipes::Pipes;

/// A display that shows the latest of many lines.
pub struct Line<'a> {
    pipes: &'a Pipes,
    title: &'static str,
    id: Option<String>,
    last: String,
}

impl<'a> Line<'a> {
    pub fn new(pipes: &'a Pipes, title: &'static str) -> Line<'a> {
        Line { pipes, title, id: None, last: String::new() }
    }

    /// Shows `text` in place of what was there.
    pub fn set(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        self.last = text.to_owned();
        self.show(&format!("{}: {text}", self.title));
    }

    /// Says how it ended, if it was ever shown.
    pub fn finish(&mut self, good: bool) {
        if self.id.is_some() {
            self.show(&format!("{}: {}", self.title, if good { "done" } else { "failed" }));
        }
    }

    fn show(&mut self, text: &str) {
        let first = self.id.is_none();
        let id = self.id.get_or_insert_with(|| {
            format!("wavemesh-line-{:x}", std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos())
        });
        let content = json!({"data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": id}});
        self.pipes.send(if first { Output::Display(content) } else { Output::UpdateDisplay(content) });
    }
}
