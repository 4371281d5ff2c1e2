//! Requests on the shell channel. Cells go to the queue; everything else is answered at once, also while a cell runs.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::activity::Activity;
use super::channel::Channel;
use super::comms::Comms;
use super::connection::ConnectionInfo;
use super::control::{Control, failure};
use super::history::History;
use super::info::kernel_info;
use super::iopub::Iopub;
use super::wire::Request;
use super::zmtp::Event;
use crate::engine::EngineHandle;
use crate::engine::grammar::{Completeness, is_complete};

/// Answers what comes on the shell channel.
#[derive(Clone)]
pub struct Shell {
    pub channel: Channel,
    pub activity: Activity,
    pub iopub: Iopub,
    pub engine: EngineHandle,
    pub comms: Comms,
    pub history: Arc<Mutex<History>>,
    pub cells: mpsc::UnboundedSender<Request>,
    /// For the requests that older frontends send here instead of on control.
    pub control: Control,
    pub connection: Arc<ConnectionInfo>,
}

impl Shell {
    /// Serves the channel until the kernel ends.
    pub async fn run(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let Some(request) = self.channel.read(event) else { continue };
            match request.msg_type.as_str() {
                "execute_request" => {
                    let _ = self.cells.send(request);
                }
                // These may take long and must not delay the requests after them.
                "complete_request" | "inspect_request" => {
                    let shell = self.clone();
                    tokio::spawn(async move { shell.ask_engine(request).await });
                }
                _ => self.answer(&request),
            }
        }
    }

    fn answer(&self, request: &Request) {
        let _busy = self.activity.aside(&request.parent);
        let (reply_type, content) = match request.msg_type.as_str() {
            "kernel_info_request" => ("kernel_info_reply", kernel_info()),
            "is_complete_request" => ("is_complete_reply", completeness(request.text("code"))),
            "history_request" => {
                let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
                ("history_reply", history.reply(request))
            }
            "comm_info_request" => {
                let target = request.content.get("target_name").and_then(Value::as_str).filter(|name| !name.is_empty());
                ("comm_info_reply", self.comms.info(target))
            }
            // Handled in order; this rarely takes more than a write to a pipe.
            "comm_open" | "comm_msg" | "comm_close" => {
                let tell = || self.comms.frontend_sent(request, &self.engine, &self.iopub);
                return tokio::task::block_in_place(tell);
            }
            "connect_request" => ("connect_reply", self.ports()),
            _ => return self.control.handle(&self.channel, request),
        };
        self.channel.reply(&request.parent, reply_type, &content);
    }

    fn ports(&self) -> Value {
        let info = &self.connection;
        json!({
            "status": "ok",
            "shell_port": info.shell_port,
            "iopub_port": info.iopub_port,
            "stdin_port": info.stdin_port,
            "hb_port": info.hb_port,
            "control_port": info.control_port,
        })
    }

    async fn ask_engine(&self, request: Request) {
        let _busy = self.activity.aside(&request.parent);
        let code = request.text("code").to_string();
        let length = code.chars().count();
        // Without a position, or with one counted from the end, use the end.
        let cursor = match request.integer("cursor_pos") {
            Some(at) if at >= 0 => length.min(at as usize),
            Some(at) => length.saturating_sub(at.unsigned_abs() as usize),
            None => length,
        };
        let engine = self.engine.clone();
        let is_completion = request.msg_type == "complete_request";
        let detail = u8::try_from(request.integer("detail_level").unwrap_or(0)).unwrap_or(1);
        let answer = tokio::task::spawn_blocking(move || {
            if is_completion { complete(&engine, &code, cursor) } else { inspect(&engine, &code, cursor, detail) }
        });
        let reply_type = request.msg_type.replace("_request", "_reply");
        let content = answer.await.unwrap_or_else(|error| failure("KernelError", &error.to_string()));
        self.channel.reply(&request.parent, &reply_type, &content);
    }
}

/// The content of `is_complete_reply`.
fn completeness(code: &str) -> Value {
    match is_complete(code) {
        Completeness::Complete => json!({ "status": "complete" }),
        Completeness::Incomplete { indent } => json!({ "status": "incomplete", "indent": indent }),
        Completeness::Invalid => json!({ "status": "invalid" }),
    }
}

fn complete(engine: &EngineHandle, code: &str, cursor: usize) -> Value {
    let found = engine.complete(code, cursor);
    let texts: Vec<&str> = found.matches.iter().map(|completion| completion.text.as_str()).collect();
    let typed: Vec<Value> = found
        .matches
        .iter()
        .map(|completion| {
            json!({
                "start": found.start,
                "end": found.end,
                "text": completion.text,
                "type": completion.kind,
                "signature": completion.signature,
            })
        })
        .collect();
    let (start, end) = if texts.is_empty() { (cursor, cursor) } else { (found.start, found.end) };
    json!({
        "status": "ok",
        "matches": texts,
        "cursor_start": start,
        "cursor_end": end,
        // JupyterLab reads kinds and signatures here.
        "metadata": { "_jupyter_types_experimental": typed },
    })
}

fn inspect(engine: &EngineHandle, code: &str, cursor: usize, detail: u8) -> Value {
    let data = match engine.inspect(code, cursor, detail) {
        Some(mut found) if found.get("data").is_some_and(Value::is_object) => found["data"].take(),
        Some(found) => found,
        None => Value::Null,
    };
    let found = data.as_object().is_some_and(|data| !data.is_empty());
    json!({ "status": "ok", "found": found, "data": if found { data } else { json!({}) }, "metadata": {} })
}
