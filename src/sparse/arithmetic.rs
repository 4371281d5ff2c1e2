//! Arithmetic on sparse tensors with the same sites, conversions of their features, and their text form.

use std::fmt;
use std::ops::{Add, Mul, Sub};

use candle_core::{DType, Device, Tensor};

use super::kernel_map::KernelMap;
use super::tensor::SparseConvTensor;
use crate::Result;

impl SparseConvTensor {
    /// The positive part of each feature.
    ///
    /// # Errors
    /// An error of candle, such as for a type without arithmetic.
    ///
    /// ```
    /// # use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[-1f32, 2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0]], [1; 3], 1)?;
    /// let sum = (&x.relu()? + &x)?;
    /// assert_eq!(sum.features().to_vec2::<f32>()?, [[-1.0, 4.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn relu(&self) -> Result<Self> {
        self.replace_feature(self.features().relu()?)
    }

    /// The same sites with features of another float type.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) for integers.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.to_dtype(DType::F16)?.dtype(), DType::F16);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        self.replace_feature(self.features().to_dtype(dtype)?)
    }

    /// The same sites with features on another device.
    ///
    /// # Errors
    /// An error of candle if it cannot copy.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let there = x.to_device(&best_device()?)?; // a GPU, if there is one
    /// assert_eq!(there.to_device(&Device::Cpu)?.features().to_vec2::<f32>()?, [[1.0], [2.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        self.replace_feature(self.features().to_device(device)?)
    }

    /// The sum with another tensor on the same sites, as in a residual connection. Differentiable.
    ///
    /// # Errors
    /// Tensors with other sites or another number of channels.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert_eq!(x.add(&x)?.features().to_vec2::<f32>()?, [[2.0], [4.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.expect_same_sites("SparseConvTensor::add", "other", other)?;
        self.replace_feature((self.features() + other.features())?)
    }

    fn combined(
        &self,
        other: &Self,
        with: impl FnOnce(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Self> {
        self.expect_same_sites("an operation on sparse tensors", "other", other)?;
        self.replace_feature(with(self.features(), other.features())?)
    }
}

/// The sum of tensors with the same sites, as a `Result` like that of candle's operators.
impl Add for &SparseConvTensor {
    type Output = Result<SparseConvTensor>;

    fn add(self, other: Self) -> Self::Output {
        self.combined(other, |a, b| a + b)
    }
}

/// The difference of tensors with the same sites.
impl Sub for &SparseConvTensor {
    type Output = Result<SparseConvTensor>;

    fn sub(self, other: Self) -> Self::Output {
        self.combined(other, |a, b| a - b)
    }
}

/// The product, feature by feature, of tensors with the same sites.
impl Mul for &SparseConvTensor {
    type Output = Result<SparseConvTensor>;

    fn mul(self, other: Self) -> Self::Output {
        self.combined(other, |a, b| a * b)
    }
}

/// All features times a number.
impl Mul<f64> for &SparseConvTensor {
    type Output = Result<SparseConvTensor>;

    fn mul(self, factor: f64) -> Self::Output {
        self.replace_feature((self.features() * factor)?)
    }
}

impl fmt::Debug for SparseConvTensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [d, h, w] = self.spatial_shape();
        let keys: Vec<&str> = self.indice_dict().keys().map(String::as_str).collect();
        write!(
            f,
            "SparseConvTensor({} sites × {} channels of {:?} on {:?}, grid {d}×{h}×{w}, batch {}",
            self.len(),
            self.channels(),
            self.dtype(),
            self.device().location(),
            self.batch_size()
        )?;
        if keys.is_empty() { f.write_str(")") } else { write!(f, ", keys {keys:?})") }
    }
}

impl fmt::Debug for KernelMap {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [z, y, x] = self.kernel_size();
        write!(f, "KernelMap({z}×{y}×{x}, {} → {} sites)", self.input_coords().len(), self.output_coords().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::{ConvConfig, SparseModule, SubMConv3d};

    fn tensor(sites: &[[i32; 4]]) -> SparseConvTensor {
        let features = Tensor::arange(0f32, sites.len() as f32, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        SparseConvTensor::from_coords(features, sites.to_vec(), [64; 3], 1).unwrap()
    }

    #[test]
    fn operators_need_the_same_sites() {
        let (a, b) = (tensor(&[[0, 1, 2, 3], [0, 4, 5, 6]]), tensor(&[[0, 1, 2, 3], [0, 4, 5, 7]]));
        let values =
            |x: Result<SparseConvTensor>| x.unwrap().features().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&a + &a), [0.0, 2.0]);
        assert_eq!(values(&a - &a), [0.0, 0.0]);
        assert_eq!(values(&a * &a), [0.0, 1.0]);
        assert_eq!(values(&a * 3.0), [0.0, 3.0]);
        assert!((&a + &b).is_err());
        assert_eq!(a.to_dtype(DType::F16).unwrap().dtype(), DType::F16);
        assert!(a.to_dtype(DType::U8).is_err());
    }

    #[test]
    fn tensors_and_maps_print_one_line() {
        let sites: Vec<[i32; 4]> = (0..64).flat_map(|z| (0..64).map(move |y| [0, z, y, 7])).collect();
        let x = tensor(&sites);
        let vb = candle_nn::VarBuilder::zeros(DType::F32, &Device::Cpu);
        let y = SubMConv3d::new(1, 2, 3, ConvConfig::new().key("a"), vb).unwrap().forward(&x).unwrap();
        let text = format!("{y:?}");
        assert!(
            text.contains("4096 sites × 2 channels") && text.contains("keys [\"a\"]") && text.len() < 150,
            "{text}"
        );
        assert_eq!(format!("{:?}", y.indice_dict()["a"].map()), "KernelMap(3×3×3, 4096 → 4096 sites)");
    }
}
