//! evcxr's own display protocol: content between marker lines in standard output.

use serde_json::{Map, Value, json};

use super::cell::{Prompt, push_text};
use crate::engine::Output;

const BEGIN: &str = "EVCXR_BEGIN_CONTENT ";
const FINISH: &str = "EVCXR_END_CONTENT";
const INPUT: &str = "EVCXR_INPUT_REQUEST";

/// evcxr's own display protocol, which other crates print: content between marker lines, one block for each MIME type. Blocks that directly
/// follow each other form one display.
#[derive(Default)]
pub struct Contents {
    held: String,
    bundle: Map<String, Value>,
    /// Whether a block has just ended; the newlines after it belong to it.
    after_block: bool,
}

impl Contents {
    /// Whether text is held that may belong to a display.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty() || !self.bundle.is_empty()
    }

    /// Passes text on, without marker lines and their content. Returns a prompt if one was printed.
    pub fn take(&mut self, text: &str, batch: &mut Vec<Output>) -> Option<Prompt> {
        let text = std::mem::take(&mut self.held) + text;
        let mut rest = if self.after_block { text.trim_start_matches('\n') } else { text.as_str() };
        self.after_block &= rest.is_empty();
        let mut prompt = None;
        loop {
            let marker = [BEGIN, INPUT].iter().filter_map(|marker| rest.find(marker)).min();
            let Some(start) = marker else {
                let kept = possible_marker(rest);
                self.pass(&rest[..rest.len() - kept], batch);
                self.held = rest[rest.len() - kept..].to_owned();
                return prompt;
            };
            self.pass(&rest[..start], batch);
            rest = &rest[start..];
            let Some(line_end) = rest.find('\n') else {
                self.held = rest.to_owned();
                return prompt;
            };
            if let Some(asked) = rest[..line_end].strip_prefix(INPUT) {
                let password = asked.starts_with("_PASSWORD");
                let text = asked.split_once(':').map(|(_, text)| text.to_owned()).unwrap_or_default();
                prompt = Some(Prompt { text, password });
                rest = &rest[line_end + 1..];
                continue;
            }
            let mime = rest[BEGIN.len()..line_end].trim().to_owned();
            let Some(length) = rest[line_end..].find(FINISH) else {
                self.held = rest.to_owned();
                return prompt;
            };
            let content = rest[line_end..line_end + length].trim_matches('\n');
            if self.bundle.contains_key(&mime) {
                self.finish_bundle(batch);
            }
            self.bundle.insert(mime, Value::String(content.to_owned()));
            rest = rest[line_end + length + FINISH.len()..].trim_start_matches('\n');
            self.after_block = rest.is_empty();
        }
    }

    fn pass(&mut self, text: &str, batch: &mut Vec<Output>) {
        if !text.is_empty() {
            self.finish_bundle(batch);
            push_text(batch, text.to_owned(), true);
        }
    }

    fn finish_bundle(&mut self, batch: &mut Vec<Output>) {
        if !self.bundle.is_empty() {
            let data = std::mem::take(&mut self.bundle);
            batch.push(Output::Display(json!({"data": data, "metadata": {}, "transient": {}})));
        }
    }

    /// Releases held text, because nothing more comes for now: it was not the start of a marker after all.
    pub fn let_go(&mut self, batch: &mut Vec<Output>) {
        self.after_block = false;
        if !self.held.starts_with(BEGIN) {
            let held = std::mem::take(&mut self.held);
            self.pass(&held, batch);
        }
        self.finish_bundle(batch);
    }
}

/// How many bytes at the end of `text` may be the start of a marker.
fn possible_marker(text: &str) -> usize {
    [BEGIN, INPUT]
        .iter()
        .flat_map(|marker| (1..marker.len()).rev().filter(|&length| text.ends_with(&marker[..length])))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What texts become that arrive one after the other, when nothing follows.
    fn passed(texts: &[&str]) -> (Vec<String>, Option<Prompt>) {
        let (mut contents, mut outputs, mut prompt) = (Contents::default(), Vec::new(), None);
        for text in texts {
            prompt = contents.take(text, &mut outputs).or(prompt);
        }
        contents.let_go(&mut outputs);
        (outputs.iter().map(|output| format!("{output:?}")).collect(), prompt)
    }

    #[test]
    fn blocks_that_follow_each_other_are_one_display() {
        let blocks = "a\nEVCXR_BEGIN_CONTENT text/html\n<b>x</b>\nEVCXR_END_CONTENT\nEVCXR_BEGIN_CONTENT text/plain\nx\nEVCXR_END_CONTENT\nb";
        let whole = passed(&[blocks]).0;
        assert_eq!(whole.len(), 3, "{whole:?}");
        assert!(whole[1].contains("<b>x</b>") && whole[1].contains("text/plain"), "{whole:?}");
        for cut in 1..blocks.len() {
            assert_eq!(passed(&[&blocks[..cut], &blocks[cut..]]).0, whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_only_begins_like_a_marker_is_text() {
        assert_eq!(passed(&["EVCXR_BEG", "AN"]).0, [r#"Stdout("EVCXR_BEGAN")"#]);
        assert_eq!(passed(&["x EVCXR_"]).0, [r#"Stdout("x EVCXR_")"#]);
    }

    #[test]
    fn a_prompt_may_hide_what_is_typed() {
        let (outputs, prompt) = passed(&["EVCXR_INPUT_REQUEST_PASS", "WORD:Key?\n"]);
        assert_eq!((outputs.len(), prompt), (0, Some(Prompt { text: "Key?".into(), password: true })));
    }
}
