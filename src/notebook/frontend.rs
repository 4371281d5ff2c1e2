//! The frontend, which shows our displays, and the ways to send to it.
//!
//! | frontend | recognised by | a display becomes |
//! | --- | --- | --- |
//! | WaveMesh's kernel | `WAVEMESH_FRAME_TOKEN` | a frame on stdout, in order with prints, shown at once |
//! | stock `evcxr_jupyter` | `EVCXR_IS_RUNTIME` | `EVCXR_BEGIN_CONTENT` blocks; the cell's last state is shown when it ends |
//! | files | `WAVEMESH_DISPLAY_DIR` | one file per representation: `001.html`, `001.png`, `001.txt` |
//! | a terminal | none of these | the plain text |
//!
//! A frame is `ESC _ WMSH:` (no spaces), the token, `:`, the payload's length in decimal, a newline, and the payload: JSON
//! `{"msg_type": …, "content": …}` with Jupyter's message content. It is written whole under stdout's lock.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

use serde_json::{Value, json};

use super::MimeBundle;
use crate::files::write_atomically;
use crate::sync::lock;

/// The frontend that shows displays; see the table in this module's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frontend {
    Kernel { token: String },
    StockEvcxr,
    Files { folder: PathBuf },
    Terminal,
}

/// What a display sends to the frontend.
pub(crate) enum Message<'a> {
    /// A new output; later updates refer to it by `id`.
    Display { bundle: &'a MimeBundle, id: &'a str },
    /// A new state of the output `id`. `last` is false if another state will certainly follow.
    Update { bundle: &'a MimeBundle, id: &'a str, last: bool },
    /// The value at the end of a cell. `id` names the output in which it is shown already.
    Result { bundle: &'a MimeBundle, id: Option<&'a str> },
    /// Remove what the cell has shown so far, now or (`wait`) when the next output comes.
    Clear { wait: bool },
}

impl Frontend {
    /// The frontend of this process, read once from the environment.
    pub(crate) fn current() -> &'static Self {
        static CURRENT: OnceLock<Frontend> = OnceLock::new();
        CURRENT.get_or_init(|| Self::from_env(|name| std::env::var(name).ok().filter(|value| !value.is_empty())))
    }

    fn from_env(var: impl Fn(&str) -> Option<String>) -> Self {
        if let Some(token) = var("WAVEMESH_FRAME_TOKEN") {
            Self::Kernel { token }
        } else if var("EVCXR_IS_RUNTIME").is_some() {
            Self::StockEvcxr
        } else if let Some(folder) = var("WAVEMESH_DISPLAY_DIR") {
            Self::Files { folder: folder.into() }
        } else {
            Self::Terminal
        }
    }

    /// Whether an update becomes visible while the cell runs.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self, Self::Kernel { .. })
    }

    /// Whether the user sees only plain text.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal)
    }

    /// Sends a message. If the frontend cannot be reached, this is reported on stderr: a display must not stop a computation.
    pub(crate) fn send(&self, message: &Message) {
        static SHOWN: OnceLock<Mutex<Shown>> = OnceLock::new();
        let shown = lock(SHOWN.get_or_init(Default::default));
        if let Err(error) = self.write(message, shown, &mut std::io::stdout().lock()) {
            eprintln!("wavemesh: a display could not be shown: {error}");
        }
    }

    fn write(&self, message: &Message, mut shown: MutexGuard<Shown>, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Kernel { token } => out.write_all(&frame(token, &jupyter_message(message)))?,
            Self::StockEvcxr => {
                let unfinished = matches!(message, Message::Update { last: false, .. });
                shown.apply(message);
                if !unfinished {
                    write_evcxr_blocks(&shown.composed(), out)?;
                }
            }
            Self::Files { folder } => {
                let number = shown.apply(message);
                if let (
                    Message::Display { bundle, .. } | Message::Update { bundle, .. } | Message::Result { bundle, .. },
                    Some(number),
                ) = (message, number)
                {
                    write_files(folder, number, bundle)?;
                }
            }
            Self::Terminal => match message {
                Message::Display { bundle, .. }
                | Message::Update { bundle, last: true, .. }
                | Message::Result { bundle, .. }
                    if !bundle.is_empty() =>
                {
                    writeln!(out, "{}", bundle.plain())?
                }
                _ => {}
            },
        }
        out.flush()
    }
}

