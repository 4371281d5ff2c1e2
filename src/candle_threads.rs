//! How candle's threads wait for their next operation.
//!
//! candle computes large element-wise operations with threads of its own. After each one they spin for up to 25,000 turns before they sleep,
//! on the cores on which the threads of the sparse layers already compute the next operation.

/// candle's own variable: how many turns its threads spin before they sleep. It is read at the first large operation.
#[cfg(target_os = "linux")]
const SPIN_LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";

/// Lets candle's threads sleep as soon as they have nothing to do, for the whole process: training steps and samplers of small networks
/// then take less time, much less on a busy machine. A notebook does this at its start; your own program can call it first of all. It has
/// no effect where the variable `CANDLE_BARRIER_POOL_SPIN_LIMIT` is set, where the process already has other threads, and on systems other
/// than Linux.
pub fn let_candle_rest() {
    #[cfg(target_os = "linux")]
    if std::env::var_os(SPIN_LIMIT).is_none() && is_only_thread() {
        // SAFETY: no other thread can read the environment meanwhile, since there is none.
        unsafe { std::env::set_var(SPIN_LIMIT, "1") };
    }
}

/// Whether the process has this thread alone; false if the system does not tell.
#[cfg(target_os = "linux")]
fn is_only_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_other_threads_keeps_its_environment() {
        std::thread::scope(|scope| {
            let (done, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv().is_err());
            assert!(!is_only_thread());
            let before = std::env::var_os(SPIN_LIMIT);
            let_candle_rest();
            assert_eq!(std::env::var_os(SPIN_LIMIT), before);
            drop(done);
        });
    }
}
