//! [`wavedecn_tensor`] and [`waverecn_tensor`]: the transforms of tensors, on their device and differentiable.

use candle_core::Tensor;

use super::filters::Wavelet;
use super::mode::Mode;
use super::products::{Analysis, Synthesis, cropped};
use super::some_axes;
use super::transform::{chosen_level, warn_of_useless_levels};
use crate::{Error, Result};

/// The result of [`wavedecn_tensor`]: an approximation, and the details of each level.
#[derive(Clone, Debug)]
pub struct TensorCoeffs {
    /// Shape of the tensor that was decomposed.
    pub shape: Vec<usize>,
    /// The wavelet that decomposed it.
    pub wavelet: Wavelet,
    /// The mode that extended it.
    pub mode: Mode,
    /// The axes along which it was decomposed.
    pub axes: Vec<usize>,
    /// The band `a…a` of the coarsest level.
    pub approx: Tensor,
    /// The bands from the coarsest level to the finest, in the order of [`WaveletCoeffs::details`](super::WaveletCoeffs::details).
    pub details: Vec<Vec<Tensor>>,
}

/// [`wavedecn_axes`](super::wavedecn_axes) of a tensor, where the tensor is: on a GPU nothing is copied. The other axes are batches.
/// Each level is a matrix product along each axis, and so has gradients; on the CPU, `wavedecn_axes` is faster. With the extension
/// modes, names and values of PyWavelets, and the purpose of ptwt (PyTorch Wavelet Toolbox).
///
/// # Errors
/// If an axis does not exist or is named twice, an axis has length zero, `level` is above 64, or the tensor holds integers.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::wavelet::{wavedecn_tensor, waverecn_tensor};
/// let grids = Tensor::arange(0f32, 2.0 * 512.0, &Device::Cpu)?.reshape((2, 8, 8, 8))?;
/// let coeffs = wavedecn_tensor(&grids, &[1, 2, 3], &Wavelet::from_name("haar")?, Mode::Periodization, 2)?;
/// assert_eq!(coeffs.approx.dims(), [2, 2, 2, 2]);
/// assert_eq!(coeffs.details[1][0].dims(), [2, 4, 4, 4]); // the band aad of the finest level
/// let back = waverecn_tensor(&coeffs)?;
/// assert!((back - grids)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-3);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias("wavedec3", "ptwt"))]
pub fn wavedecn_tensor(
    data: &Tensor,
    axes: &[usize],
    wavelet: &Wavelet,
    mode: Mode,
    level: impl Into<Option<usize>>,
) -> Result<TensorCoeffs> {
    const OP: &str = "wavedecn_tensor";
    some_axes::check(OP, axes, data.rank())?;
    check_dtype(OP, data)?;
    let along: Vec<usize> = axes.iter().map(|&axis| data.dims()[axis]).collect();
    if data.elem_count() == 0 {
        let expected = "no axis of length 0".to_string();
        return Err(Error::Shape { op: OP, what: "data", got: data.dims().to_vec(), expected });
    }
    let level = chosen_level(OP, level.into(), &along, wavelet)?;
    let mut details = Vec::new();
    let mut approx = data.clone();
    for _ in 0..level {
        let mut bands = vec![approx];
        for &axis in axes {
            let analysis = Analysis::new(wavelet, mode, &bands[0], axis)?;
            bands = bands.iter().map(|band| analysis.apply(band)).collect::<Result<Vec<_>>>()?.concat();
        }
        details.push(bands.split_off(1));
        approx = bands.swap_remove(0);
    }
    details.reverse();
    warn_of_useless_levels(&along, wavelet, mode, level);
    let (shape, axes, wavelet) = (data.dims().to_vec(), axes.to_vec(), wavelet.clone());
    Ok(TensorCoeffs { shape, wavelet, mode, axes, approx, details })
}

