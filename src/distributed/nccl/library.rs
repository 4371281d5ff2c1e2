//! The part of NCCL's C interface that a group needs. The library is loaded when a program requests it, so a program built for NCCL also
//! runs where NCCL is not installed. (With the bindings of cudarc, the loader would need NCCL at every start, because candle links cudarc.)

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use candle_core::cuda_backend::cudarc::driver::sys::CUstream;

use crate::{Error, Result};

/// The names of the library in the loader's folders.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// The environment variable that names the library's file.
const VARIABLE: &str = "WAVEMESH_NCCL";

/// `ncclSuccess` and `ncclInProgress`.
pub(super) const SUCCESS: c_int = 0;
pub(super) const IN_PROGRESS: c_int = 7;
/// `ncclSum`.
pub(super) const SUM: c_int = 0;
/// `ncclUint8`, `ncclFloat32` and `ncclFloat64`.
pub(super) const U8: c_int = 1;
pub(super) const F32: c_int = 7;
pub(super) const F64: c_int = 8;

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Id(pub [u8; 128]);

/// `ncclComm_t`.
pub(super) type Comm = *mut c_void;

/// `ncclConfig_t` of version 2.14; later versions recognise it by its size.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

impl Config {
    /// Functions return at once; their operations are polled.
    pub const AT_ONCE: Self = Self { size: size_of::<Self>(), magic: 0xcafe_beef, version: 21_400, blocking: 0 };
}

macro_rules! functions {
    ($($field:ident = $name:literal ( $($kind:ty),* );)*) => {
        /// The library's functions.
        pub(crate) struct Library {
            $(pub(super) $field: unsafe extern "C" fn($($kind),*) -> c_int,)*
            error_string: unsafe extern "C" fn(c_int) -> *const c_char,
            last_error: unsafe extern "C" fn(Comm) -> *const c_char,
            _file: libloading::Library,
        }

        impl Library {
            fn of(file: libloading::Library) -> std::result::Result<Self, libloading::Error> {
                // SAFETY: the types are those of nccl.h, the same in all versions from 2.14 on.
                unsafe {
                    Ok(Self {
                        $($field: *file.get(concat!($name, "\0").as_bytes())?,)*
                        error_string: *file.get(b"ncclGetErrorString\0")?,
                        last_error: *file.get(b"ncclGetLastError\0")?,
                        _file: file,
                    })
                }
            }
        }
    };
}

functions! {
    get_unique_id = "ncclGetUniqueId"(*mut Id);
    init_rank_config = "ncclCommInitRankConfig"(*mut Comm, c_int, Id, c_int, *mut Config);
    all_reduce = "ncclAllReduce"(*const c_void, *mut c_void, usize, c_int, c_int, Comm, CUstream);
    broadcast = "ncclBroadcast"(*const c_void, *mut c_void, usize, c_int, c_int, Comm, CUstream);
    async_error = "ncclCommGetAsyncError"(Comm, *mut c_int);
    abort = "ncclCommAbort"(Comm);
    finalize = "ncclCommFinalize"(Comm);
    destroy = "ncclCommDestroy"(Comm);
}

impl Library {
    /// Loads the library of this machine.
    ///
    /// # Errors
    /// [`Error::Backend`], which says what to install.
    pub fn load() -> Result<Self> {
        let named = std::env::var(VARIABLE).ok();
        let names: Vec<&str> = named.as_deref().map_or(NAMES.to_vec(), |name| vec![name]);
        let mut problem = String::new();
        for name in names {
            // SAFETY: NCCL's initialisers only prepare NCCL.
            match unsafe { libloading::Library::new(name) }.and_then(Self::of) {
                Ok(library) => return Ok(library),
                Err(error) if problem.is_empty() => problem = error.to_string(),
                Err(_) => {}
            }
        }
        let needs = format!(
            "it needs NCCL 2.14 or later: `apt-get install libnccl2`, or `pip install nvidia-nccl-cu13` and {VARIABLE} set to its libnccl.so.2 ({problem})"
        );
        Err(Error::Backend { backend: "nccl", needs })
    }

    /// The message for a code, with the library's last error.
    pub fn problem(&self, code: c_int, comm: Comm) -> String {
        // SAFETY: the library's texts live as long as the library.
        let text = |text: *const c_char| match text.is_null() {
            true => String::new(),
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_string(),
        };
        // SAFETY: every code has a text, and a null communicator asks for no particular one.
        let (name, last) = unsafe { (text((self.error_string)(code)), text((self.last_error)(comm))) };
        if last.is_empty() { name } else { format!("{name}: {last}") }
    }
}
