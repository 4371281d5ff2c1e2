//! Comms: which are open, and what the kernel answers to those that a frontend opens.
//!
//! A comm opened by a cell is listed in `comm_info` until either side closes it. Cells register no targets, so a comm
//! that a frontend opens is closed at once, as the protocol asks for an unknown target.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use super::iopub::Iopub;
use super::wire::Request;

/// The open comms: id to target name. Clones share them.
#[derive(Clone, Default)]
pub struct Comms(Arc<Mutex<BTreeMap<String, String>>>);

impl Comms {
    /// Notes what a cell does with a comm.
    pub fn cell_sent(&self, msg_type: &str, content: &Value) {
        let field = |name: &str| content.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        match msg_type {
            "comm_open" => {
                self.open().insert(field("comm_id"), field("target_name"));
            }
            "comm_close" => {
                self.open().remove(&field("comm_id"));
            }
            _ => {}
        }
    }

    /// Handles `comm_open`, `comm_msg` and `comm_close` of a frontend.
    pub fn frontend_sent(&self, request: &Request, iopub: &Iopub) {
        let id = request.text("comm_id");
        match request.msg_type.as_str() {
            "comm_open" => {
                super::log!("no cell has registered the comm target {:?}", request.text("target_name"));
                iopub.send(&request.parent, "comm_close", json!({ "comm_id": id, "data": {} }));
            }
            "comm_close" => {
                self.open().remove(id);
            }
            _ => {}
        }
    }

    /// The content of `comm_info_reply`; `target` limits it to one target name.
    pub fn info(&self, target: Option<&str>) -> Value {
        let comms: Map<String, Value> = self
            .open()
            .iter()
            .filter(|(_, name)| target.is_none_or(|target| target == name.as_str()))
            .map(|(id, name)| (id.clone(), json!({ "target_name": name })))
            .collect();
        json!({ "status": "ok", "comms": comms })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
