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
    /// Who waits for an answer, by the `msg_id` of the question.
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
        // The frontend's stdin socket has the identity of its shell socket, so the question finds its way as a reply would.
        let content = json!({ "prompt": prompt, "password": password });
        // Locked until the answer can find its question.
        let mut waiting = self.waiting();
        let id = self.channel.reply(parent, "input_request", &content);
        waiting.insert(id, reply);
    }

    /// Gives up all questions: to the cells that wait this is an end of file.
    pub fn give_up(&self) {
        self.waiting().clear();
    }

    /// Some frontends do not say which question they answer; there is rarely more than one.
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
