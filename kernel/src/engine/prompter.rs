//! Notices when a cell waits for a line of standard input, and asks the frontend for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Pid;

use super::pipes::Prompt;
use super::shared::{Evaluator, Shared};

/// How often this looks: the system does not report that a process begins to read.
const PATIENCE: Duration = Duration::from_millis(50);

/// Watches a cell for reads of standard input and asks the frontend for a line.
pub struct Prompter {
    done: Arc<AtomicBool>,
}

impl Prompter {
    pub fn start(shared: &Arc<Shared>, evaluator: &Arc<Evaluator>, cell: u64) -> Prompter {
        let done = Arc::new(AtomicBool::new(false));
        let (shared, evaluator, finished) = (Arc::clone(shared), Arc::clone(evaluator), Arc::clone(&done));
        std::thread::spawn(move || {
            let over = || finished.load(Ordering::SeqCst) || !shared.runs(cell);
            std::thread::sleep(PATIENCE);
            while !over() {
                let asked = match evaluator.pipes.take_prompt() {
                    Some(asked) => Some(asked),
                    None => evaluator
                        .child_id()
                        .filter(|&id| !evaluator.pipes.input_is_pending() && reads_input(id))
                        .map(|_| Prompt::default()),
                };
                if let Some(prompt) = asked
                    && !evaluator.pipes.ask(prompt)
                {
                    shared.interrupt_once(cell);
                    return;
                }
                std::thread::sleep(PATIENCE);
            }
        });
        Prompter { done }
    }

    pub fn stop(self) {
        self.done.store(true, Ordering::SeqCst);
    }
}

/// Whether a thread of the process waits in `read(0, …)`.
fn reads_input(id: Pid) -> bool {
    let read = if cfg!(target_arch = "x86_64") { "0 0x0 " } else { "63 0x0 " };
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", id.as_raw_nonzero())) else { return false };
    threads
        .flatten()
        .any(|thread| std::fs::read_to_string(thread.path().join("syscall")).is_ok_and(|call| call.starts_with(read)))
}
