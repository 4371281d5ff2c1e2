//! Converts sparse coefficients to the network's tensor and back, without loss.
//!
//! The rule: the coefficient (x, y, z) of band b, whose level is l (1 is the finest), goes to site 2^(l-1) · (x, y, z) and channel b. So a
//! site is a place in the shape, its channels are the bands in the order of their ids (coarse to fine), and no two coefficients have the
//! same place. A coarse band has slots only at every 2^(l-1)-th site; the other entries of its channel are zero and have no meaning.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};

use super::adjoint::waverecn_adjoint;
use super::layout::WaveletLayout;
use super::products;
use super::sparse::SparseWavelet;
use super::waverecn;
use crate::sparse::SparseConvTensor;
use crate::{Error, Result, memory};

impl SparseWavelet {
    /// A tensor with one site for each place that has a coefficient, and one channel for each band: features (sites, bands), batch size 1,
    /// in ascending (z, y, x) order. Features are normalised if the layout has a normalisation.
    ///
    /// # Errors
    /// If no coefficient was kept, or the device cannot hold the tensor; [`Error::Memory`] if memory has no room for a number for each site
    /// of the layout's grid.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let grid = shapes::sphere(0.5).to_grid(32)?;
    /// let coeffs = grid.encode(&WaveletConfig::fitting(grid.shape()))?;
    /// let x = coeffs.to_sparse_tensor(&Device::Cpu)?; // one channel a band
    /// assert_eq!(x.channels(), coeffs.layout().bands());
    /// let back = SparseWavelet::from_sparse_tensor(&x, 0, coeffs.layout())?;
    /// assert_eq!(back.len(), coeffs.len());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_sparse_tensor(&self, device: &Device) -> Result<SparseConvTensor> {
        if self.is_empty() {
            let (got, expected) = ("empty".into(), "at least one; a lower threshold keeps more".into());
            return Err(Error::Argument { op: "to_sparse_tensor", name: "the kept coefficients", got, expected });
        }
        let layout = self.layout();
        let [nx, ny, nz] = layout.sites();
        let site = |row: &[i32; 4]| {
            let stride = layout.band_stride(row[3]);
            let [x, y, z] = [row[0], row[1], row[2]].map(|c| c as usize * stride);
            (z * ny + y) * nx + x
        };
        let sites = [nx, ny, nz].into_iter().fold(1, usize::saturating_mul);
        let what = || format!("a search among {:?} sites", layout.sites());
        memory::check("to_sparse_tensor", what, sites.saturating_mul(size_of::<u32>()))?;
        const NONE: u32 = u32::MAX;
        let mut row_of_site = vec![NONE; sites];
        self.indices().iter().for_each(|row| row_of_site[site(row)] = 0);
        let mut coords = Vec::new();
        for (at, row) in row_of_site.iter_mut().enumerate().filter(|(_, row)| **row != NONE) {
            *row = coords.len() as u32;
            coords.push([0, (at / (nx * ny)) as i32, (at / nx % ny) as i32, (at % nx) as i32]);
        }
        let channels = layout.bands();
        let mut features = vec![0.0f32; coords.len() * channels];
        for (row, &value) in self.indices().iter().zip(self.values()) {
            features[row_of_site[site(row)] as usize * channels + row[3] as usize] = value;
        }
        if let Some(norm) = layout.normalization() {
            for (coord, features) in coords.iter().zip(features.chunks_exact_mut(channels)) {
                for (band, value) in
                    features.iter_mut().enumerate().filter(|&(band, _)| slot(layout, coord, band).is_some())
                {
                    *value = (*value - norm.mean[band]) / norm.std[band];
                }
            }
        }
        let features = Tensor::from_vec(features, (coords.len(), channels), device)?;
        SparseConvTensor::from_coords(features, coords, [nz, ny, nx], 1)
    }

    /// The coefficients of one batch element of a packed tensor: the inverse of [`SparseWavelet::to_sparse_tensor`],
    /// except for coefficients that are exactly zero, which are not kept. Entries without a slot are ignored.
    ///
    /// # Errors
    /// If the tensor does not have the layout's sites and channels, or a value is not finite.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let coefficients = shapes::sphere(0.5).to_grid(16)?.encode(&WaveletConfig::new().level(2))?;
    /// let packed = coefficients.to_sparse_tensor(&Device::Cpu)?;
    /// let back = SparseWavelet::from_sparse_tensor(&packed, 0, coefficients.layout())?;
    /// assert_eq!(back.decode()?, coefficients.decode()?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_sparse_tensor(tensor: &SparseConvTensor, batch: usize, layout: &WaveletLayout) -> Result<Self> {
        check_fit("from_sparse_tensor", tensor, layout)?;
        if batch >= tensor.batch_size() {
            let (got, expected) = (batch.to_string(), format!("below the batch size, {}", tensor.batch_size()));
            return Err(Error::Argument { op: "from_sparse_tensor", name: "batch", got, expected });
        }
        let features =
            tensor.features().to_dtype(candle_core::DType::F32)?.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
        let mut rows = Vec::new();
        for (coord, features) in tensor.coords().iter().zip(&features).filter(|(c, _)| c[0] as usize == batch) {
            for (band, &feature) in features.iter().enumerate() {
                let Some([x, y, z]) = slot(layout, coord, band) else { continue };
                let value = match layout.normalization() {
                    None => feature,
                    Some(norm) => {
                        let value = feature * norm.std[band] + norm.mean[band];
                        // A zero comes back as the rounding error of the two terms.
                        let rounding = 4.0 * f32::EPSILON * (norm.mean[band].abs() + (feature * norm.std[band]).abs());
                        if value.abs() <= rounding { 0.0 } else { value }
                    }
                };
                if value != 0.0 {
                    rows.push(([x as i32, y as i32, z as i32, band as i32], value));
                }
            }
        }
        let (indices, values) = rows.into_iter().unzip();
        Self::new(layout.clone(), indices, values)
    }
}

