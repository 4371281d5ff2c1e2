//! Jupyter messages on the wire: framing, signatures, and the parts of a message that the kernel looks at.
//!
//! A message is `identities… | <IDS|MSG> | signature | header | parent_header | metadata | content | buffers…`
//! ([specification](https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol)). The signature is HMAC-SHA256 over
//! the four JSON frames. Content stays JSON: frontends leave out different fields, and a missing field must not prevent an answer.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::outbox::Frames;

/// The version of the messaging protocol this kernel speaks.
pub const PROTOCOL_VERSION: &str = "5.4";

const DELIMITER: &[u8] = b"<IDS|MSG>";
/// Signatures remembered to recognise a message that is sent a second time.
const REMEMBERED: usize = 65_536;

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The frames are not those of a Jupyter message.
    Framing,
    /// The signature is absent or wrong.
    Signature,
    /// The same signed message came before.
    Replayed,
    /// A frame is not the JSON that it should be.
    Json,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejected::Framing => "its frames are not those of a Jupyter message",
            Rejected::Signature => "its signature is wrong",
            Rejected::Replayed => "it was sent before",
            Rejected::Json => "a frame of it is not valid JSON",
        })
    }
}

/// What an answer needs of the request it answers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Parent {
    /// Where a reply goes.
    pub identities: Arc<[Bytes]>,
    /// The request's header, returned as `parent_header`.
    pub header: Arc<Map<String, Value>>,
}

