//! Comms: messages between cells and the page, as ipywidgets and other extensions of a frontend use them.
//!
//! ```no_run
//! use wavemesh_cell::comm::{Event, on_target};
//! on_target("echo", |comm, event| match event {
//!     Event::Open(data) | Event::Message(data) => comm.send(data),
//!     Event::Close(_) => {}
//! });
//! ```
//!
//! `data` is always the text of a JSON value. Handlers run one after the other on a thread of their own, while a cell runs too.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::protocol::{CommEvent, Decoder};

/// What the page does with a comm.
#[derive(Debug)]
pub enum Event<'a> {
    /// The page opens a comm to a target of ours.
    Open(&'a str),
    Message(&'a str),
    Close(&'a str),
}

/// One end of an open comm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comm {
    id: String,
}

type Handler = Arc<Mutex<dyn FnMut(&Comm, Event) + Send>>;

static TARGETS: Mutex<Option<HashMap<String, Handler>>> = Mutex::new(None);
static OPEN: Mutex<Option<HashMap<String, Handler>>> = Mutex::new(None);
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Lets the page open comms to `target` from now on; `handler` receives all their events.
pub fn on_target(target: &str, handler: impl FnMut(&Comm, Event) + Send + 'static) {
    keep(&TARGETS, target, Arc::new(Mutex::new(handler)));
    frame("comm_target", &format!(r#"{{"target_name":"{}"}}"#, crate::escape(target)));
}

/// Opens a comm to `target` on the page, with the JSON text `data`.
pub fn open(target: &str, data: &str, handler: impl FnMut(&Comm, Event) + Send + 'static) -> Comm {
    open_with(target, data, "{}", handler)
}

/// Like [`open`], with the JSON text `metadata` for the message; widgets put the version of their protocol there.
pub fn open_with(target: &str, data: &str, metadata: &str, handler: impl FnMut(&Comm, Event) + Send + 'static) -> Comm {
    let number = OPENED.fetch_add(1, Ordering::Relaxed);
    let comm = Comm { id: format!("cell-{}-{number}", std::process::id()) };
    keep(&OPEN, &comm.id, Arc::new(Mutex::new(handler)));
    let target = crate::escape(target);
    let content = format!(r#"{{"comm_id":"{}","target_name":"{target}","data":{data}}}"#, comm.id);
    crate::send_frame(&format!(r#"{{"msg_type":"comm_open","content":{content},"metadata":{metadata}}}"#));
    comm
}

/// Like [`open_with`], for WaveMesh's widgets, which do not know these types: the handler receives messages only. Returns the comm's id.
#[unsafe(no_mangle)]
pub fn wavemesh_cell_comm_open(
    target: &str,
    data: &str,
    metadata: &str,
    mut on_message: Box<dyn FnMut(&str) + Send>,
) -> String {
    let taken = move |_: &Comm, event: Event| {
        if let Event::Message(data) = event {
            on_message(data);
        }
    };
    open_with(target, data, metadata, taken).id
}

/// Sends a message on the comm with this id.
#[unsafe(no_mangle)]
pub fn wavemesh_cell_comm_send(id: &str, data: &str) {
    Comm { id: id.to_owned() }.send(data);
}

impl Comm {
    /// The id by which both sides know it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sends the JSON text `data` to the page.
    pub fn send(&self, data: &str) {
        frame("comm_msg", &format!(r#"{{"comm_id":"{}","data":{data}}}"#, crate::escape(&self.id)));
    }

    /// Closes the comm.
    pub fn close(&self) {
        locked(&OPEN, |open| open.remove(&self.id));
        frame("comm_close", &format!(r#"{{"comm_id":"{}","data":{{}}}}"#, crate::escape(&self.id)));
    }
}

/// Passes events from the page to their handlers until the kernel is gone.
pub(crate) fn serve(mut from: File) {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; 1 << 16];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        // A malformed message was begun for a process that is gone.
        for event in decoder.decode(&bytes[..read]).into_iter().flatten() {
            // A panic in a handler is reported like a panic of any other thread; the handler keeps its comm.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| take(&event)));
        }
    }
}

fn take(event: &CommEvent) {
    let (id, handler) = match event {
        CommEvent::Open { id, target, .. } => (id, locked(&TARGETS, |targets| targets.get(target).cloned())),
        CommEvent::Message { id, .. } | CommEvent::Close { id, .. } => {
            (id, locked(&OPEN, |open| open.get(id).cloned()))
        }
    };
    let comm = Comm { id: id.clone() };
    // The process that knew this comm is gone.
    let Some(handler) = handler else { return comm.close() };
    let event = match event {
        CommEvent::Open { data, .. } => {
            locked(&OPEN, |open| open.insert(id.clone(), Arc::clone(&handler)));
            Event::Open(data)
        }
        CommEvent::Message { data, .. } => Event::Message(data),
        CommEvent::Close { data, .. } => {
            locked(&OPEN, |open| open.remove(id));
            Event::Close(data)
        }
    };
    let mut handler = handler.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    handler(&comm, event);
}

/// This is not generic, so that no code of a cell runs while the handlers are locked.
#[inline(never)]
fn keep(handlers: &Mutex<Option<HashMap<String, Handler>>>, name: &str, handler: Handler) {
    locked(handlers, |handlers| handlers.insert(name.to_owned(), handler));
}

fn frame(kind: &str, content: &str) {
    crate::send_frame(&format!(r#"{{"msg_type":"{kind}","content":{content}}}"#));
}

fn locked<R>(
    handlers: &Mutex<Option<HashMap<String, Handler>>>,
    work: impl FnOnce(&mut HashMap<String, Handler>) -> R,
) -> R {
    let mut handlers: MutexGuard<_> = handlers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    work(handlers.get_or_insert_default())
}
