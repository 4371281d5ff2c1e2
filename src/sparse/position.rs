//! Positional encodings, which give a network the place of each site.

use candle_core::{D, Tensor};

use super::elements::wide_of;
use super::tensor::SparseConvTensor;
use crate::{Error, Result};

impl SparseConvTensor {
    /// Sines and cosines of each site's (z, y, x) (or the axes it has): (sites, `channels`), f32. Each axis has ⌊channels / axes / 2⌋
    /// frequencies 10000^(−i/n), with sines before cosines; the remaining channels are zero. TRELLIS' `AbsolutePositionEmbedder`.
    ///
    /// # Errors
    /// Too few channels for a sine and a cosine of each axis.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let x = SparseConvTensor::from_coords(Tensor::new(&[[1f32]], &Device::Cpu)?, vec![[0, 0, 0, 2]], [4; 3], 1)?;
    /// let code = x.position_encoding(6)?.to_vec2::<f32>()?; // a sine and a cosine of z = 0, y = 0 and x = 2
    /// assert_eq!(code, [[0.0, 1.0, 0.0, 1.0, 2f32.sin(), 2f32.cos()]]);
    /// assert!(x.position_encoding(5).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn position_encoding(&self, channels: usize) -> Result<Tensor> {
        let axes = self.ndim();
        let count = channels / axes / 2;
        if count == 0 {
            return Err(Error::Argument {
                op: "position_encoding",
                name: "channels",
                got: channels.to_string(),
                expected: format!("{} or more: a sine and a cosine for each axis", 2 * axes),
            });
        }
        let frequencies: Vec<f64> = (0..count).map(|i| 10000f64.powf(-(i as f64) / count as f64)).collect();
        let mut values = Vec::with_capacity(self.len() * channels);
        for site in self.coords() {
            for &at in &site[4 - axes..] {
                values.extend(frequencies.iter().map(|f| (f64::from(at) * f).sin() as f32));
                values.extend(frequencies.iter().map(|f| (f64::from(at) * f).cos() as f32));
            }
            values.resize(values.len() + channels - 2 * axes * count, 0.0);
        }
        Ok(Tensor::from_vec(values, (self.len(), channels), self.device())?)
    }

    /// Turns each pair of channels of queries or keys (sites, heads, C) by an angle that depends on the site's position, so that their
    /// products depend only on differences of positions (Su et al. 2021). Each axis turns ⌊C / 2 / axes⌋ of the C/2 pairs, with frequencies
    /// 10000^(−i/n); the remaining pairs do not change. TRELLIS' `RotaryPositionEmbedder`. Differentiable.
    ///
    /// # Errors
    /// Another shape, or an odd number of channels.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let coords = vec![[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]];
    /// let x = SparseConvTensor::from_coords(Tensor::ones((3, 1), DType::F32, &Device::Cpu)?, coords, [1, 1, 4], 1)?;
    /// let turned = x.rotate(&Tensor::ones((3, 1, 6), DType::F32, &Device::Cpu)?)?.squeeze(1)?; // sites, heads, C
    /// // Products depend on differences of positions alone: of sites 0 and 1 it is that of sites 1 and 2.
    /// let product = |a: usize, b: usize| (turned.get(a)? * turned.get(b)?)?.sum_all()?.to_scalar::<f32>();
    /// assert!((product(0, 1)? - product(1, 2)?).abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rotate(&self, queries: &Tensor) -> Result<Tensor> {
        let &[rows, heads, channels] = queries.dims() else {
            return Err(self.bad_rotation(queries));
        };
        if rows != self.len() || channels % 2 != 0 || channels == 0 {
            return Err(self.bad_rotation(queries));
        }
        let (axes, pairs) = (self.ndim(), channels / 2);
        let count = pairs / axes;
        let mut angles = Vec::with_capacity(rows * pairs);
        for site in self.coords() {
            for &at in &site[4 - axes..] {
                angles.extend((0..count).map(|i| f64::from(at) * 10000f64.powf(-(i as f64) / count as f64)));
            }
            angles.resize(angles.len() + pairs - axes * count, 0.0);
        }
        let dtype = wide_of(queries.dtype());
        let table = |f: fn(f64) -> f64| -> Result<Tensor> {
            let values: Vec<f64> = angles.iter().map(|&angle| f(angle)).collect();
            Ok(Tensor::from_vec(values, (rows, 1, pairs), self.device())?.to_dtype(dtype)?)
        };
        let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
        let split = queries.to_dtype(dtype)?.contiguous()?.reshape((rows, heads, pairs, 2))?;
        let [even, odd] = [0, 1].map(|i| split.narrow(D::Minus1, i, 1).and_then(|part| part.squeeze(3)));
        let (even, odd) = (even?, odd?);
        let turned = [
            (even.broadcast_mul(&cos)? - odd.broadcast_mul(&sin)?)?,
            (even.broadcast_mul(&sin)? + odd.broadcast_mul(&cos)?)?,
        ];
        Ok(Tensor::stack(&turned, 3)?.reshape((rows, heads, channels))?.to_dtype(queries.dtype())?)
    }

    fn bad_rotation(&self, queries: &Tensor) -> Error {
        Error::Shape {
            op: "rotate",
            what: "queries",
            got: queries.dims().to_vec(),
            expected: format!("({}, heads, channels), an even number of channels", self.len()),
        }
    }
}