impl Parent {
    /// The request's `msg_id`.
    pub fn msg_id(&self) -> &str {
        self.header.get("msg_id").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A verified message from a frontend.
#[derive(Clone, Debug)]
pub struct Request {
    /// What replies refer to.
    pub parent: Parent,
    /// The type, as in the header.
    pub msg_type: String,
    /// The header of the message that this one answers (`input_reply`), `{}` for requests.
    pub parent_header: Value,
    /// The content, an object.
    pub content: Value,
    /// Additional data of the frontend, an object.
    pub metadata: Value,
}

impl Request {
    /// A string of the content, empty when absent.
    pub fn text(&self, field: &str) -> &str {
        self.content.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A boolean of the content.
    pub fn flag(&self, field: &str, default: bool) -> bool {
        self.content.get(field).and_then(Value::as_bool).unwrap_or(default)
    }

    /// An integer of the content.
    pub fn integer(&self, field: &str) -> Option<i64> {
        self.content.get(field).and_then(Value::as_i64)
    }
}

#[derive(Default)]
struct Seen {
    known: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

/// Signs what the kernel sends, verifies what it receives. Holds the key of the connection and never shows it.
pub struct Signer {
    key: Option<Hmac<Sha256>>,
    session: String,
    seen: Mutex<Seen>,
}

impl Signer {
    /// A signer with this key. An empty key turns signatures off, as the specification says.
    pub fn new(key: &str) -> Signer {
        let key =
            (!key.is_empty()).then(|| Hmac::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length"));
        Signer { key, session: uuid::Uuid::new_v4().to_string(), seen: Mutex::default() }
    }

    /// The kernel's own session id.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// A header for a new message, with an id of its own.
    pub fn header(&self, msg_type: &str) -> Value {
        json!({
            "msg_id": uuid::Uuid::new_v4().to_string(),
            "session": self.session,
            "username": "kernel",
            "date": date(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            "msg_type": msg_type,
            "version": PROTOCOL_VERSION,
        })
    }

    /// The frames of a message: `identities` are routing frames, or the topic on iopub.
    pub fn frames(
        &self,
        identities: &[Bytes],
        header: &Value,
        parent: &Parent,
        metadata: &Value,
        content: &Value,
    ) -> Frames {
        let json = |value: &Value| Bytes::from(value.to_string());
        let parts = [
            json(header),
            Bytes::from(serde_json::to_vec(&*parent.header).unwrap_or_default()),
            json(metadata),
            json(content),
        ];
        let signature = self.key.as_ref().map(|key| {
            let mut mac = key.clone();
            parts.iter().for_each(|part| mac.update(part));
            hex(&mac.finalize().into_bytes())
        });
        let mut frames = identities.to_vec();
        frames.push(Bytes::from_static(DELIMITER));
        frames.push(Bytes::from(signature.unwrap_or_default()));
        frames.extend(parts);
        Frames::from(frames)
    }

    /// Verifies and reads a message. `identity` is the peer it came from.
    pub fn read(&self, identity: Bytes, frames: Vec<Bytes>) -> Result<Request, Rejected> {
        let delimiter = frames.iter().position(|frame| &frame[..] == DELIMITER).ok_or(Rejected::Framing)?;
        let [signature, header, parent_header, metadata, content, ..] = &frames[delimiter + 1..] else {
            return Err(Rejected::Framing);
        };
        if let Some(key) = &self.key {
            let signature = unhex(signature).ok_or(Rejected::Signature)?;
            let mut mac = key.clone();
            [header, parent_header, metadata, content].into_iter().for_each(|part| mac.update(part));
            // Compares in constant time.
            mac.verify_slice(&signature).map_err(|_| Rejected::Signature)?;
            self.remember(signature)?;
        }
        let object = |frame: &Bytes| match serde_json::from_slice::<Value>(frame) {
            Ok(Value::Object(map)) => Ok(map),
            _ => Err(Rejected::Json),
        };
        let header = object(header)?;
        let msg_type = header.get("msg_type").and_then(Value::as_str).ok_or(Rejected::Json)?.to_string();
        let mut identities = vec![identity];
        identities.extend_from_slice(&frames[..delimiter]);
        Ok(Request {
            parent: Parent { identities: identities.into(), header: Arc::new(header) },
            msg_type,
            parent_header: Value::Object(object(parent_header).unwrap_or_default()),
            content: Value::Object(object(content)?),
            metadata: Value::Object(object(metadata).unwrap_or_default()),
        })
    }

    fn remember(&self, signature: [u8; 32]) -> Result<(), Rejected> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.known.insert(signature) {
            return Err(Rejected::Replayed);
        }
        seen.order.push_back(signature);
        if seen.order.len() > REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.known.remove(&oldest);
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A time since 1970 as ISO 8601 writes it, in UTC. The days are counted as in Howard Hinnant's `civil_from_days`: in years that begin in
/// March, so that a leap day is the last one.
fn date(since: Duration) -> String {
    let seconds = since.as_secs();
    let days = seconds / 86_400 + 719_468; // since the 1st of March of the year 0
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + 400 * era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_iso_8601_has_it() {
        for (seconds, told) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000007Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            assert_eq!(date(Duration::new(seconds, 7_000)), told);
        }
    }

    fn message(signer: &Signer) -> Vec<Bytes> {
        let header = signer.header("kernel_info_request");
        signer.frames(&[], &header, &Parent::default(), &json!({}), &json!({})).to_vec()
    }

    #[test]
    fn a_signed_message_is_read_once() {
        let signer = Signer::new("secret");
        let frames = message(&signer);
        let request = signer.read(Bytes::from_static(b"me"), frames.clone()).unwrap();
        assert_eq!(request.msg_type, "kernel_info_request");
        assert_eq!(request.parent.identities[..], [Bytes::from_static(b"me")]);
        assert_eq!(signer.read(Bytes::new(), frames).unwrap_err(), Rejected::Replayed);
    }

    #[test]
    fn a_changed_frame_or_another_key_is_rejected() {
        let signer = Signer::new("secret");
        let mut frames = message(&signer);
        let last = frames.len() - 1;
        frames[last] = Bytes::from_static(b"{\"code\":\"evil\"}");
        assert_eq!(signer.read(Bytes::new(), frames).unwrap_err(), Rejected::Signature);
        let foreign = message(&Signer::new("other"));
        assert_eq!(signer.read(Bytes::new(), foreign).unwrap_err(), Rejected::Signature);
    }

    #[test]
    fn an_empty_key_turns_signatures_off() {
        let signer = Signer::new("");
        let frames = message(&signer);
        assert!(frames[1].is_empty());
        assert!(signer.read(Bytes::new(), frames).is_ok());
    }

    #[test]
    fn the_signature_is_hmac_sha256_of_the_four_frames() {
        // RFC 4231, test case 2: key "Jefe", data "what do ya want for nothing?"
        let mut mac = Signer::new("Jefe").key.unwrap();
        mac.update(b"what do ya want for nothing?");
        assert_eq!(
            hex(&mac.finalize().into_bytes()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
