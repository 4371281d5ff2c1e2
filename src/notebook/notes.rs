//! The library's warnings, as quiet lines in a notebook's output.
//!
//! The library warns through the `log` facade with the target `wavemesh`. A program chooses its own logger; a notebook uses this one.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::frontend::Frontend;
use super::{display, escape, html};
use crate::sync::lock;

/// How many latest messages are remembered; these are not shown again.
const REMEMBERED: usize = 32;

#[derive(Default)]
struct Notes {
    latest: Mutex<VecDeque<String>>,
}

impl Notes {
    /// Whether the message is not among the latest ones; afterwards it is.
    fn is_new(&self, message: &str) -> bool {
        let mut latest = lock(&self.latest);
        if latest.iter().any(|known| known == message) {
            return false;
        }
        latest.truncate(REMEMBERED - 1);
        latest.push_front(message.to_owned());
        true
    }
}

impl log::Log for Notes {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().split("::").next() == Some("wavemesh")
    }

    fn log(&self, record: &log::Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        if !self.is_new(&message) {
            return;
        }
        if Frontend::current().is_live() {
            let note = format!("<div style=\"font-size:12px;opacity:.75\">Note: {}</div>", escape(&message));
            display(html(note));
        } else {
            eprintln!("note: {message}");
        }
    }

    fn flush(&self) {}
}

/// Shows the library's warnings as notes from now on, unless the program has its own logger.
pub(super) fn show_notes() {
    static NOTES: Notes = Notes { latest: Mutex::new(VecDeque::new()) };
    if log::set_logger(&NOTES).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

#[cfg(test)]
mod tests {
    use log::Log;

    use super::*;

    #[test]
    fn a_note_is_shown_once_and_what_is_remembered_does_not_grow() {
        let notes = Notes::default();
        assert!(notes.is_new("a") && !notes.is_new("a"));
        for n in 0..1000 {
            assert!(notes.is_new(&n.to_string()));
        }
        assert_eq!(lock(&notes.latest).len(), REMEMBERED);
        assert!(notes.is_new("a"), "long ago");
    }

    #[test]
    fn only_this_library_is_listened_to() {
        let of = |target| log::Metadata::builder().level(log::Level::Warn).target(target).build();
        assert!(Notes::default().enabled(&of("wavemesh")) && Notes::default().enabled(&of("wavemesh::sdf::grid")));
        assert!(!Notes::default().enabled(&of("wavemesh_other")) && !Notes::default().enabled(&of("hyper")));
    }
}
