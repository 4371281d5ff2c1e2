//! Requests on the control channel, which never wait for a cell: interrupt, shutdown and what is not supported.

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::activity::Activity;
use super::channel::Channel;
use super::info::kernel_info;
use super::iopub::Iopub;
use super::stdin::Stdin;
use super::wire::Request;
use super::zmtp::Event;
use crate::engine::EngineHandle;

/// Answers what comes on the control channel.
#[derive(Clone)]
pub struct Control {
    pub activity: Activity,
    pub iopub: Iopub,
    pub engine: EngineHandle,
    pub stdin: Stdin,
    /// Set to end the kernel.
    pub ending: watch::Sender<bool>,
}

/// The content of a reply that refuses a request.
pub fn failure(name: &str, reason: &str) -> Value {
    json!({ "status": "error", "ename": name, "evalue": reason, "traceback": [] })
}

impl Control {
    /// Serves the channel until the kernel ends.
    pub async fn run(self, channel: Channel, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            if let Some(request) = channel.read(event) {
                let _busy = self.activity.aside(&request.parent);
                self.handle(&channel, &request);
            }
        }
    }

    /// Answers a request that came on `channel`.
    pub fn handle(&self, channel: &Channel, request: &Request) {
        let parent = &request.parent;
        match request.msg_type.as_str() {
            "kernel_info_request" => {
                channel.reply(parent, "kernel_info_reply", &kernel_info());
            }
            "interrupt_request" => {
                self.interrupt();
                channel.reply(parent, "interrupt_reply", &json!({ "status": "ok" }));
            }
            "shutdown_request" => {
                let content = json!({ "status": "ok", "restart": request.flag("restart", false) });
                channel.reply(parent, "shutdown_reply", &content);
                // For the other frontends of this kernel.
                self.iopub.send(parent, "shutdown_reply", content);
                self.ending.send_replace(true);
            }
            "debug_request" => {
                // The debug adapter protocol has its own form of refusal.
                let content = json!({
                    "type": "response",
                    "request_seq": request.integer("seq").unwrap_or(0),
                    "seq": 0,
                    "command": request.text("command"),
                    "success": false,
                    "message": "this kernel has no debugger",
                });
                channel.reply(parent, "debug_reply", &content);
            }
            other => match other.strip_suffix("_request") {
                Some(stem) => {
                    let reason = format!("this kernel does not know {other:?}");
                    channel.reply(parent, &format!("{stem}_reply"), &failure("NotSupported", &reason));
                }
                None => super::log!("a message of type {other:?} has no meaning for a kernel"),
            },
        }
    }

    /// Stops the running cell, if any, without waiting for it.
    pub fn interrupt(&self) {
        let (engine, stdin) = (self.engine.clone(), self.stdin.clone());
        tokio::task::spawn_blocking(move || {
            engine.interrupt();
            // A cell that waits for an answer gets none. This comes after the interrupt: otherwise the cell would end first, and the
            // interrupt would hit the next cell.
            stdin.give_up();
        });
    }
}
