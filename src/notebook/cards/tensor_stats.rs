//! Statistics, histogram and single values of a tensor of any element type. A tensor is not copied if it is dense in memory, or large and
//! on a GPU.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, WithDType};

use crate::wide::wide_fn;
use crate::{Error, Result, parallel};

/// Statistics of a tensor's values. `min` to `std` are those of the finite values; `std` is the population's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TensorStats {
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub std: f64,
    pub nan: u64,
    pub infinite: u64,
    pub zero: u64,
    pub finite: u64,
    /// Counts of the finite values in equal parts of `min..max`.
    pub histogram: Vec<u64>,
}

pub(crate) const BINS: usize = 48;
/// How many elements a thread handles before it takes the next part.
const CHUNK: usize = 1 << 16;
/// How many elements one pass of a loop handles side by side.
const LANES: usize = 8;

/// Runs `$body` with `$slice` bound to the tensor's elements of any type. Packed types have no elements and give an error.
macro_rules! with_elements {
    ($storage:expr, $dtype:expr, $slice:ident => $body:expr) => {
        match $storage {
            CpuStorage::U8($slice) => Ok($body),
            CpuStorage::U32($slice) => Ok($body),
            CpuStorage::I16($slice) => Ok($body),
            CpuStorage::I32($slice) => Ok($body),
            CpuStorage::I64($slice) => Ok($body),
            CpuStorage::BF16($slice) => Ok($body),
            CpuStorage::F16($slice) => Ok($body),
            CpuStorage::F32($slice) => Ok($body),
            CpuStorage::F64($slice) => Ok($body),
            _ => Err(Error::DType {
                op: "tensor card",
                what: "tensor",
                got: $dtype,
                expected: "a type whose elements are whole bytes",
            }),
        }
    };
}

/// A tensor ready to be read.
pub(crate) struct Elements {
    /// On the CPU, its elements are one dense range of memory in some order of the axes; on a GPU it is contiguous.
    tensor: Tensor,
    start: usize,
    len: usize,
}

/// A tensor on a GPU with at most this many elements is copied to the CPU, which is faster than computing there.
#[cfg(feature = "cuda")]
const SMALL: usize = 1 << 18;

impl Elements {
    /// Brings the tensor to the CPU, unless it is a large one on a GPU. It is copied only if it is on another device or repeats or skips
    /// elements.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if tensor.device().is_cuda() && tensor.elem_count() > SMALL && crate::gpu::statistics::reads(tensor.dtype()) {
            return Ok(Self { start: 0, len: tensor.elem_count(), tensor: tensor.detach().contiguous()? });
        }
        let mut tensor = tensor.detach().to_device(&Device::Cpu)?;
        if tensor.dtype() == DType::F8E4M3 {
            // Its own conversion to f64 never returns (float8 0.7).
            tensor = tensor.to_dtype(DType::F32)?;
        }
        if !is_dense(tensor.dims(), tensor.stride()) {
            tensor = tensor.force_contiguous()?;
        }
        let start = tensor.layout().start_offset();
        Ok(Self { start, len: tensor.elem_count(), tensor })
    }

    fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    /// Statistics of all elements, in parallel.
    pub fn stats(&self) -> Result<TensorStats> {
        #[cfg(feature = "cuda")]
        if self.tensor.device().is_cuda() {
            let found = crate::gpu::statistics::of(&self.tensor)?;
            let infinite = self.len as u64 - found.finite - found.nan;
            let crate::gpu::statistics::Statistics { min, max, mean, std, finite, nan, zero, histogram } = found;
            return Ok(TensorStats { min, max, mean, std, nan, infinite, zero, finite, histogram });
        }
        let (storage, _) = self.tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            return Err(Error::Argument {
                op: "tensor card",
                name: "device",
                got: "not the CPU".into(),
                expected: "a tensor on the CPU".into(),
            });
        };
        with_elements!(storage, self.dtype(), data => stats_of(&data[self.start..self.start + self.len]))
    }

    /// Where the element with this index along each axis is, for [`pick`](Self::pick).
    pub fn place(&self, index: &[usize]) -> usize {
        self.start + index.iter().zip(self.tensor.stride()).map(|(i, stride)| i * stride).sum::<usize>()
    }

    /// How far apart the places of neighbours along an axis are.
    pub fn stride(&self, axis: usize) -> usize {
        self.tensor.stride()[axis]
    }

    /// The values at these places.
    pub fn pick(&self, places: impl Iterator<Item = usize>) -> Result<Vec<f64>> {
        #[cfg(feature = "cuda")]
        if self.tensor.device().is_cuda() {
            let places = Tensor::from_iter(places.map(|place| place as i64), self.tensor.device())?;
            let picked = self.tensor.flatten_all()?.index_select(&places, 0)?.to_device(&Device::Cpu)?;
            return Ok(picked.to_dtype(DType::F64)?.to_vec1()?);
        }
        let (storage, _) = self.tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { return Ok(Vec::new()) };
        with_elements!(storage, self.dtype(), data => places.map(|place| data[place].to_f64()).collect())
    }
}

