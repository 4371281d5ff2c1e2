//! Bytes from the child, taken apart: frames that carry displays and marks, and text between them.

/// A piece of what the child wrote.
pub enum Piece {
    Text(Vec<u8>),
    Frame(Vec<u8>),
}

/// Parts frames from text. What may be the start of a frame is kept until more comes.
pub struct Frames {
    prefix: Vec<u8>,
    carry: Vec<u8>,
}

impl Frames {
    /// `token` is the secret of this kernel, without which text is never taken for a frame.
    pub fn new(token: &str) -> Frames {
        Frames { prefix: format!("\x1b_WMSH:{token}:").into_bytes(), carry: Vec::new() }
    }

    /// The frames and texts that are complete now.
    pub fn split(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.carry.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut at = 0;
        loop {
            let rest = &self.carry[at..];
            let Some(start) = rest.iter().position(|&byte| byte == 0x1b) else {
                push_bytes(&mut pieces, rest);
                at = self.carry.len();
                break;
            };
            push_bytes(&mut pieces, &rest[..start]);
            at += start;
            let rest = &self.carry[at..];
            if rest.len() < self.prefix.len() && self.prefix.starts_with(rest) {
                break;
            }
            if !rest.starts_with(&self.prefix) {
                push_bytes(&mut pieces, &rest[..1]);
                at += 1;
                continue;
            }
            let header = &rest[self.prefix.len()..];
            let Some(newline) = header.iter().take(24).position(|&byte| byte == b'\n') else {
                if header.len() < 24 {
                    break;
                }
                push_bytes(&mut pieces, &rest[..1]);
                at += 1;
                continue;
            };
            let length = std::str::from_utf8(&header[..newline]).ok().and_then(|digits| digits.parse::<usize>().ok());
            let Some(length) = length else {
                push_bytes(&mut pieces, &rest[..1]);
                at += 1;
                continue;
            };
            let body = self.prefix.len() + newline + 1;
            if rest.len() < body + length {
                break;
            }
            pieces.push(Piece::Frame(rest[body..body + length].to_vec()));
            at += body + length;
        }
        self.carry.drain(..at);
        pieces
    }
}

fn push_bytes(pieces: &mut Vec<Piece>, bytes: &[u8]) {
    match pieces.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Piece::Text(text)) => text.extend_from_slice(bytes),
        _ => pieces.push(Piece::Text(bytes.to_vec())),
    }
}

/// Bytes to text; a character whose bytes are not all there yet waits.
#[derive(Default)]
pub struct Decoder {
    carry: Vec<u8>,
}

impl Decoder {
    /// The text that is complete now.
    pub fn decode(&mut self, bytes: &[u8]) -> String {
        self.carry.extend_from_slice(bytes);
        let complete = match std::str::from_utf8(&self.carry) {
            Ok(_) => self.carry.len(),
            Err(error) => match self.carry[error.valid_up_to()..].utf8_chunks().last() {
                Some(last) if error_is_at_end(&self.carry) => self.carry.len() - last.invalid().len(),
                _ => self.carry.len(),
            },
        };
        let text = String::from_utf8_lossy(&self.carry[..complete]).into_owned();
        self.carry.drain(..complete);
        text
    }
}

/// Whether the bytes end in the middle of a character.
fn error_is_at_end(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    (0..tail.len()).any(|start| {
        std::str::from_utf8(&tail[start..]).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    })
}