/// The place in its band for a site and channel, if there is a slot.
fn slot(layout: &WaveletLayout, &[_, z, y, x]: &[i32; 4], band: usize) -> Option<[usize; 3]> {
    let (stride, shape) = (layout.band_stride(band as i32), layout.band_shape(band as i32)?);
    let site = [x, y, z].map(|c| c as usize);
    let whole = (0..3).all(|axis| site[axis] % stride == 0 && site[axis] / stride < shape[axis]);
    whole.then(|| site.map(|c| c / stride))
}

fn check_fit(op: &'static str, tensor: &SparseConvTensor, layout: &WaveletLayout) -> Result<()> {
    let [nx, ny, nz] = layout.sites();
    if tensor.spatial_shape() != [nz, ny, nx] {
        let (got, expected) = (tensor.spatial_shape().to_vec(), format!("{:?} (z, y, x)", [nz, ny, nx]));
        return Err(Error::Shape { op, what: "the tensor's grid", got, expected });
    }
    if tensor.channels() != layout.bands() {
        let expected = format!("(sites, {}), a channel for each band", layout.bands());
        return Err(Error::Shape { op, what: "features", got: tensor.features().dims().to_vec(), expected });
    }
    Ok(())
}

/// The grids that a packed tensor describes, (batch, nx, ny, nz), differentiable with respect to its features. Use it for losses on the
/// written distances: with a [`truncation`](WaveletLayout::truncation) they level off. Missing sites and slots count as zero coefficients.
///
/// # Errors
/// If the tensor does not have the layout's sites and channels, or its features are on the CPU and not f32.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::wavelet::decode_features;
/// let coefficients = shapes::sphere(0.5).to_grid(16)?.encode(&WaveletConfig::new().level(2).truncation(None))?;
/// let packed = coefficients.to_sparse_tensor(&Device::Cpu)?;
/// let distances = decode_features(&packed, coefficients.layout())?; // batch, x, y, z
/// let decoded = coefficients.decode()?.to_tensor(&Device::Cpu)?;
/// let difference = (distances.get(0)? - decoded)?.abs()?.max_all()?.to_scalar::<f32>()?;
/// assert!(difference < 1e-5);
/// # Ok::<(), Error>(())
/// ```
pub fn decode_features(tensor: &SparseConvTensor, layout: &WaveletLayout) -> Result<Tensor> {
    check_fit("decode_features", tensor, layout)?;
    let mut features = tensor.features().contiguous()?;
    if let Some(norm) = layout.normalization() {
        let row = |values: &[f32]| Tensor::from_slice(values, (1, values.len()), tensor.device());
        features = features.broadcast_mul(&row(&norm.std)?)?.broadcast_add(&row(&norm.mean)?)?;
    }
    if !tensor.device().is_cpu() {
        return products::decode(&tensor.replace_feature(features)?, layout);
    }
    let coords: Arc<[[i32; 4]]> = tensor.coords().into();
    Ok(features.apply_op1(Decode { layout: layout.clone(), coords, batch_size: tensor.batch_size() })?)
}

/// From (sites, bands) to (batch, nx, ny, nz). This is linear, so its backward pass is its transpose.
struct Decode {
    layout: WaveletLayout,
    coords: Arc<[[i32; 4]]>,
    batch_size: usize,
}

impl Decode {
    /// Calls `f(site, band, place in the band)` for each slot of a batch element.
    fn slots(&self, batch: usize, mut f: impl FnMut(usize, usize, usize)) {
        for (site, coord) in self.coords.iter().enumerate().filter(|(_, c)| c[0] as usize == batch) {
            for band in 0..self.layout.bands() {
                if let (Some([x, y, z]), Some(shape)) =
                    (slot(&self.layout, coord, band), self.layout.band_shape(band as i32))
                {
                    f(site, band, (x * shape[1] + y) * shape[2] + z);
                }
            }
        }
    }
}

impl CustomOp1 for Decode {
    fn name(&self) -> &'static str {
        "decode_features"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let features = match layout.contiguous_offsets() {
            Some((start, end)) => &storage.as_slice::<f32>()?[start..end],
            None => candle_core::bail!("decode_features: the features are not contiguous"),
        };
        let [nx, ny, nz] = self.layout.frame().shape;
        let mut grids = Vec::with_capacity(self.batch_size * nx * ny * nz);
        for batch in 0..self.batch_size {
            let mut bands = self.layout.empty_bands();
            self.slots(batch, |site, band, place| bands[band][place] = features[site * self.layout.bands() + band]);
            grids.extend(waverecn(&self.layout.coefficients(bands))?.cropped(&[nx, ny, nz]).data);
        }
        Ok((CpuStorage::F32(grids), Shape::from((self.batch_size, nx, ny, nz))))
    }

    fn bwd(&self, features: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mut out = vec![0.0f32; features.elem_count()];
        for batch in 0..self.batch_size {
            let grad = grad.get(batch)?.flatten_all()?.to_vec1::<f32>()?;
            let bands = waverecn_adjoint(&grad, &self.layout);
            self.slots(batch, |site, band, place| out[site * self.layout.bands() + band] = bands[band][place]);
        }
        Ok(Some(Tensor::from_vec(out, features.shape(), features.device())?))
    }
}