/// Whether each element in a range of memory belongs to exactly one index, for any order of the axes.
fn is_dense(dims: &[usize], strides: &[usize]) -> bool {
    let mut axes: Vec<_> = dims.iter().zip(strides).filter(|(dim, _)| **dim != 1).collect();
    axes.sort_by_key(|(_, stride)| **stride);
    let mut expected = 1;
    axes.iter().all(|(dim, stride)| {
        let fits = **stride == expected;
        expected *= **dim;
        fits
    })
}

/// Sums over a part of the elements; `shift` (any finite value) keeps the squares small.
#[derive(Clone, Copy)]
struct Sums {
    min: f64,
    max: f64,
    sum: f64,
    squares: f64,
    nan: u64,
    finite: u64,
    zero: u64,
}

impl Sums {
    const NONE: Self =
        Self { min: f64::INFINITY, max: f64::NEG_INFINITY, sum: 0.0, squares: 0.0, nan: 0, finite: 0, zero: 0 };

    fn of<T: WithDType>(part: &[T], shift: f64) -> Self {
        of_finite(part, shift).unwrap_or_else(|| part.iter().fold(Self::NONE, |s, x| s.with(x.to_f64(), shift)))
    }

    fn with(self, x: f64, shift: f64) -> Self {
        let finite = x.is_finite();
        let centred = if finite { x - shift } else { 0.0 };
        Self {
            min: if finite { self.min.min(x) } else { self.min },
            max: if finite { self.max.max(x) } else { self.max },
            sum: self.sum + centred,
            squares: self.squares + centred * centred,
            nan: self.nan + u64::from(x.is_nan()),
            finite: self.finite + u64::from(finite),
            zero: self.zero + u64::from(x == 0.0),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            sum: self.sum + other.sum,
            squares: self.squares + other.squares,
            nan: self.nan + other.nan,
            finite: self.finite + other.finite,
            zero: self.zero + other.zero,
        }
    }
}