/// The inverse of [`wavedecn_tensor`], with the shape of the tensor that was decomposed.
///
/// # Errors
/// If an axis does not exist or is named twice, the shapes of the bands do not fit each other, or they make less than the whole tensor.
///
/// ```
/// use wavemesh::prelude::*;
/// use wavemesh::wavelet::{wavedecn_tensor, waverecn_tensor};
/// let signal = Tensor::new(&[[1f32, 3.0, 2.0, 2.0]], &Device::Cpu)?;
/// let mut coeffs = wavedecn_tensor(&signal, &[1], &Wavelet::from_name("haar")?, Mode::Symmetric, 1)?;
/// coeffs.details[0][0] = coeffs.details[0][0].zeros_like()?; // without details, pairs become their mean
/// assert_eq!(waverecn_tensor(&coeffs)?.round()?.to_vec2::<f32>()?, [[2.0, 2.0, 2.0, 2.0]]);
/// # Ok::<(), Error>(())
/// ```
#[doc(alias("waverec3", "ptwt"))]
pub fn waverecn_tensor(coeffs: &TensorCoeffs) -> Result<Tensor> {
    const OP: &str = "waverecn_tensor";
    let axes = &coeffs.axes;
    some_axes::check(OP, axes, coeffs.approx.rank())?;
    check_dtype(OP, &coeffs.approx)?;
    let mut approx = coeffs.approx.clone();
    for details in &coeffs.details {
        let wanted = (1 << axes.len()) - 1;
        let Some(first) = details.first().filter(|_| details.len() == wanted) else {
            let expected = format!("{wanted} bands of details in each level");
            return Err(Error::Shape { op: OP, what: "details", got: vec![details.len()], expected });
        };
        let shape = first.dims();
        let longer = |axis: usize| usize::from(axes.contains(&axis));
        let fits = |(axis, (&a, &d)): (usize, (&usize, &usize))| (d..=d + longer(axis)).contains(&a);
        if approx.rank() != shape.len() || !approx.dims().iter().zip(shape).enumerate().all(fits) {
            let expected = format!("{shape:?} as its details, or one more along an axis");
            return Err(Error::Shape { op: OP, what: "approx", got: approx.dims().to_vec(), expected });
        }
        if let Some(other) = details.iter().find(|band| band.dims() != shape) {
            let expected = format!("{shape:?}, as the first band of its level");
            return Err(Error::Shape { op: OP, what: "a band", got: other.dims().to_vec(), expected });
        }
        // A synthesis may return one sample more than the next level has coefficients.
        let mut bands = vec![cropped(approx, shape)?];
        bands.extend(details.iter().cloned());
        for &axis in axes.iter().rev() {
            let synthesis = Synthesis::new(&coeffs.wavelet, coeffs.mode, &bands[0], axis)?;
            bands = bands.chunks_exact(2).map(|pair| synthesis.apply(pair)).collect::<Result<_>>()?;
        }
        approx = bands.swap_remove(0);
    }
    let longer = usize::from(!coeffs.details.is_empty());
    let fits = |(&found, &shape): (&usize, &usize)| (shape..=shape + longer).contains(&found);
    if approx.rank() != coeffs.shape.len() || !approx.dims().iter().zip(&coeffs.shape).all(fits) {
        let expected = format!("{:?}, which is what its bands make", approx.dims());
        return Err(Error::Shape { op: OP, what: "coeffs.shape", got: coeffs.shape.clone(), expected });
    }
    cropped(approx, &coeffs.shape)
}

