//! Compiled kernels and their arguments.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, DriverError, LaunchArgs, PushKernelArg, sys::CUfunction_attribute_enum,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;

#[cfg(feature = "train")]
use super::update::Many;
use super::{Gpu, Numbers, Slice, Written};
use crate::Result;

/// Kernels that were compiled together, for every architecture.
pub(crate) struct Module {
    pub name: &'static str,
    pub image: &'static [u8],
}

/// The kernels of one source file, by its name.
macro_rules! module {
    ($name:literal) => {
        $crate::gpu::Module { name: $name, image: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin")) }
    };
}
pub(crate) use module;

/// The loaded modules, by GPU and name.
#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, &'static str), Arc<CudaModule>>,
    functions: HashMap<(usize, &'static str, String), Loadable>,
}

/// A kernel, and the bytes of shared memory that its launches may ask for.
struct Loadable {
    function: CudaFunction,
    shared: u32,
}

/// The shared memory that a kernel has without requesting it.
const GRANTED: u32 = 48 << 10;

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

impl Module {
    /// A kernel that may be launched with `shared` bytes of shared memory; it is loaded at its first use. Once kernels are loaded in a
    /// context, it lives as long as the process.
    pub fn function(
        &self,
        context: &Arc<CudaContext>,
        kernel: &str,
        shared: u32,
    ) -> std::result::Result<CudaFunction, DriverError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { modules, functions } = loaded.get_or_insert_default();
        let gpu = context.ordinal();
        let key = (gpu, self.name, kernel.to_string());
        if !functions.contains_key(&key) {
            let module = match modules.get(&(gpu, self.name)) {
                Some(module) => module.clone(),
                None => {
                    let module = context.load_module(Ptx::from_binary(self.image.to_vec()))?;
                    modules.insert((gpu, self.name), module.clone());
                    module
                }
            };
            functions.insert(key.clone(), Loadable { function: module.load_function(kernel)?, shared: GRANTED });
        }
        let Some(Loadable { function, shared: allowed }) = functions.get_mut(&key) else {
            unreachable!("it was loaded above")
        };
        // The limit belongs to the kernel, which other threads may be launching: it is only ever raised.
        if shared > *allowed {
            let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, shared as i32)?;
            *allowed = shared;
        }
        Ok(function.clone())
    }
}

/// A kernel's argument, with the size of its declaration.
pub(crate) enum Argument {
    Address(u64),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Ints([i32; 3]),
    Longs([i64; 3]),
    /// Small numbers in a struct.
    Index(Box<[i16; 128]>),
    /// Lists of tensors.
    #[cfg(feature = "train")]
    Many(Box<Many>),
}

impl Argument {
    /// A parameter in place, f32.
    pub fn at(gpu: &Gpu, tensor: &Tensor) -> Result<Self> {
        Ok(Self::Address(gpu.address(tensor)?))
    }

    pub fn push<'a>(&'a self, builder: &mut LaunchArgs<'a>) {
        match self {
            Self::Address(value) => builder.arg(value),
            Self::Int(value) => builder.arg(value),
            Self::Long(value) => builder.arg(value),
            Self::Float(value) => builder.arg(value),
            Self::Double(value) => builder.arg(value),
            Self::Ints(value) => builder.arg(value),
            Self::Longs(value) => builder.arg(value),
            Self::Index(value) => builder.arg(&**value),
            #[cfg(feature = "train")]
            Self::Many(value) => builder.arg(&**value),
        };
    }
}

macro_rules! argument {
    ($($type:ty => $variant:ident),*) => {
        $(impl From<$type> for Argument {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        })*
    };
}
argument!(i32 => Int, i64 => Long, f32 => Float, f64 => Double, [i32; 3] => Ints, [i64; 3] => Longs);

impl From<&Numbers<'_>> for Argument {
    fn from(numbers: &Numbers) -> Self {
        Self::Address(numbers.at)
    }
}

impl From<&Slice<'_>> for Argument {
    fn from(slice: &Slice) -> Self {
        Self::Address(slice.at)
    }
}

impl From<&Written<'_>> for Argument {
    fn from(written: &Written) -> Self {
        Self::Address(written.slice.at)
    }
}

#[cfg(feature = "train")]
impl From<&Many> for Argument {
    fn from(many: &Many) -> Self {
        Self::Many(Box::new(*many))
    }
}

/// A missing argument becomes a null pointer.
impl<T> From<Option<&T>> for Argument
where
    for<'a> &'a T: Into<Argument>,
{
    fn from(value: Option<&T>) -> Self {
        value.map_or(Self::Address(0), Into::into)
    }
}

/// The arguments of a kernel, each converted according to its type.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => { &[$($crate::gpu::Argument::from($value)),*] };
}
pub(crate) use arguments;
