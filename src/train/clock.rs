//! How long this process has computed. Other programs on the machine, or a pause, do not change this time.

/// Seconds of processor time of all threads of this process, to a hundredth; `None` if the system has no `/proc`.
pub(super) fn processor_seconds() -> Option<f64> {
    /// The unit of `/proc`; it is fixed on every architecture that Linux offers to programs.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields count from after the program's name, which may contain spaces: utime and stime are numbers 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}
