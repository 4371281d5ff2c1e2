//! The queue of cells. Cells run one after another, in the order in which they came; everything else is answered meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::activity::Activity;
use super::channel::Channel;
use super::history::History;
use super::output::{CellOutput, Outlets};
use super::wire::Request;
use crate::engine::{EngineHandle, ExecuteError, ExecuteOptions, ExecuteResult, grammar};

/// How long to wait before an error is announced. "Run all" sends its cells one by one; in this time those under way arrive, so that they
/// are aborted with the others.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs cells.
pub struct Executor {
    pub engine: EngineHandle,
    pub activity: Activity,
    pub outlets: Outlets,
    pub shell: Channel,
    pub history: Arc<Mutex<History>>,
}

/// The cells that the frontend has removed since it sent the last one.
fn deleted_cells(metadata: &Value) -> Vec<String> {
    let cells = metadata["deletedCells"].as_array().into_iter().flatten();
    cells.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The result of a cell.
struct Outcome {
    result: Result<ExecuteResult, ExecuteError>,
    /// Pages to show, as in IPython.
    payload: Vec<Value>,
}

impl Executor {
    /// Takes cells from `queue` until the kernel ends.
    pub async fn run(self, mut queue: mpsc::UnboundedReceiver<Request>) {
        let mut count = 0;
        while let Some(request) = queue.recv().await {
            self.cell(&request, &mut count, &mut queue).await;
        }
    }

    async fn cell(&self, request: &Request, count: &mut u32, queue: &mut mpsc::UnboundedReceiver<Request>) {
        let parent = &request.parent;
        let iopub = &self.outlets.iopub;
        let code = request.text("code");
        let silent = request.flag("silent", false);
        let stored = !silent && request.flag("store_history", true) && !code.trim().is_empty();

        let busy = self.activity.cell(parent);
        if stored {
            // The extension for Python notebooks sends the number that the page shows for the cell.
            let on_the_page = request.metadata["wavemesh"]["execution_count"].as_u64();
            let on_the_page = on_the_page.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
            *count = on_the_page.max(*count + 1);
            self.history().add(*count, code);
        }
        if !silent {
            iopub.send(parent, "execute_input", json!({ "code": code, "execution_count": *count }));
        }
        let Outcome { result, payload } = self.outcome(request, code, silent, *count).await;
        self.outlets.stdin.give_up();

        let mut aborted = Vec::new();
        let reply = match result {
            Ok(result) => {
                if let Some(shown) = result.data
                    && !silent
                {
                    if stored && let Some(text) = shown.pointer("/data/text~1plain").and_then(Value::as_str) {
                        self.history().set_output(text);
                    }
                    let mut content = super::output::complete(shown);
                    content["execution_count"] = json!(*count);
                    if let Some(content) = content.as_object_mut() {
                        content.remove("transient");
                    }
                    let share = iopub.share(super::output::size_of(&content)).await;
                    iopub.send_output(parent, "execute_result", json!({}), content, share);
                }
                json!({
                    "status": "ok",
                    "execution_count": *count,
                    "user_expressions": result.user_expressions,
                    "payload": payload,
                })
            }
            Err(error) => {
                if request.flag("stop_on_error", true) {
                    tokio::time::sleep(SETTLE).await;
                    aborted.extend(std::iter::from_fn(|| queue.try_recv().ok()));
                }
                let content = json!({ "ename": error.ename, "evalue": error.evalue, "traceback": error.traceback });
                if !silent {
                    iopub.send(parent, "error", content.clone());
                }
                let mut reply = content;
                reply["status"] = json!("error");
                reply["execution_count"] = json!(*count);
                reply["user_expressions"] = json!({});
                reply["payload"] = json!([]);
                reply
            }
        };
        self.shell.reply(parent, "execute_reply", &reply);
        drop(busy);
        for request in aborted {
            let _busy = self.activity.aside(&request.parent);
            // The reply has no count, so the frontend shows that the cell did not run.
            self.shell.reply(&request.parent, "execute_reply", &json!({ "status": "aborted" }));
        }
    }

    async fn outcome(&self, request: &Request, code: &str, silent: bool, execution_count: u32) -> Outcome {
        let user_expressions = expressions(request);
        if (code.trim().is_empty() || grammar::is_nothing(code)) && user_expressions.is_empty() {
            return Outcome { result: Ok(ExecuteResult::default()), payload: Vec::new() };
        }
        if let Some((name, more)) = grammar::question(code) {
            return self.page(name.to_string(), more).await;
        }
        if code.trim().starts_with('?') {
            return Outcome { result: Err(not_a_question()), payload: Vec::new() };
        }
        let allow_stdin = request.flag("allow_stdin", false);
        let output = CellOutput::start(self.outlets.clone(), request.parent.clone(), allow_stdin, silent);
        let sink = output.sink(&self.outlets.iopub);
        let options = ExecuteOptions {
            silent,
            allow_stdin,
            user_expressions,
            execution_count,
            cell: request.metadata["cellId"].as_str().map(str::to_owned),
            deleted: deleted_cells(&request.metadata),
        };
        let (engine, code) = (self.engine.clone(), code.to_string());
        let result = tokio::task::spawn_blocking(move || engine.execute(&code, options, sink)).await;
        output.flush().await;
        let result = result.unwrap_or_else(|panic| {
            Err(ExecuteError {
                ename: "KernelError".into(),
                evalue: format!("the kernel failed at this cell, which is an error of the kernel: {panic}"),
                traceback: vec![format!("the kernel failed at this cell, which is an error of the kernel: {panic}")],
            })
        });
        Outcome { result, payload: Vec::new() }
    }

    /// Shows documentation in the frontend's pager, for a cell that asks `?name` (or `??name` for more).
    async fn page(&self, name: String, detailed: bool) -> Outcome {
        let engine = self.engine.clone();
        let asked = name.clone();
        let found = tokio::task::spawn_blocking(move || {
            let cursor = asked.chars().count();
            let inspect = || engine.inspect(&asked, cursor, u8::from(detailed));
            inspect().map_or_else(|| engine.wait_for_names().then(inspect).ok_or(()), |found| Ok(Some(found)))
        });
        let nothing = || json!({ "text/plain": format!("Nothing is known about `{name}`.") });
        let page = match found.await.unwrap_or(Ok(None)) {
            Ok(found) => {
                found.map_or_else(nothing, |mut found| match found.get("data").is_some_and(Value::is_object) {
                    true => found["data"].take(),
                    false => found,
                })
            }
            Err(()) => json!({
                "text/plain": format!(
                    "the notebook does not define `{name}`, and the names of the crates are still being read. Ask again in a moment."
                ),
            }),
        };
        let payload = vec![json!({ "source": "page", "data": page, "start": 0 })];
        Outcome { result: Ok(ExecuteResult::default()), payload }
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_a_question() -> ExecuteError {
    let evalue =
        "`?NAME` shows what is known of one name, as `?Vec::push` or `?println!`; `??NAME` shows all of it".to_owned();
    ExecuteError { ename: "CommandError".into(), traceback: vec![evalue.clone()], evalue }
}

fn expressions(request: &Request) -> BTreeMap<String, String> {
    let Some(asked) = request.content.get("user_expressions").and_then(Value::as_object) else {
        return BTreeMap::new();
    };
    asked.iter().filter_map(|(name, code)| Some((name.clone(), code.as_str()?.to_string()))).collect()
}
