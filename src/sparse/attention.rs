//! Attention among the sites of a batch element: among all of them, within a window, or among neighbours along a space-filling curve.
//!
//! `y = softmax(q · kᵀ / √C) · v` for each head, within groups of rows. Groups of similar size are computed together, padded, so that
//! thousands of small windows are a few matrix products.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::attend::attend;
use super::attend_here::attend_in_groups;
use super::curve::Curve;
use super::elements::wide_of;
use super::tape;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

/// Which sites attend to each other. The sites of a group always belong to one batch element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttentionGroups {
    /// All sites of a batch element.
    Full,
    /// The sites of a window of `size` (z, y, x) cells. Windows begin at −`shift`; half a window gives Swin's shifted windows.
    Windowed {
        /// Size of a window in cells (z, y, x).
        size: [usize; 3],
        /// Cells by which windows are moved (z, y, x).
        shift: [usize; 3],
    },
    /// `length` neighbours along a curve, or a few fewer: an element's sites are divided evenly. This is the serialised attention of Point
    /// Transformer V3 and TRELLIS.
    Serialized {
        /// The curve.
        curve: Curve,
        /// The largest number of sites in a group.
        length: usize,
    },
}

impl AttentionGroups {
    /// The rows of each group. Every row is in exactly one group.
    ///
    /// # Errors
    /// A window without cells, or a length of 0.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// use wavemesh::sparse::AttentionGroups;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(AttentionGroups::Full.rows(&x)?, [[0, 1]]);
    /// assert_eq!(AttentionGroups::Windowed { size: [1; 3], shift: [0; 3] }.rows(&x)?, [[0], [1]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rows(&self, x: &SparseConvTensor) -> Result<Vec<Vec<u32>>> {
        let argument = |name, got: String| {
            let expected = "1 or more".into();
            Err(Error::Argument { op: "sparse_attention", name, got, expected })
        };
        match *self {
            Self::Full => Ok(x.element_rows().into_iter().filter(|rows| !rows.is_empty()).collect()),
            Self::Windowed { size, .. } if size.contains(&0) => argument("size", format!("{size:?}")),
            Self::Windowed { size, shift } => {
                let mut windows: BTreeMap<[i32; 4], Vec<u32>> = BTreeMap::new();
                for (row, site) in (0..).zip(x.coords()) {
                    let mut window = *site;
                    for axis in 0..3 {
                        window[axis + 1] = ((site[axis + 1] as usize + shift[axis]) / size[axis]) as i32;
                    }
                    windows.entry(window).or_default().push(row);
                }
                Ok(windows.into_values().collect())
            }
            Self::Serialized { length: 0, .. } => argument("length", "0".into()),
            Self::Serialized { curve, length } => {
                let mut groups = Vec::new();
                for mut rows in x.element_rows() {
                    rows.sort_by_cached_key(|&row| {
                        let [_, z, y, x] = x.coords()[row as usize];
                        curve.position([z, y, x])
                    });
                    let count = rows.len().div_ceil(length);
                    groups.extend(
                        (0..count).map(|i| rows[i * rows.len() / count..(i + 1) * rows.len() / count].to_vec()),
                    );
                }
                Ok(groups)
            }
        }
    }
}

