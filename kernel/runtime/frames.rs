//! Frames: messages between the printed text on a cell's standard output and error.
//!
//! A frame is `ESC _ WMSH:` (without spaces), the kernel's secret token, `:`, the payload's length in decimal, a newline, and the payload.
//! The payload is JSON: `{"msg_type": …, "content": …}` with the content of a Jupyter message. Text without the token is never taken for a
//! frame.

/// The environment variable that holds the token.
pub const TOKEN: &str = "WAVEMESH_FRAME_TOKEN";

/// At most this many bytes are between the token and the payload.
const HEADER: usize = 24;

/// The bytes of a frame with this payload.
pub fn frame(token: &str, payload: &str) -> String {
    format!("\x1b_WMSH:{token}:{}\n{payload}", payload.len())
}

/// The payload of the frame that ends the output of a run.
pub fn end_of_run(run: u64) -> String {
    format!(r#"{{"msg_type":"cell_end","run":{run}}}"#)
}

/// Whether a payload ends the output of some run.
pub fn is_end(payload: &[u8]) -> bool {
    payload.starts_with(br#"{"msg_type":"cell_end""#)
}

/// A piece of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(Vec<u8>),
    /// The payload of a frame.
    Frame(Vec<u8>),
}

/// Separates frames from text. Bytes that may be the start of a frame are kept until more arrive.
pub struct Splitter {
    prefix: Vec<u8>,
    carry: Vec<u8>,
}

/// What begins at an escape character.
enum Start {
    /// A frame, with the start and end of its payload.
    Frame(usize, usize),
    /// Other text.
    Text,
    /// Not known until more bytes arrive.
    Open,
}

impl Splitter {
    /// A splitter for frames with this kernel's secret `token`.
    pub fn new(token: &str) -> Splitter {
        Splitter { prefix: format!("\x1b_WMSH:{token}:").into_bytes(), carry: Vec::new() }
    }

    /// Takes bytes, and returns the frames and texts that are now complete.
    pub fn split(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.carry.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < self.carry.len() {
            let rest = &self.carry[at..];
            let text = rest.iter().position(|&byte| byte == 0x1b).unwrap_or(rest.len());
            push_text(&mut pieces, &rest[..text]);
            at += text;
            let rest = &rest[text..];
            match self.start(rest) {
                Start::Frame(from, to) => {
                    pieces.push(Piece::Frame(rest[from..to].to_vec()));
                    at += to;
                }
                Start::Text => {
                    push_text(&mut pieces, &rest[..rest.len().min(1)]);
                    at += rest.len().min(1);
                }
                Start::Open => break,
            }
        }
        self.carry.drain(..at);
        pieces
    }

    fn start(&self, rest: &[u8]) -> Start {
        if rest.is_empty() {
            return Start::Text;
        }
        let Some(header) = rest.strip_prefix(&self.prefix[..]) else {
            return if self.prefix.starts_with(rest) { Start::Open } else { Start::Text };
        };
        let Some(newline) = header.iter().take(HEADER).position(|&byte| byte == b'\n') else {
            return if header.len() < HEADER { Start::Open } else { Start::Text };
        };
        let length = std::str::from_utf8(&header[..newline]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let from = self.prefix.len() + newline + 1;
        match length.and_then(|length| from.checked_add(length)) {
            Some(to) if to <= rest.len() => Start::Frame(from, to),
            Some(_) => Start::Open,
            None => Start::Text,
        }
    }
}

fn push_text(pieces: &mut Vec<Piece>, bytes: &[u8]) {
    match pieces.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Piece::Text(text)) => text.extend_from_slice(bytes),
        _ => pieces.push(Piece::Text(bytes.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result if the bytes arrive `step` at a time, with adjacent texts joined.
    fn split(bytes: &[u8], step: usize) -> Vec<Piece> {
        let mut splitter = Splitter::new("t0k");
        let mut joined = Vec::new();
        for piece in bytes.chunks(step).flat_map(|chunk| splitter.split(chunk)) {
            match piece {
                Piece::Text(text) => push_text(&mut joined, &text),
                frame => joined.push(frame),
            }
        }
        joined
    }

    #[test]
    fn frames_are_parted_from_text_however_the_bytes_are_cut() {
        let written = format!("a{}\x1b[1mb{}{}c", frame("t0k", "{}"), frame("t0k", "größe"), frame("t0k", ""));
        let expected = [
            Piece::Text(b"a".to_vec()),
            Piece::Frame(b"{}".to_vec()),
            Piece::Text(b"\x1b[1mb".to_vec()),
            Piece::Frame("größe".as_bytes().to_vec()),
            Piece::Frame(Vec::new()),
            Piece::Text(b"c".to_vec()),
        ];
        for step in [1, 2, 5, written.len()] {
            assert_eq!(split(written.as_bytes(), step), expected, "{step} bytes at a time");
        }
    }

    #[test]
    fn what_only_looks_like_a_frame_is_text() {
        for text in [
            frame("0ther", "{}"),
            "\x1b_WMSH:t0k:x\n{}".to_owned(),
            "\x1b_WMSH:t0k:-1\n{}".to_owned(),
            format!("\x1b_WMSH:t0k:{}\n", "9".repeat(22)),
            format!("\x1b_WMSH:t0k:{}", "1".repeat(30)),
            "\x1b\x1b\x1bx".to_owned(),
        ] {
            assert_eq!(split(text.as_bytes(), 3), [Piece::Text(text.clone().into_bytes())], "{text:?}");
        }
    }

    #[test]
    fn the_end_of_a_run_is_known_by_its_number() {
        assert!(is_end(end_of_run(7).as_bytes()) && !is_end(br#"{"msg_type":"stream"}"#));
        assert_ne!(end_of_run(1), end_of_run(11));
    }
}
