//! A channel on which frontends ask and the kernel answers: shell, control and stdin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::wire::{Parent, Request, Signer};
use super::zmtp::{Event, Socket};

/// Messages dropped so far, over all channels.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// One ROUTER socket and the key. Clones share them.
#[derive(Clone)]
pub struct Channel {
    name: &'static str,
    socket: Socket,
    signer: Arc<Signer>,
}

impl Channel {
    /// A channel with this name, which is used in the log.
    pub fn new(name: &'static str, socket: Socket, signer: Arc<Signer>) -> Channel {
        Channel { name, socket, signer }
    }

    /// The message in `event`, if its signature is valid. Anything else is logged and has no effect.
    pub fn read(&self, event: Event) -> Option<Request> {
        let Event::Message { identity, frames } = event else { return None };
        match self.signer.read(identity, frames) {
            Ok(request) => Some(request),
            Err(reason) => {
                // A flood of bad messages must not fill the log: log each of the first ten, then every power of ten.
                let count = DROPPED.fetch_add(1, Ordering::Relaxed) + 1;
                if count <= 10 || 10u64.pow(count.ilog10()) == count {
                    super::log!("dropped a message on the {} channel: {reason} ({count} dropped so far)", self.name);
                }
                None
            }
        }
    }

    /// Sends a message to whoever sent `parent`; returns its `msg_id`.
    pub fn reply(&self, parent: &Parent, msg_type: &str, content: &Value) -> String {
        let header = self.signer.header(msg_type);
        if let Some((peer, route)) = parent.identities.split_first() {
            self.socket.send(peer, self.signer.frames(route, &header, parent, &metadata(content), content));
        }
        header.get("msg_id").and_then(Value::as_str).unwrap_or_default().to_string()
    }
}

/// Frontends may look for a reply's status in its metadata.
fn metadata(content: &Value) -> Value {
    content.get("status").map_or_else(|| json!({}), |status| json!({ "status": status }))
}