/// Scaled dot-product attention (Vaswani et al. 2017) within groups of the sites of `x`. Takes queries and keys (sites, heads, C) and
/// values (sites, heads, C'), and returns (sites, heads, C'). Differentiable.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::sparse::{AttentionGroups, sparse_attention};
/// # fn main() -> wavemesh::Result<()> {
/// let sites = vec![[0, 0, 0, 0], [0, 0, 0, 1], [0, 7, 7, 7]];
/// let x = SparseConvTensor::from_coords(Tensor::ones((3, 1), DType::F32, &Device::Cpu)?, sites, [8, 8, 8], 1)?;
/// let same = Tensor::zeros((3, 1, 2), DType::F32, &Device::Cpu)?;
/// let values = Tensor::new(&[[[1f32]], [[3.0]], [[9.0]]], &Device::Cpu)?;
/// let windows = AttentionGroups::Windowed { size: [4; 3], shift: [0; 3] };
/// let y = sparse_attention(&x, &same, &same, &values, &windows)?; // equal scores: the mean of each window
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [2.0, 2.0, 9.0]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// Tensors of other shapes, or groups that cannot be formed.
pub fn sparse_attention(
    x: &SparseConvTensor,
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    groups: &AttentionGroups,
) -> Result<Tensor> {
    const OP: &str = "sparse_attention";
    let sites = x.len();
    let shape =
        |what, got: &Tensor, expected: String| Err(Error::Shape { op: OP, what, got: got.dims().to_vec(), expected });
    let &[rows, heads, channels] = queries.dims() else {
        return shape("queries", queries, format!("({sites}, heads, channels)"));
    };
    if rows != sites {
        return shape("queries", queries, format!("({sites}, heads, channels)"));
    }
    if keys.dims() != queries.dims() {
        return shape("keys", keys, format!("{:?}, as the queries", queries.dims()));
    }
    let width = match *values.dims() {
        [n, h, width] if n == sites && h == heads => width,
        _ => return shape("values", values, format!("({sites}, {heads}, channels)")),
    };
    let groups = groups.rows(x)?;
    if sites == 0 {
        return Ok(values.clone());
    }
    let dtype = wide_of(queries.dtype());
    let flat = |tensor: &Tensor| -> Result<Tensor> {
        Ok(tensor.to_dtype(dtype)?.contiguous()?.reshape((sites, tensor.elem_count() / sites))?)
    };
    let [queries, keys, values] = [flat(queries)?, flat(keys)?, flat(values)?];
    let queries = (queries / (channels as f64).sqrt())?;
    // Without a tape, groups need no common length on a processor.
    if tape::is_off()
        && let Some(y) = attend_in_groups([&queries, &keys, &values], &groups, [heads, channels, width])?
    {
        return Ok(y.reshape((sites, heads, width))?.to_dtype(x.dtype())?);
    }
    // Groups padded to the next power of two (or to a multiple of 64) share a matrix product.
    let padded = |count: usize| if count <= 64 { count.next_power_of_two() } else { count.next_multiple_of(64) };
    let mut buckets: BTreeMap<usize, Vec<Vec<u32>>> = BTreeMap::new();
    for group in groups {
        buckets.entry(padded(group.len())).or_default().push(group);
    }
    /// The number of scores that are held at a time.
    const MOST: usize = 1 << 24;
    let (mut outputs, mut order) = (Vec::new(), Vec::new());
    for (length, groups) in buckets {
        let together = (MOST / (length * length * heads)).max(1);
        for groups in groups.chunks(together) {
            let (y, rows) = padded_attention([&queries, &keys, &values], groups, [length, heads, channels, width])?;
            outputs.push(y);
            order.extend(rows);
        }
    }
    // Put the rows back in the order of the sites.
    let mut places = vec![0u32; sites];
    order.iter().zip(0..).for_each(|(&row, place)| places[row as usize] = place);
    let y = Tensor::cat(&outputs, 0)?.index_select(&Tensor::from_vec(places, sites, x.device())?, 0)?;
    Ok(y.reshape((sites, heads, width))?.to_dtype(x.dtype())?)
}

/// Attention within `groups` of at most `length` rows. Returns (rows of all groups, heads · width), and the numbers of these rows.
fn padded_attention(
    [queries, keys, values]: [&Tensor; 3],
    groups: &[Vec<u32>],
    [length, heads, channels, width]: [usize; 4],
) -> Result<(Tensor, Vec<u32>)> {
    let (count, device) = (groups.len(), queries.device());
    let rows: Vec<u32> = groups.concat();
    let mut picked = Vec::with_capacity(count * length);
    let mut mask = Vec::with_capacity(count * length);
    let mut kept = Vec::with_capacity(rows.len());
    for (g, group) in groups.iter().enumerate() {
        kept.extend((0..group.len()).map(|i| (g * length + i) as u32));
        // Padding repeats a row of the group; the mask hides it.
        picked.extend((0..length).map(|i| group[i.min(group.len() - 1)]));
        mask.extend((0..length).map(|i| if i < group.len() { 0.0 } else { f32::NEG_INFINITY }));
    }
    let picked = Tensor::from_vec(picked, count * length, device)?;
    let gather = |tensor: &Tensor, channels: usize| -> Result<Tensor> {
        let tensor = tensor.index_select(&picked, 0)?.reshape((count, length, heads, channels))?;
        Ok(tensor.transpose(1, 2)?.contiguous()?) // (groups, heads, length, channels)
    };
    let (q, k, v) = (gather(queries, channels)?, gather(keys, channels)?, gather(values, width)?);
    let mask = if kept.len() < count * length {
        Some(Tensor::from_vec(mask, (count, 1, 1, length), device)?.to_dtype(q.dtype())?)
    } else {
        None
    };
    let y = attend(&q, &k, &v, mask.as_ref())?; // (groups, heads, length, width)
    let y = y.transpose(1, 2)?.reshape((count * length, heads * width))?;
    let total = kept.len();
    Ok((y.index_select(&Tensor::from_vec(kept, total, device)?, 0)?, rows))
}
