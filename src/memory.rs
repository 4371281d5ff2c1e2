//! Checks that there is enough memory for what a caller or a file requests.
//!
//! Linux grants more memory than there is, and kills a process that uses it, so a failed allocation tells little; and an allocation that
//! does fail ends the process. So a large need is compared with the available memory before it is allocated: [`elements`] does this for an
//! array, [`check`] for the sum of several.

use crate::{Error, Result};

/// Smaller needs are not checked; a check would take longer than some decodings.
const SMALL: usize = 64 << 20;

/// Checks that `what` can have `bytes` of memory.
///
/// # Errors
/// [`Error::Memory`] if the system has less available, or does not grant it.
pub(crate) fn check(op: &'static str, what: impl FnOnce() -> String, bytes: usize) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    let needed = bytes as u64;
    let less = available().filter(|&available| available < needed);
    if less.is_none() && is_granted(bytes) {
        return Ok(());
    }
    Err(Error::Memory { op, what: what(), needed, available: less })
}

/// The number of elements of an array of type `T` with this shape, if there is memory for it and for `more` additional bytes per element.
///
/// # Errors
/// [`Error::Memory`] if the system has less available, does not grant it, or no machine could have so much.
pub(crate) fn elements<T>(op: &'static str, what: &str, shape: &[usize], more: usize) -> Result<usize> {
    let name = || format!("{what} of shape {shape:?}");
    let count = shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n));
    let bytes = count.and_then(|count| count.checked_mul(size_of::<T>() + more));
    match (count, bytes.filter(|&bytes| bytes <= isize::MAX as usize)) {
        (Some(count), Some(bytes)) => check(op, name, bytes).map(|()| count),
        _ => Err(Error::Memory {
            op,
            what: name(),
            needed: bytes.map_or(u64::MAX, |bytes| bytes as u64),
            available: available(),
        }),
    }
}

/// Whether an allocation succeeds, which it may not if the process has a limit or the system grants no more than it has. The memory is
/// returned without being touched.
fn is_granted(bytes: usize) -> bool {
    let mut probe = Vec::<u8>::new();
    let granted = probe.try_reserve_exact(bytes).is_ok();
    // Without this the compiler may remove the allocation, since nothing uses it.
    std::hint::black_box(&probe);
    granted
}

/// The bytes that this process can use without taking them from another, on Linux. A container's limit counts too.
fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_in(&text));
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    container.chain(system).min()
}

/// What `/proc/meminfo` calls available, plus what may be swapped out.
fn available_in(meminfo: &str) -> Option<u64> {
    let kibibytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((kibibytes("MemAvailable")? + kibibytes("SwapFree").unwrap_or(0)) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_there_is_granted_and_more_than_any_machine_has_is_not() {
        assert!(check("test", || unreachable!(), SMALL).is_ok());
        assert!(!is_granted(isize::MAX as usize));
        let refused = check("decode", || "a grid".into(), 1 << 50).unwrap_err();
        assert!(matches!(refused, Error::Memory { needed, .. } if needed == 1 << 50), "{refused}");
        assert!(refused.to_string().starts_with("decode: a grid needs 1125899.9 GB of memory, "), "{refused}");
    }

    #[test]
    fn an_array_that_no_machine_could_hold_is_an_error() {
        assert_eq!(elements::<f32>("test", "a grid", &[3, 4, 5], 8).unwrap(), 60);
        assert_eq!(elements::<f32>("test", "a grid", &[0, usize::MAX], 0).unwrap(), 0);
        for shape in [vec![usize::MAX], vec![usize::MAX / 8, 3], vec![1 << 40, 1 << 20]] {
            let refused = elements::<f32>("SdfGrid::from_fn", "a grid", &shape, 0).unwrap_err();
            assert!(matches!(refused, Error::Memory { .. }), "{refused}");
            assert!(
                refused.to_string().starts_with(&format!("SdfGrid::from_fn: a grid of shape {shape:?} needs")),
                "{refused}"
            );
        }
    }

    #[test]
    fn what_is_available_is_what_linux_says() {
        let text = "MemTotal:       8000000 kB\nMemFree:         100000 kB\nMemAvailable:   6000000 kB\nSwapFree:        500000 kB\n";
        assert_eq!(available_in(text), Some(6_500_000 * 1024));
        assert_eq!(available_in("MemTotal: 8000000 kB\n"), None);
        #[cfg(target_os = "linux")]
        assert!(available().is_some_and(|bytes| (1..1 << 50).contains(&bytes)));
    }
}
