//! What the tensor cores multiply, and how a product is cut into blocks.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::DType;
use candle_core::cuda_backend::gemm_reduced_precision_f32;

/// Whether f32 is multiplied as it is.
static EXACT: AtomicBool = AtomicBool::new(false);

/// Has sparse convolutions of f32 features on GPUs multiply without tensor cores (`true`), or as before (`false`): for all threads of the
/// process, from the next layer on. Products and sums are f32's own then, whatever a layer's values are, and take three to four times as
/// long. The default is three products of TF32 parts, which are as close as that for values of one scale; cards before compute capability
/// 8.0 always multiply f32 as it is.
///
/// It goes before `candle_core::cuda::set_gemm_reduced_precision_f32`, which allows single TF32 products.
pub fn set_exact_f32(exact: bool) {
    EXACT.store(exact, Ordering::Relaxed);
}

/// How numbers are multiplied. Sums are f32 in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F16,
    Bf16,
    /// f32 rounded to 10 bits: one product. What `candle_core::cuda::set_gemm_reduced_precision_f32` asks for.
    Tf32,
    /// f32 as three products of parts, to 1e-5 and better.
    F32,
    /// f32 as it is, without tensor cores.
    Exact,
}

impl Kind {
    /// Of features of a type, on a card of this compute capability: bf16 and TF32 are multiplied from 8.0 on.
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

    /// What multiplies on a card of this compute capability, for people.
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

    /// As kernels are named.
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

/// A product of rows of `from` channels with weights to `to` channels, as the kernels cut it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Columns of a block.
    pub columns: usize,
    /// Bytes of a row that are multiplied in one pass.
    pub bytes: usize,
    pub passes: usize,
    pub blocks: usize,
}

impl Plan {
    /// For the kernels over tiles, which know 96 columns too.
    pub fn of_tiles(kind: Kind, from: usize, to: usize) -> Self {
        let columns = match kind {
            Kind::F32 => largest(to, &[64, 32, 16]),
            _ if to.is_multiple_of(96) => 96,
            _ => largest(to, &[128, 64, 32, 16]),
        };
        Self::cut([from * kind.size(), to], columns, largest(from * kind.size(), &ROW))
    }

    /// For the kernels over tables: the most columns, then the most bytes, that `fits` takes. It takes the least at any rate.
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

/// Bytes of a row that kernels multiply in one pass.
const ROW: [usize; 3] = [128, 64, 32];

/// The first of `sizes`, the last of which divides every `n` that comes here, that divides `n`.
pub(super) fn largest(n: usize, sizes: &[usize]) -> usize {
    sizes.iter().copied().find(|&size| n.is_multiple_of(size)).unwrap_or(1)
}
