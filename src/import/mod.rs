//! Reads checkpoints of other libraries into any network, and never silently gives wrong weights.
//!
//! [`Checkpoint::open`] reads every tensor of a file that PyTorch saved (`.pth`, `.pt`, `.bin`, `.ckpt`, any version since 2017) or of a
//! safetensors file. [`Checkpoint::load_into`] copies the values into a network's parameters and reports what it did.
//!
//! ```no_run
//! use wavemesh::prelude::*;
//! use wavemesh::import::{Checkpoint, ImportOptions};
//! # fn main() -> wavemesh::Result<()> {
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let conv = SubMConv3d::new(4, 16, 3, ConvConfig::new().bias(false), vb.pp("conv1.0"))?;
//! let report = Checkpoint::open("second.pth")?.load_into(&variables, &ImportOptions::default())?;
//! println!("{report}"); // 1 read, 0 missing, …
//! # Ok(()) }
//! ```
//!
//! # How weights lie in files
//!
//! Libraries store the weights of the same convolution in different orders ([`WeightFormat`]). The importer detects the order from the
//! shapes of all layers together, and asks for it ([`ImportOptions::format`]) if more than one fits.
//!
//! | written by | weight | what is done |
//! | --- | --- | --- |
//! | spconv 2 | (out, z, y, x, in) | read as it is; **1×1×1 layers of stride 1 are turned** |
//! | spconv 2 before 2.2 | (z, y, x, out, in) | axes moved; 1×1×1 layers of stride 1 are turned |
//! | spconv 1 | (z, y, x, in, out) | axes moved |
//! | torch.nn | (out, in, z, y, x), transposed (in, out, z, y, x) | axes moved |
//! | torchsparse | (offsets, in, out), 1×1×1 (in, out) | offsets unfolded: x runs fastest in odd kernels, z in even ones |
//! | MinkowskiEngine | (offsets, in, out), 1×1×1 (in, out) | offsets unfolded: x runs fastest |
//!
//! spconv 2 computes a 1×1×1 layer of stride 1 (and every submanifold one) as `mm(x, weight.view(in, out))`, although the weight's shape is
//! (out, 1, 1, 1, in): its memory holds an (in, out) matrix, which is not the transpose. It computes strided 1×1×1 layers like any other
//! layer. A network may also have its own pointwise class that reads (out, in), as SoftGroup does: name such layers in
//! [`ImportOptions::pointwise`].

mod checkpoint;
mod format;
mod load;
mod pickle;
mod report;
mod torch;

pub use checkpoint::Checkpoint;
pub use format::{Pointwise, WeightFormat};
pub use load::ImportOptions;
pub use report::{ImportReport, ImportedTensor};
