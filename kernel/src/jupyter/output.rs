//! Carries a cell's outputs from the evaluator to iopub.
//!
//! The evaluator hands outputs to a [`Sink`] from a thread of its own. They are forwarded in order by one task per cell,
//! which joins text that comes within a few milliseconds into one message, and lives on for the threads that a
//! cell leaves running: what they write later still belongs to that cell.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::comms::Comms;
use super::iopub::{Iopub, Share};
use super::stdin::Stdin;
use super::wire::Parent;
use crate::engine::{Output, Sink};

/// Text of one stream is collected for this long before it is sent.
const GATHER: Duration = Duration::from_millis(10);
/// Text is sent when this much is collected.
const GATHER_BYTES: usize = 256 * 1024;

enum Item {
    Output(Output, Option<Share>),
    /// Answered when everything before it has reached iopub.
    Flush(oneshot::Sender<()>),
}

/// The forwarder of one cell.
pub struct CellOutput {
    items: mpsc::UnboundedSender<Item>,
}

/// Where the outputs of a cell go.
#[derive(Clone)]
pub struct Outlets {
    pub iopub: Iopub,
    pub stdin: Stdin,
    pub comms: Comms,
}

impl CellOutput {
    /// Starts forwarding for the cell of `parent`. A `silent` cell shows nothing, but its comms and questions get through.
    pub fn start(outlets: Outlets, parent: Parent, allow_stdin: bool, silent: bool) -> CellOutput {
        let (items, receiver) = mpsc::unbounded_channel();
        tokio::spawn(Forwarder { outlets, parent, allow_stdin, silent }.run(receiver));
        CellOutput { items }
    }

    /// The sink for the evaluator. It blocks its caller while too much output waits.
    pub fn sink(&self, iopub: &Iopub) -> Sink {
        let (items, iopub, runtime) = (self.items.clone(), iopub.clone(), Handle::current());
        Arc::new(move |output| {
            let share = runtime.block_on(iopub.share(size(&output)));
            let _ = items.send(Item::Output(output, share));
        })
    }

    /// Waits until everything that the sink has taken so far has reached iopub.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.items.send(Item::Flush(done)).is_ok() {
            let _ = waiting.await;
        }
    }
}

/// The approximate size of an output, in bytes.
fn size(output: &Output) -> usize {
    match output {
        Output::Stdout(text) | Output::Stderr(text) => text.len(),
        Output::Display(value)
        | Output::UpdateDisplay(value)
        | Output::CommOpen { content: value, .. }
        | Output::CommMsg(value)
        | Output::CommClose(value) => size_of(value),
        Output::ClearOutput { .. } | Output::InputRequest { .. } | Output::CommTarget(_) => 1,
    }
}

/// The approximate size of a message's content, in bytes.
pub fn size_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size_of).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size_of(value)).sum(),
        _ => 8,
    }
}

/// Text that is being collected.
struct Gathered {
    name: &'static str,
    text: String,
    shares: Vec<Share>,
    deadline: Instant,
}

struct Forwarder {
    outlets: Outlets,
    parent: Parent,
    allow_stdin: bool,
    silent: bool,
}

impl Forwarder {
    async fn run(self, mut items: mpsc::UnboundedReceiver<Item>) {
        let mut gathered: Option<Gathered> = None;
        loop {
            let next = match &gathered {
                None => items.recv().await,
                Some(text) => match tokio::time::timeout_at(text.deadline, items.recv()).await {
                    Ok(item) => item,
                    Err(_) => {
                        self.release(&mut gathered);
                        continue;
                    }
                },
            };
            match next {
                Some(Item::Output(Output::Stdout(text), share)) => self.gather(&mut gathered, "stdout", text, share),
                Some(Item::Output(Output::Stderr(text), share)) => self.gather(&mut gathered, "stderr", text, share),
                Some(Item::Output(output, share)) => {
                    self.release(&mut gathered);
                    self.forward(output, share);
                }
                Some(Item::Flush(done)) => {
                    self.release(&mut gathered);
                    let _ = done.send(());
                }
                None => return self.release(&mut gathered),
            }
        }
    }

    fn gather(&self, gathered: &mut Option<Gathered>, name: &'static str, text: String, share: Option<Share>) {
        if gathered.as_ref().is_some_and(|held| held.name != name) {
            self.release(gathered);
        }
        let held = gathered.get_or_insert_with(|| Gathered {
            name,
            text: String::new(),
            shares: Vec::new(),
            deadline: Instant::now() + GATHER,
        });
        held.text.push_str(&text);
        held.shares.extend(share);
        if held.text.len() >= GATHER_BYTES {
            self.release(gathered);
        }
    }

    fn release(&self, gathered: &mut Option<Gathered>) {
        if let Some(Gathered { name, text, shares, .. }) = gathered.take()
            && !self.silent
            && !text.is_empty()
        {
            let share = Share::joined(shares);
            self.outlets.iopub.send_output(
                &self.parent,
                "stream",
                json!({}),
                json!({ "name": name, "text": text }),
                share,
            );
        }
    }

    fn forward(&self, output: Output, share: Option<Share>) {
        let mut metadata = json!({});
        let (msg_type, content) = match output {
            Output::Display(content) => ("display_data", complete(content)),
            Output::UpdateDisplay(content) => ("update_display_data", complete(content)),
            Output::ClearOutput { wait } => ("clear_output", json!({ "wait": wait })),
            Output::CommTarget(name) => return self.outlets.comms.add_target(name),
            Output::CommOpen { content, metadata: given } => {
                if given.is_object() {
                    metadata = given;
                }
                ("comm_open", content)
            }
            Output::CommMsg(content) => ("comm_msg", content),
            Output::CommClose(content) => ("comm_close", content),
            Output::InputRequest { prompt, password, reply } => {
                if self.allow_stdin {
                    self.outlets.stdin.ask(&self.parent, &prompt, password, reply);
                }
                // Otherwise `reply` is dropped here, and the cell reads end of file.
                return;
            }
            Output::Stdout(_) | Output::Stderr(_) => unreachable!("streams are gathered"),
        };
        let is_comm = msg_type.starts_with("comm_");
        if is_comm {
            self.outlets.comms.cell_sent(msg_type, &content);
        }
        if is_comm || !self.silent {
            self.outlets.iopub.send_output(&self.parent, msg_type, metadata, content, share);
        }
    }
}

/// The content of a display, with every field that the protocol requires.
pub fn complete(mut content: Value) -> Value {
    if let Some(map) = content.as_object_mut() {
        for field in ["data", "metadata", "transient"] {
            if !map.get(field).is_some_and(Value::is_object) {
                map.insert(field.to_string(), json!({}));
            }
        }
    }
    content
}
