//! The connection to the live page: Jupyter's comms, which the kernel provides.

use std::sync::OnceLock;

use serde_json::Value;

/// Opens a comm. It takes the target's name, the data and the metadata as JSON, and a function that receives the data of each message from
/// the page. Returns the comm's id.
pub type OpenComm = fn(&str, &str, &str, Box<dyn FnMut(&str) + Send>) -> String;
/// Sends JSON on the comm with this id.
pub type SendComm = fn(&str, &str);

static LINE: OnceLock<(OpenComm, SendComm)> = OnceLock::new();

/// Connects widgets to the page. A kernel calls this once, before the first cell: `open(target, data, metadata, on_message)` opens a comm
/// and returns its id, and `send(id, data)` sends on it; data and metadata are JSON. Without it, widgets only show their values.
pub fn reach_page(open: OpenComm, send: SendComm) {
    // A second connection would come from the same kernel.
    let _ = LINE.set((open, send));
}

/// Opens a comm to the page's widgets, if there is a page.
pub(super) fn open(state: Value, mut on_message: impl FnMut(Value) + Send + 'static) -> Option<String> {
    let (open, _) = LINE.get()?;
    let data = serde_json::json!({ "state": state, "buffer_paths": [] });
    let metadata = r#"{"version":"2.1.0"}"#;
    let taken = move |data: &str| on_message(serde_json::from_str(data).unwrap_or(Value::Null));
    Some(open("jupyter.widget", &data.to_string(), metadata, Box::new(taken)))
}

/// Sends new values to the widget on the page.
pub(super) fn update(id: &str, state: &Value) {
    if let Some((_, send)) = LINE.get() {
        send(id, &serde_json::json!({ "method": "update", "state": state, "buffer_paths": [] }).to_string());
    }
}