wide_fn! {
    /// The usual case, in lanes that the compiler turns into vector instructions; `None` if a value is not finite.
    fn of_finite<T: WithDType>(part: &[T], shift: f64) -> Option<Sums> {
        let (mut min, mut max) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
        let (mut sum, mut squares, mut odd) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let mut zero = [0u64; LANES];
        let groups = part.chunks_exact(LANES);
        let rest = groups.remainder();
        for group in groups {
            #[allow(clippy::needless_range_loop)] // one lane of seven arrays
            for lane in 0..LANES {
                let x = group[lane].to_f64();
                min[lane] = if x < min[lane] { x } else { min[lane] };
                max[lane] = if x > max[lane] { x } else { max[lane] };
                let centred = x - shift;
                sum[lane] += centred;
                squares[lane] += centred * centred;
                // Zero for every finite value, NaN for other values.
                odd[lane] += x * 0.0;
                zero[lane] += u64::from(x == 0.0);
            }
        }
        if odd.iter().any(|odd| odd.is_nan()) {
            return None;
        }
        let lanes = Sums {
            min: min.into_iter().fold(f64::INFINITY, f64::min),
            max: max.into_iter().fold(f64::NEG_INFINITY, f64::max),
            sum: sum.iter().sum(),
            squares: squares.iter().sum(),
            nan: 0,
            finite: (part.len() - rest.len()) as u64,
            zero: zero.iter().sum(),
        };
        Some(rest.iter().fold(lanes, |s, x| s.with(x.to_f64(), shift)))
    }
}

fn stats_of<T: WithDType>(data: &[T]) -> TensorStats {
    let shift = data.iter().map(|x| x.to_f64()).find(|x| x.is_finite()).unwrap_or(0.0);
    let sums = parallel::map(data.len().div_ceil(CHUNK), &|i| Sums::of(chunk(data, i), shift));
    let sums = sums.into_iter().fold(Sums::NONE, Sums::and);
    let infinite = data.len() as u64 - sums.finite - sums.nan;
    if sums.finite == 0 {
        return TensorStats {
            min: f64::NAN,
            max: f64::NAN,
            mean: f64::NAN,
            std: f64::NAN,
            nan: sums.nan,
            infinite,
            ..Default::default()
        };
    }
    let n = sums.finite as f64;
    let mean = sums.sum / n;
    TensorStats {
        min: sums.min,
        max: sums.max,
        mean: mean + shift,
        std: (sums.squares / n - mean * mean).max(0.0).sqrt(),
        nan: sums.nan,
        infinite,
        zero: sums.zero,
        finite: sums.finite,
        histogram: histogram(data, sums.min, sums.max, sums.finite == data.len() as u64),
    }
}

/// Counts of the finite values in equal parts of `min..max`. `all_finite` tells that there are no other values.
fn histogram<T: WithDType>(data: &[T], min: f64, max: f64, all_finite: bool) -> Vec<u64> {
    let scale = if max > min { BINS as f64 / (max - min) } else { 0.0 };
    let counted = parallel::map(data.len().div_ceil(CHUNK), &|i| {
        let mut tables = Tables::default();
        if all_finite {
            count(&mut tables, chunk(data, i), min, scale);
        } else {
            let finite = chunk(data, i).iter().map(|x| x.to_f64()).filter(|x| x.is_finite());
            finite.for_each(|x| tables.0[0][bin((x - min) * scale)] += 1);
        }
        tables
    });
    let total = |bin| counted.iter().flat_map(|tables| &tables.0).map(|table: &[u32; _]| u64::from(table[bin])).sum();
    (0..BINS).map(total).collect()
}

/// Part `number` of the data.
fn chunk<T>(data: &[T], number: usize) -> &[T] {
    &data[number * CHUNK..data.len().min((number + 1) * CHUNK)]
}

/// Neighbouring values are counted in separate tables, so that equal values do not wait for each other. A power of two as the number of
/// places saves a check.
struct Tables([[u32; BINS.next_power_of_two()]; LANES]);

impl Default for Tables {
    fn default() -> Self {
        Self([[0; BINS.next_power_of_two()]; LANES])
    }
}

wide_fn! {
    /// Counts values whose distances from `min` are given in parts of the histogram by `scale`.
    fn count<T: WithDType>(tables: &mut Tables, values: &[T], min: f64, scale: f64) {
        let (groups, rest) = values.as_chunks::<LANES>();
        for group in groups {
            let mut places = [0; LANES];
            for (place, x) in places.iter_mut().zip(group) {
                *place = bin((x.to_f64() - min) * scale);
            }
            for (table, place) in tables.0.iter_mut().zip(places) {
                table[place % BINS.next_power_of_two()] += 1;
            }
        }
        for x in rest {
            tables.0[0][bin((x.to_f64() - min) * scale)] += 1;
        }
    }
}

