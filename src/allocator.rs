//! How the system's allocator handles memory that a forward pass, a training step or a sampler frees.
//!
//! A pass over new sites builds its kernel maps again, candle allocates each result again, and its autograd allocates two more buffers for
//! each gradient. A step frees them, and the next step needs the same amount. In between, glibc returns most of it to the system, which
//! then clears and maps it again page by page, at about 1 µs for each 4 KiB: this is a quarter of the time of forward and backward pass
//! together at 16 channels.

/// Lets glibc keep up to 256 MiB of freed memory for the next step, for the whole process: passes of small networks then take a quarter
/// less time. A notebook calls this at its start; your own program can call it once. It has no effect if glibc's own variables
/// (`GLIBC_TUNABLES`, `MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`) are set, or with another C library.
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
                // Larger blocks are mapped one by one, and unmapped when freed. A grid of 256³ samples (64 MiB) is kept.
                mallopt(M_MMAP_THRESHOLD, 80 << 20);
            }
        });
    }
}

/// Arrays of at least this many bytes request large pages, as in NumPy.
const LARGE: usize = 4 << 20;

/// Uninitialised room for `len` elements. On Linux a large array requests pages of 2 MiB: the system then clears and maps them in a
/// hundredth of the steps.
pub(crate) fn room<T>(len: usize) -> Vec<T> {
    let room = Vec::<T>::with_capacity(len);
    #[cfg(target_os = "linux")]
    if len * size_of::<T>() >= LARGE {
        use std::ffi::{c_int, c_void};

        // The value in <sys/mman.h>; the smallest page of any Linux.
        const MADV_HUGEPAGE: c_int = 14;
        const PAGE: usize = 4096;
        unsafe extern "C" {
            fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
        }
        let start = room.as_ptr().cast::<u8>();
        let skipped = start.align_offset(PAGE);
        let length = (len * size_of::<T>() - skipped) / PAGE * PAGE;
        // SAFETY: the range lies within the allocation, and this advice changes neither its content nor its access. A system that does not
        // know it returns an error, which does no harm.
        unsafe { madvise(start.add(skipped).cast_mut().cast(), length, MADV_HUGEPAGE) };
    }
    room
}

/// Like [`room`], filled with zeros.
pub(crate) fn zeros<T: Copy + Default>(len: usize) -> Vec<T> {
    let mut zeros = room(len);
    zeros.resize(len, T::default());
    zeros
}