fn check_dtype(op: &'static str, data: &Tensor) -> Result<()> {
    if data.dtype().is_float() {
        return Ok(());
    }
    Err(Error::DType { op, what: "data", got: data.dtype(), expected: "floating point, such as f32" })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::wavelet::{wavedecn_axes, waverecn};

    fn largest(a: &Tensor, b: &Tensor) -> Result<f64> {
        Ok((a - b)?.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar()?)
    }

    /// Odd sides, axes in an order of their own, and every mode.
    #[test]
    fn tensors_have_the_bands_of_arrays() -> Result<()> {
        let (shape, axes) = ([2, 15, 3, 18], [3, 1]);
        let values: Vec<f64> =
            (0..shape.iter().product()).map(|i: usize| (i as f64 * 0.37).sin() + 0.1 * (i % 7) as f64).collect();
        let data = Tensor::from_slice(&values, &shape, &Device::Cpu)?;
        for mode in Mode::ALL {
            let wavelet = Wavelet::from_name("bior4.4")?;
            let wanted = wavedecn_axes(&values, &shape, &axes, &wavelet, mode, 2)?;
            let found = wavedecn_tensor(&data, &axes, &wavelet, mode, 2)?;
            let bands = std::iter::once(&found.approx).chain(found.details.iter().flatten());
            assert_eq!(bands.clone().count(), wanted.bands().count());
            for (found, wanted) in bands.zip(wanted.bands()) {
                let wanted = Tensor::from_slice(&wanted.data, wanted.shape.as_slice(), &Device::Cpu)?;
                assert_eq!(found.dims(), wanted.dims());
                assert!(largest(found, &wanted)? < 1e-10, "{}", mode.name());
            }
            assert!(largest(&waverecn_tensor(&found)?, &data)? < 1e-10, "{}", mode.name());
            let back = waverecn(&wanted)?;
            assert!(back.shape.iter().zip(shape).all(|(&found, n)| found == n || found == n + 1));
        }
        Ok(())
    }

    /// The transform is linear: the gradient of the sum of weighted bands does not depend on the data, and is that of differences.
    #[test]
    fn bands_have_gradients() -> Result<()> {
        let data = Var::from_tensor(&Tensor::arange(0f64, 24.0, &Device::Cpu)?.reshape((2, 12))?)?;
        let wavelet = Wavelet::from_name("db2")?;
        let loss = |data: &Tensor| -> Result<Tensor> {
            let coeffs = wavedecn_tensor(data, &[1], &wavelet, Mode::Symmetric, 1)?;
            Ok((coeffs.approx.sum_all()? + (coeffs.details[0][0].sum_all()? * 3.0)?)?)
        };
        let gradients = loss(data.as_tensor())?.backward()?;
        let found = gradients.get(&data).expect("the data are in the loss").flatten_all()?.to_vec1::<f64>()?;
        for (place, found) in found.into_iter().enumerate() {
            let mut step = vec![0f64; 24];
            step[place] = 1.0;
            let moved = (data.as_tensor() + Tensor::from_vec(step, (2, 12), &Device::Cpu)?)?;
            let difference = (loss(&moved)? - loss(data.as_tensor())?)?.to_scalar::<f64>()?;
            assert!((difference - found).abs() < 1e-9, "{place}: {difference} {found}");
        }
        Ok(())
    }

    #[test]
    fn wrong_input_is_named() -> Result<()> {
        let haar = Wavelet::from_name("haar")?;
        let ones = Tensor::ones((4, 4), DType::F32, &Device::Cpu)?;
        let said = |result: Result<TensorCoeffs>| result.expect_err("this is wrong").to_string();
        let made = |data: &Tensor, axes: &[usize], level| wavedecn_tensor(data, axes, &haar, Mode::Zero, level);
        assert!(said(made(&ones, &[2], 1)).contains("each once"));
        assert!(said(made(&ones, &[0], 65)).contains("64"));
        assert!(said(made(&ones.to_dtype(DType::U32)?, &[0], 1)).contains("floating point"));
        assert!(said(made(&Tensor::zeros((0, 4), DType::F32, &Device::Cpu)?, &[1], 1)).contains("length 0"));
        let mut coeffs = made(&ones, &[0, 1], 1)?;
        coeffs.details[0].pop();
        assert!(waverecn_tensor(&coeffs).expect_err("a band is missing").to_string().contains("3 bands"));
        let mut coeffs = made(&ones, &[0, 1], 1)?;
        coeffs.details[0][1] = ones;
        assert!(waverecn_tensor(&coeffs).expect_err("a band is too large").to_string().contains("[2, 2]"));
        Ok(())
    }
}
