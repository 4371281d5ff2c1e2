//! The number types that tensor cores multiply, and how a product is cut into blocks.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::DType;
use candle_core::cuda_backend::gemm_reduced_precision_f32;

/// Whether f32 is multiplied in plain f32.
static EXACT: AtomicBool = AtomicBool::new(false);

/// Makes sparse convolutions of f32 features on GPUs multiply without tensor cores (`true`), or by default (`false`). This holds for all
/// threads of the process, from the next layer on. Without tensor cores, products and sums are plain f32 for any values, and take three to
/// four times as long. The default is three products of TF32 parts, which are as accurate for values of one scale; cards before compute
/// capability 8.0 always multiply in plain f32.
///
/// It takes precedence over `candle_core::cuda::set_gemm_reduced_precision_f32`, which allows single TF32 products.
pub fn set_exact_f32(exact: bool) {
    EXACT.store(exact, Ordering::Relaxed);
}

/// How numbers are multiplied. Sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F16,
    Bf16,
    /// f32 rounded to 10 bits, with one product. `candle_core::cuda::set_gemm_reduced_precision_f32` asks for it.
    Tf32,
    /// f32 as three products of its parts, accurate to 1e-5 or better.
    F32,
    /// Plain f32, without tensor cores.
    Exact,
}

impl Kind {
    /// The kind for features of a type on a card of this compute capability: bf16 and TF32 need 8.0 or later.
    pub fn of(dtype: DType, capability: [i32; 2]) -> Option<Self> {
        let ampere = capability >= [8, 0];
        match dtype {
            DType::F16 => Some(Self::F16),
            DType::BF16 => ampere.then_some(Self::Bf16),
            DType::F32 if !ampere || EXACT.load(Ordering::Relaxed) => Some(Self::Exact),
            DType::F32 if gemm_reduced_precision_f32() => Some(Self::Tf32),
            DType::F32 => Some(Self::F32),
            _ => None,
        }
    }

    /// How a card of this compute capability multiplies, as text for users.
    pub fn ways(capability: [i32; 2]) -> &'static str {
        match capability {
            [9, 0] => "tensor cores over tiles of sites (wgmma)",
            _ if capability >= [8, 0] => "tensor cores over tables of neighbours",
            _ => "f16 on tensor cores over tables of neighbours, other types without",
        }
    }

    /// Whether tensor cores multiply it.
    pub fn on_tensor_cores(self) -> bool {
        self != Self::Exact
    }

    /// Its name in the names of kernels.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Tf32 => "tf32",
            Self::F32 => "f32",
            Self::Exact => "exact",
        }
    }

    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::Tf32 | Self::F32 | Self::Exact => 4,
        }
    }
}

/// A product of rows with `from` channels and weights to `to` channels, as the kernels cut it into blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Columns of a block.
    pub columns: usize,
    /// Bytes of a row that one pass multiplies.
    pub bytes: usize,
    pub passes: usize,
    pub blocks: usize,
}

impl Plan {
    /// The plan for kernels over tiles, which also support 48 and 96 columns.
    pub fn of_tiles(kind: Kind, from: usize, to: usize) -> Self {
        let columns = match kind {
            Kind::F32 => largest(to, &[64, 48, 32, 16]),
            _ if to.is_multiple_of(96) => 96,
            _ => largest(to, &[128, 64, 48, 32, 16]),
        };
        Self::cut([from * kind.size(), to], columns, largest(from * kind.size(), &ROW))
    }

    /// The plan for kernels over tables: the most columns, and then the most bytes, that `fits` accepts; if it accepts none, the least.
    pub fn of_tables(kind: Kind, from: usize, to: usize, fits: impl Fn(&Self) -> bool) -> Self {
        let columns: &[usize] = match kind {
            Kind::F32 | Kind::Exact => &[64, 32, 16],
            _ => &[128, 64, 32, 16],
        };
        let row = from * kind.size();
        let least = if kind.size() == 4 { 64 } else { 32 };
        let plans = columns.iter().filter(|&&columns| to.is_multiple_of(columns)).flat_map(|&columns| {
            let bytes = ROW.into_iter().filter(move |&bytes| bytes >= least && row.is_multiple_of(bytes));
            bytes.map(move |bytes| Self::cut([row, to], columns, bytes))
        });
        let mut last = None;
        for plan in plans {
            last = Some(plan);
            if fits(&plan) {
                break;
            }
        }
        last.unwrap_or_else(|| Self::cut([row, to], 16, largest(row, &ROW)))
    }

    fn cut([row, to]: [usize; 2], columns: usize, bytes: usize) -> Self {
        Self { columns, bytes, passes: row / bytes, blocks: to / columns }
    }
}

/// Bytes of a row that kernels can multiply in one pass.
const ROW: [usize; 3] = [128, 64, 32];

/// The first of `sizes` that divides `n`. The last one must divide every `n`.
pub(super) fn largest(n: usize, sizes: &[usize]) -> usize {
    sizes.iter().copied().find(|&size| n.is_multiple_of(size)).unwrap_or(1)
}
