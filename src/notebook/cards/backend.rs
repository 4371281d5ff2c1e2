//! The card of the sparse backend: what runs, and the speed to expect.

use super::{Facts, card, card_text};
use crate::notebook::{MimeBundle, Rich, escape};
use crate::sparse::BackendInfo;

impl Rich for BackendInfo {
    fn rich(&self) -> MimeBundle {
        let facts: Facts = vec![
            ("", self.backend.clone()),
            ("version", self.version.clone()),
            ("device", self.device.clone()),
            ("threads", self.threads.to_string()),
            ("SIMD", self.simd.clone()),
        ];
        let mut text = format!("{}\n{}", card_text("Sparse backend", &facts), self.performance);
        let mut body = format!("<div>{}</div>", escape(&self.performance));
        if let Some(note) = &self.note {
            text += &format!("\nNote: {note}");
            body += &format!(
                "<div style=\"border-left:3px solid #d98e04;padding-left:8px;margin-top:4px\">{}</div>",
                escape(note)
            );
        }
        MimeBundle::text(text).with_html(card("Sparse backend", &facts, &body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_is_shown_and_escaped() {
        let mut info = crate::sparse::backend_info();
        info.note = Some("use <b>".into());
        let bundle = info.rich();
        assert!(bundle.plain().contains(&info.simd) && bundle.plain().ends_with("Note: use <b>"));
        assert!(bundle.to_html().contains("use &lt;b&gt;"));
    }
}
