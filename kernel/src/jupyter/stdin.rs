//! Questions from a cell to the frontend that ran it.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::channel::Channel;
use super::wire::Parent;
use super::zmtp::Event;

/// The stdin channel. Clones share it.
#[derive(Clone)]
pub struct Stdin {
    channel: Channel,
    /// The waiting receivers, by the `msg_id` of their question.
    waiting: Arc<Mutex<HashMap<String, Sender<String>>>>,
}

impl Stdin {
    /// Serves `channel` in the background.
    pub fn start(channel: Channel, mut events: mpsc::Receiver<Event>) -> Stdin {
        let stdin = Stdin { channel, waiting: Arc::default() };
        let serving = stdin.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Some(answer) = serving.channel.read(event)
                    && answer.msg_type == "input_reply"
                {
                    let question = answer.parent_header.get("msg_id").and_then(Value::as_str).unwrap_or_default();
                    serving.answered(question, answer.text("value"));
                }
            }
        });
        stdin
    }

    /// Asks the frontend of `parent`; the answer goes to `reply`.
    pub fn ask(&self, parent: &Parent, prompt: &str, password: bool, reply: Sender<String>) {
        // The frontend's stdin socket has the same identity as its shell socket, so the question is routed like a reply.
        let content = json!({ "prompt": prompt, "password": password });
        // Locked until the answer can find its question.
        let mut waiting = self.waiting();
        let id = self.channel.reply(parent, "input_request", &content);
        waiting.insert(id, reply);
    }

    /// Gives up all questions: cells that wait read end of file.
    pub fn give_up(&self) {
        self.waiting().clear();
    }

    /// Some frontends do not say which question they answer; usually there is only one.
    fn answered(&self, question: &str, value: &str) {
        let mut waiting = self.waiting();
        let key =
            if waiting.contains_key(question) { Some(question.to_string()) } else { waiting.keys().next().cloned() };
        if let Some(reply) = key.and_then(|key| waiting.remove(&key)) {
            let _ = reply.send(value.to_string());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Sender<String>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
