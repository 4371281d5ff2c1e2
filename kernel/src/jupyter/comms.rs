//! Comms: which are open, to which targets the frontend may open more, and what is said on them.
//!
//! Handlers live in the user's process. A comm is listed in `comm_info` until either side closes it; one that a frontend opens to a
//! target that no cell has registered is closed at once, as the protocol asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use wavemesh_cell::protocol::CommEvent;

use super::iopub::Iopub;
use super::wire::Request;
use crate::engine::EngineHandle;

/// JupyterLab's widgets ask every kernel for this target, and do without where a kernel has none.
const WIDGETS: &str = "jupyter.widget.control";

/// The open comms and the targets. Clones share them.
#[derive(Clone, Default)]
pub struct Comms(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Id to target name.
    open: BTreeMap<String, String>,
    targets: BTreeSet<String>,
}

impl Comms {
    /// Notes that a cell has registered a target.
    pub fn add_target(&self, name: String) {
        self.state().targets.insert(name);
    }

    /// Notes what a cell does with a comm.
    pub fn cell_sent(&self, msg_type: &str, content: &Value) {
        let field = |name: &str| content.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
        match msg_type {
            "comm_open" => {
                self.state().open.insert(field("comm_id"), field("target_name"));
            }
            "comm_close" => {
                self.state().open.remove(&field("comm_id"));
            }
            _ => {}
        }
    }

    /// Handles a frontend's `comm_open`, `comm_msg` and `comm_close`. May wait a moment for the user's process.
    pub fn frontend_sent(&self, request: &Request, engine: &EngineHandle, iopub: &Iopub) {
        let (kind, id) = (request.msg_type.as_str(), request.text("comm_id"));
        let target = {
            let mut state = self.state();
            let asked = request.text("target_name").to_owned();
            match kind {
                "comm_open" if state.targets.contains(&asked) => {
                    state.open.insert(id.to_owned(), asked.clone());
                    Some(asked)
                }
                "comm_open" => {
                    if asked != WIDGETS {
                        super::log!("no cell has registered the comm target {asked:?}");
                    }
                    None
                }
                "comm_close" => match state.open.remove(id) {
                    Some(target) => Some(target),
                    None => return,
                },
                _ => state.open.get(id).cloned(),
            }
        };
        let data = request.content.get("data").map_or_else(|| "{}".to_owned(), Value::to_string);
        let told = target.is_some_and(|target| {
            let id = id.to_owned();
            engine.comm(&match kind {
                "comm_open" => CommEvent::Open { id, target, data },
                "comm_close" => CommEvent::Close { id, data },
                _ => CommEvent::Message { id, data },
            })
        });
        if !told && kind != "comm_close" {
            self.state().open.remove(id);
            iopub.send(&request.parent, "comm_close", json!({ "comm_id": id, "data": {} }));
        }
    }

    /// The content of `comm_info_reply`; `target` limits it to one target name.
    pub fn info(&self, target: Option<&str>) -> Value {
        let comms: Map<String, Value> = self
            .state()
            .open
            .iter()
            .filter(|(_, name)| target.is_none_or(|target| target == name.as_str()))
            .map(|(id, name)| (id.clone(), json!({ "target_name": name })))
            .collect();
        json!({ "status": "ok", "comms": comms })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
