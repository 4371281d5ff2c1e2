//! What every frontend sees: status, outputs, errors. One task owns the socket and keeps the order.
//!
//! Small messages are queued without waiting, so that no request waits for a slow frontend. Outputs of cells first take their size from a
//! budget, which gets it back when they are published. So a cell that prints faster than frontends read is slowed down and does not fill
//! the memory.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::outbox::Frames;
use super::wire::{Parent, Signer};
use super::zmtp::{Event, Socket};

/// KiB of outputs that may wait for publication.
const BUDGET: u32 = 64 * 1024;

enum Item {
    Message(Frames, Option<OwnedSemaphorePermit>),
    /// Answered when everything queued before it has been published.
    Barrier(oneshot::Sender<()>),
}

/// The publishing side of iopub. Clones share it.
#[derive(Clone)]
pub struct Iopub {
    items: mpsc::UnboundedSender<Item>,
    budget: Arc<Semaphore>,
    signer: Arc<Signer>,
}

/// Part of the budget, which an output holds until it is published.
pub struct Share(OwnedSemaphorePermit);

impl Iopub {
    /// Publishes on `socket` and greets its subscribers.
    pub fn start(socket: Socket, events: mpsc::Receiver<Event>, signer: Arc<Signer>) -> Iopub {
        let (items, receiver) = mpsc::unbounded_channel();
        tokio::spawn(publish(socket, events, receiver, signer.clone()));
        Iopub { items, budget: Arc::new(Semaphore::new(BUDGET as usize)), signer }
    }

    /// Queues a message.
    pub fn send(&self, parent: &Parent, msg_type: &str, content: Value) {
        self.queue(parent, msg_type, &json!({}), &content, None);
    }

    /// Queues an output that holds a share of the budget.
    pub fn send_output(&self, parent: &Parent, msg_type: &str, metadata: Value, content: Value, share: Option<Share>) {
        self.queue(parent, msg_type, &metadata, &content, share.map(|share| share.0));
    }

    /// `starting`, `busy` or `idle`.
    pub fn status(&self, parent: &Parent, state: &str) {
        self.send(parent, "status", json!({ "execution_state": state }));
    }

    /// Waits until outputs of `bytes` may be queued.
    pub async fn share(&self, bytes: usize) -> Option<Share> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(BUDGET).clamp(1, BUDGET);
        self.budget.clone().acquire_many_owned(kib).await.ok().map(Share)
    }

    /// Waits until everything queued so far is published.
    pub async fn settled(&self) {
        let (done, waiting) = oneshot::channel();
        if self.items.send(Item::Barrier(done)).is_ok() {
            let _ = waiting.await;
        }
    }

    fn queue(
        &self,
        parent: &Parent,
        msg_type: &str,
        metadata: &Value,
        content: &Value,
        share: Option<OwnedSemaphorePermit>,
    ) {
        let frames = message(&self.signer, parent, msg_type, metadata, content);
        // This fails only while the kernel is ending.
        let _ = self.items.send(Item::Message(frames, share));
    }
}

/// A message for iopub. The first frame is its topic.
fn message(signer: &Signer, parent: &Parent, msg_type: &str, metadata: &Value, content: &Value) -> Frames {
    let topic = Bytes::from(format!("kernel.{}.{msg_type}", signer.session()));
    signer.frames(&[topic], &signer.header(msg_type), parent, metadata, content)
}

async fn publish(
    socket: Socket,
    mut events: mpsc::Receiver<Event>,
    mut items: mpsc::UnboundedReceiver<Item>,
    signer: Arc<Signer>,
) {
    let nobody = Parent::default();
    // If the first frontend comes before the kernel has done anything, it still learns that the kernel is starting.
    let mut starting = true;
    loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => match event {
                Event::Subscribed { identity, topic } => {
                    let subscription = String::from_utf8_lossy(&topic).into_owned();
                    socket.subscribe(&identity, topic);
                    let welcome = json!({ "subscription": subscription });
                    socket.send(&identity, message(&signer, &nobody, "iopub_welcome", &json!({}), &welcome));
                    if starting {
                        let status = json!({ "execution_state": "starting" });
                        socket.send(&identity, message(&signer, &nobody, "status", &json!({}), &status));
                    }
                }
                Event::Unsubscribed { identity, topic } => socket.unsubscribe(&identity, &topic),
                Event::Message { .. } => {}
            },
            item = items.recv() => match item {
                Some(Item::Message(frames, _share)) => {
                    starting = false;
                    socket.publish(frames).await;
                }
                Some(Item::Barrier(done)) => {
                    let _ = done.send(());
                }
                None => return,
            },
        }
    }
}

impl Share {
    /// Several shares as one.
    pub fn joined(shares: Vec<Share>) -> Option<Share> {
        shares.into_iter().reduce(|mut joined, share| {
            joined.0.merge(share.0);
            joined
        })
    }
}
