//! The thread that owns evcxr.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use evcxr::CommandContext;
use serde_json::json;

use super::{Completion, Completions, ExecuteError, ExecuteResult, Output, Request, Sink};

/// What other threads may touch while a cell runs.
#[derive(Default)]
pub struct Shared {
    child: Mutex<Option<Arc<Mutex<std::process::Child>>>>,
    running: Mutex<Option<Sink>>,
}

impl Shared {
    pub fn complete(&self, _code: &str, cursor: usize) -> Completions {
        Completions { matches: Vec::<Completion>::new(), start: cursor, end: cursor }
    }

    pub fn inspect(&self, _code: &str, _cursor: usize, _detail: u8) -> Option<serde_json::Value> {
        None
    }

    pub fn interrupt(&self) {
        if self.running.lock().is_ok_and(|running| running.is_some()) {
            self.shutdown();
        }
    }

    pub fn shutdown(&self) {
        if let Ok(child) = self.child.lock()
            && let Some(child) = &*child
            && let Ok(mut child) = child.lock()
        {
            let _ = child.kill();
        }
    }
}

pub fn spawn(requests: Receiver<Request>, shared: Arc<Shared>) {
    std::thread::spawn(move || {
        let (mut context, outputs) = match CommandContext::new() {
            Ok(started) => started,
            Err(error) => {
                eprintln!("evcxr did not start: {error}");
                return;
            }
        };
        if let Ok(mut child) = shared.child.lock() {
            *child = Some(context.process_handle());
        }
        for (lines, wrap) in
            [(outputs.stdout, Output::Stdout as fn(String) -> Output), (outputs.stderr, Output::Stderr)]
        {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for line in lines {
                    if let Ok(sink) = shared.running.lock()
                        && let Some(sink) = &*sink
                    {
                        sink(wrap(format!("{line}\n")));
                    }
                }
            });
        }
        for request in requests {
            match request {
                Request::Execute { code, options: _, sink, reply } => {
                    if let Ok(mut running) = shared.running.lock() {
                        *running = Some(sink);
                    }
                    let result = context.execute(&code);
                    if let Ok(mut running) = shared.running.lock() {
                        *running = None;
                    }
                    let _ = reply.send(match result {
                        Ok(outputs) if outputs.is_empty() => Ok(ExecuteResult::default()),
                        Ok(outputs) => Ok(ExecuteResult {
                            data: Some(json!({"data": outputs.content_by_mime_type, "metadata": {}})),
                            ..Default::default()
                        }),
                        Err(error) => Err(ExecuteError {
                            ename: "Error".into(),
                            evalue: error.to_string(),
                            traceback: error.to_string().lines().map(str::to_owned).collect(),
                            interrupted: false,
                        }),
                    });
                }
                Request::Restart { reply } => {
                    let _ = context.execute(":clear");
                    let _ = reply.send(());
                }
            }
        }
    });
}