/// The part of the histogram for a value at this distance from its start, in parts.
#[inline(always)]
fn bin(at: f64) -> usize {
    // With the comparisons in this order, NaN also goes to an end.
    let at = if at < (BINS - 1) as f64 { at } else { (BINS - 1) as f64 };
    let at = if at > 0.0 { at } else { 0.0 };
    // SAFETY: it lies within 0 to BINS − 1.
    unsafe { at.to_int_unchecked::<i32>() as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(tensor: &Tensor) -> TensorStats {
        Elements::of(tensor).unwrap().stats().unwrap()
    }

    #[test]
    fn statistics_leave_nan_and_infinity_out_but_count_them() {
        let tensor =
            Tensor::new(&[1f32, f32::NAN, 3.0, f32::INFINITY, f32::NEG_INFINITY, 0.0, -4.0], &Device::Cpu).unwrap();
        let s = stats(&tensor);
        assert_eq!((s.min, s.max, s.mean, s.finite), (-4.0, 3.0, 0.0, 4));
        assert_eq!((s.nan, s.infinite, s.zero), (1, 2, 1));
        assert!((s.std - (26f64 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!((s.histogram[0], s.histogram[BINS - 1], s.histogram.iter().sum::<u64>()), (1, 1, 4));
    }

    #[test]
    fn a_large_offset_does_not_spoil_the_deviation() {
        let values: Vec<f64> = (0..100_000).map(|i| 1e9 + f64::from(i % 2)).collect();
        let s = stats(&Tensor::new(values, &Device::Cpu).unwrap());
        assert!((s.std - 0.5).abs() < 1e-9 && (s.mean - 1e9 - 0.5).abs() < 1e-6, "{s:?}");
    }

    #[test]
    fn every_element_type_and_layout_gives_the_same_statistics() {
        let tensor = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((2, 3, 4)).unwrap();
        let expected = stats(&tensor);
        for dtype in [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64, DType::BF16, DType::F16, DType::F64] {
            assert_eq!(stats(&tensor.to_dtype(dtype).unwrap()), expected, "{dtype:?}");
        }
        let eight = tensor.narrow(0, 0, 1).unwrap().to_dtype(DType::F8E4M3).unwrap();
        assert_eq!(stats(&eight).max, 11.0);
        assert_eq!(stats(&tensor.permute((2, 0, 1)).unwrap()), expected);
        let half = tensor.narrow(2, 1, 2).unwrap();
        assert_eq!((stats(&half).min, stats(&half).max, stats(&half).finite), (1.0, 22.0, 12));
        assert_eq!(stats(&tensor.unsqueeze(0).unwrap().broadcast_as((5, 2, 3, 4)).unwrap()).finite, 120);
    }

    #[test]
    fn picked_values_follow_the_strides() {
        let tensor = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((2, 3)).unwrap().t().unwrap();
        let elements = Elements::of(&tensor).unwrap();
        let picked = elements.pick([[0, 1], [2, 0]].iter().map(|index| elements.place(index))).unwrap();
        assert_eq!(picked, [3.0, 2.0]);
        assert_eq!(elements.place(&[2, 0]), elements.place(&[0, 0]) + 2 * elements.stride(0));
    }

    #[test]
    fn nothing_finite_and_nothing_at_all_are_no_trouble() {
        let nans = stats(&Tensor::new(&[f32::NAN, f32::NAN], &Device::Cpu).unwrap());
        assert!(nans.mean.is_nan() && nans.nan == 2);
        let empty = stats(&Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap());
        assert_eq!((empty.finite, empty.nan, empty.infinite), (0, 0, 0));
    }
}
