//! What the system's allocator does with memory that a forward pass, a training step or a sampler frees.
//!
//! A pass over new sites builds its kernel maps again, candle allocates each result again, and its autograd two buffers more for
//! each gradient; a step frees them and the next one asks for as much. glibc gives most of it back to the system in between,
//! which then clears and maps it again page by page, about 1 µs for each 4 KiB: a quarter of forward and backward together at
//! 16 channels.

/// Lets glibc keep up to 256 MiB of freed memory for the next step, for the whole process: passes of small networks then take a
/// quarter less. A notebook does so at its start; a program of its own calls it once. It changes nothing where glibc's own variables
/// (`GLIBC_TUNABLES`, `MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`) have decided, nor under another C library.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        // Names and values of glibc's <malloc.h>.
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_THRESHOLD: c_int = -3;
        unsafe extern "C" {
            safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }

        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            let decided = ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"];
            if decided.iter().all(|name| std::env::var_os(name).is_none()) {
                mallopt(M_TRIM_THRESHOLD, 256 << 20);
                // Larger blocks are mapped one by one, and unmapped when they are freed. A grid of 256³ samples, 64 MiB, is kept.
                mallopt(M_MMAP_THRESHOLD, 80 << 20);
            }
        });
    }
}

/// Arrays of at least this many bytes ask for large pages, as NumPy's do.
const LARGE: usize = 4 << 20;

/// Room for `len` elements, none of which is written yet. On Linux a large array asks for pages of 2 MiB: the system then clears and
/// maps them in a hundredth of the steps.
pub(crate) fn room<T>(len: usize) -> Vec<T> {
    let room = Vec::<T>::with_capacity(len);
    #[cfg(target_os = "linux")]
    if len * size_of::<T>() >= LARGE {
        use std::ffi::{c_int, c_void};

        // Value of <sys/mman.h>; the smallest page of any Linux.
        const MADV_HUGEPAGE: c_int = 14;
        const PAGE: usize = 4096;
        unsafe extern "C" {
            fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
        }
        let start = room.as_ptr().cast::<u8>();
        let skipped = start.align_offset(PAGE);
        let length = (len * size_of::<T>() - skipped) / PAGE * PAGE;
        // SAFETY: the range lies within the allocation, and this advice changes neither its content nor its access. A system that
        // does not know it says so, and nothing is lost.
        unsafe { madvise(start.add(skipped).cast_mut().cast(), length, MADV_HUGEPAGE) };
    }
    room
}

/// [`room`] that holds zeros.
pub(crate) fn zeros<T: Copy + Default>(len: usize) -> Vec<T> {
    let mut zeros = room(len);
    zeros.resize(len, T::default());
    zeros
}
