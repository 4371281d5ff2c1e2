//! How long this process has computed, which a shared machine or a pause does not stretch.

/// Seconds of processor time of all threads of this process, to a hundredth; `None` where the system has no `/proc`.
pub(super) fn processor_seconds() -> Option<f64> {
    /// What `/proc` counts in; fixed on every architecture that Linux offers to programs.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields are counted after the program's name, which may hold spaces: utime and stime are numbers 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}