fn jupyter_message(message: &Message) -> Value {
    let with_id = |bundle: &MimeBundle, id: &str| {
        let mut content = bundle.content();
        content.insert("transient".into(), json!({ "display_id": id }));
        content
    };
    match message {
        Message::Display { bundle, id } => json!({ "msg_type": "display_data", "content": with_id(bundle, id) }),
        Message::Update { bundle, id, .. } => {
            json!({ "msg_type": "update_display_data", "content": with_id(bundle, id) })
        }
        Message::Result { bundle, id } => {
            let content = id.map_or_else(|| bundle.content(), |id| with_id(bundle, id));
            json!({ "msg_type": "execute_result", "content": content })
        }
        Message::Clear { wait } => json!({ "msg_type": "clear_output", "content": { "wait": wait } }),
    }
}

fn frame(token: &str, message: &Value) -> Vec<u8> {
    let payload = message.to_string();
    let mut frame = format!("\x1b_WMSH:{token}:{}\n", payload.len()).into_bytes();
    frame.extend_from_slice(payload.as_bytes());
    frame
}

/// The displays on the page, for frontends that cannot change one by its id. Under stock evcxr every cell has its own copy of this crate's
/// statics, so the list is empty at the start of each cell.
#[derive(Default)]
struct Shown {
    by_number: BTreeMap<usize, (String, MimeBundle)>,
    shown_in_all: usize,
}

impl Shown {
    /// Applies the message. Returns the number of the display that it concerns.
    fn apply(&mut self, message: &Message) -> Option<usize> {
        let (id, bundle) = match message {
            Message::Clear { .. } => {
                self.by_number.clear();
                return None;
            }
            Message::Display { bundle, id } | Message::Update { bundle, id, .. } => (*id, *bundle),
            Message::Result { bundle, id } => (id.unwrap_or_default(), *bundle),
        };
        if bundle.is_empty() {
            return None;
        }
        let known =
            self.by_number.iter().find(|(_, (known, _))| !id.is_empty() && known == id).map(|(number, _)| *number);
        let number = known.unwrap_or_else(|| {
            self.shown_in_all += 1;
            self.shown_in_all
        });
        self.by_number.insert(number, (id.to_owned(), (*bundle).clone()));
        Some(number)
    }

    /// All displays as one: stock evcxr keeps only the last content of each MIME type.
    fn composed(&self) -> MimeBundle {
        let mut bundles = self.by_number.values().map(|(_, bundle)| bundle);
        match self.by_number.len() {
            0 => MimeBundle::nothing(),
            1 => bundles.next().cloned().unwrap_or_default(),
            _ => {
                let text: Vec<_> = bundles.clone().map(MimeBundle::plain).collect();
                let html: String = bundles.map(|bundle| format!("<div>{}</div>", bundle.to_html())).collect();
                MimeBundle::text(text.join("\n")).with_html(html)
            }
        }
    }
}

fn write_evcxr_blocks(bundle: &MimeBundle, out: &mut impl Write) -> std::io::Result<()> {
    for (mime, value) in bundle.iter() {
        let content = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // A line of the content that looks like a marker would end the block.
        let content = content.replace("\nEVCXR_", "\n EVCXR_");
        writeln!(out, "EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT")?;
    }
    Ok(())
}

fn write_files(folder: &Path, number: usize, bundle: &MimeBundle) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (mime, value) in bundle.iter() {
        let extension = match mime {
            "text/plain" => "txt",
            "text/html" => "html",
            "text/markdown" => "md",
            "text/latex" => "tex",
            "image/png" => "png",
            "image/jpeg" => "jpg",
            "image/svg+xml" => "svg",
            _ => "json",
        };
        let content = match (mime, value.as_str()) {
            ("image/png", _) => bundle.png_bytes().unwrap_or_default(),
            ("text/html", Some(html)) => format!("<!doctype html><meta charset=\"utf-8\">{html}").into_bytes(),
            (_, Some(text)) => text.as_bytes().to_vec(),
            (_, None) => value.to_string().into_bytes(),
        };
        let path = folder.join(format!("{number:03}.{extension}"));
        write_atomically(&path, &content).map_err(std::io::Error::other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frontend: &Frontend, messages: &[Message]) -> String {
        let shown = Mutex::new(Shown::default());
        let mut out = Vec::new();
        for message in messages {
            frontend.write(message, lock(&shown), &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_environment_chooses_the_frontend_and_our_kernel_comes_first() {
        let with = |set: &'static [(&'static str, &'static str)]| {
            Frontend::from_env(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()))
        };
        assert_eq!(with(&[]), Frontend::Terminal);
        assert_eq!(
            with(&[("EVCXR_IS_RUNTIME", "1"), ("WAVEMESH_FRAME_TOKEN", "ab")]),
            Frontend::Kernel { token: "ab".into() }
        );
        assert_eq!(with(&[("EVCXR_IS_RUNTIME", "1"), ("WAVEMESH_DISPLAY_DIR", "d")]), Frontend::StockEvcxr);
        assert_eq!(with(&[("WAVEMESH_DISPLAY_DIR", "d")]), Frontend::Files { folder: "d".into() });
    }

    #[test]
    fn a_frame_carries_its_token_and_the_length_of_its_payload_in_bytes() {
        let bundle = MimeBundle::text("größe");
        let out =
            written(&Frontend::Kernel { token: "c0ffee".into() }, &[Message::Display { bundle: &bundle, id: "a" }]);
        let (head, payload) = out.split_once('\n').unwrap();
        assert_eq!(head, format!("\x1b_WMSH:c0ffee:{}", payload.len()));
        let message: Value = serde_json::from_str(payload).unwrap();
        assert_eq!(message["msg_type"], "display_data");
        assert_eq!(message["content"]["data"]["text/plain"], "größe");
        assert_eq!(message["content"]["transient"]["display_id"], "a");
    }

    #[test]
    fn stock_evcxr_is_given_all_displays_of_the_cell_in_their_final_state() {
        let (one, two, three) = (MimeBundle::text("one"), MimeBundle::text("two"), MimeBundle::text("three"));
        let out = written(
            &Frontend::StockEvcxr,
            &[
                Message::Display { bundle: &one, id: "a" },
                Message::Update { bundle: &two, id: "a", last: false },
                Message::Result { bundle: &three, id: None },
            ],
        );
        let last = out.rsplit("EVCXR_BEGIN_CONTENT text/plain\n").next().unwrap();
        assert_eq!(last, "two\nthree\nEVCXR_END_CONTENT\n");
        assert!(out.contains("EVCXR_BEGIN_CONTENT text/html\n<div><pre style=\"margin:0\">two</pre></div>"));
    }

    #[test]
    fn a_value_that_shows_itself_already_is_shown_once() {
        let (first, last) = (MimeBundle::text("first"), MimeBundle::text("last"));
        let messages = [Message::Display { bundle: &first, id: "a" }, Message::Result { bundle: &last, id: Some("a") }];
        let out = written(&Frontend::StockEvcxr, &messages);
        assert_eq!(out.rsplit("EVCXR_BEGIN_CONTENT text/plain\n").next().unwrap(), "last\nEVCXR_END_CONTENT\n");
        let out = written(&Frontend::Kernel { token: "t".into() }, &messages);
        // The kernel knows the outputs of a cell.
        assert!(
            out.contains(r#""msg_type":"execute_result""#) && out.matches(r#""display_id":"a""#).count() == 2,
            "{out}"
        );
    }

    #[test]
    fn content_cannot_end_its_own_evcxr_block() {
        let bundle = MimeBundle::text("a\nEVCXR_END_CONTENT\nb");
        let out = written(&Frontend::StockEvcxr, &[Message::Result { bundle: &bundle, id: None }]);
        assert_eq!(out.lines().filter(|line| *line == "EVCXR_END_CONTENT").count(), 1);
    }

    #[test]
    fn files_hold_the_last_state_of_each_display() {
        let folder = std::env::temp_dir().join(format!("wavemesh-displays-{}", std::process::id()));
        let (first, second) =
            (MimeBundle::text("first").with_html("<b>1</b>"), MimeBundle::text("second").with_png(b"PNG", 1, 1));
        written(
            &Frontend::Files { folder: folder.clone() },
            &[
                Message::Display { bundle: &first, id: "a" },
                Message::Display { bundle: &first, id: "b" },
                Message::Update { bundle: &second, id: "a", last: true },
            ],
        );
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(
            (read("001.txt"), read("001.png"), read("002.txt")),
            ("second".into(), "PNG".into(), "first".into())
        );
        assert!(read("002.html").ends_with("<b>1</b>"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_terminal_prints_the_text_and_skips_passing_states() {
        let (one, two) = (MimeBundle::text("one"), MimeBundle::text("two"));
        let out = written(
            &Frontend::Terminal,
            &[
                Message::Display { bundle: &one, id: "a" },
                Message::Update { bundle: &two, id: "a", last: false },
                Message::Result { bundle: &MimeBundle::nothing(), id: None },
            ],
        );
        assert_eq!(out, "one\n");
    }
}
