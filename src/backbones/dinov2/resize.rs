//! Bicubic interpolation (Keys 1981), with PyTorch's two kernels: of pictures, and of positions.

use candle_core::{DType, Tensor};

use crate::{Error, Result, memory};

/// What is done about detail that a smaller picture cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Nothing: the four nearest samples are blended, with Keys' a = -3/4, and the outermost sample goes on outside. PyTorch's `bicubic`.
    Aliased,
    /// The kernel, with a = -1/2, widens to the distance between new samples; outside is nothing. PyTorch's `antialias=True`, and Pillow.
    Smoothed,
}

/// The shares (to, from) that the samples along an axis have in new ones.
fn shares(from: usize, to: usize, detail: Detail) -> Vec<f32> {
    let step = from as f64 / to as f64;
    let (a, stretch) = match detail {
        Detail::Aliased => (-0.75, 1.0),
        Detail::Smoothed => (-0.5, step.max(1.0)),
    };
    let last = (from - 1) as f64;
    let mut shares = Vec::with_capacity(to * from);
    for at in 0..to {
        let centre = step * (at as f64 + 0.5) - 0.5;
        let mut row = vec![0.0; from];
        let mut sample = (centre - 2.0 * stretch).ceil();
        while sample < centre + 2.0 * stretch {
            let inside = sample.clamp(0.0, last);
            if detail == Detail::Aliased || inside == sample {
                row[inside as usize] += cubic(a, ((sample - centre) / stretch).abs());
            }
            sample += 1.0;
        }
        let sum: f64 = row.iter().sum();
        shares.extend(row.iter().map(|share| (share / sum) as f32));
    }
    shares
}

/// Keys' kernel at a distance of 0 to 2.
fn cubic(a: f64, x: f64) -> f64 {
    if x <= 1.0 { ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0 } else { ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a }
}

/// Resizes the last two axes: `x` (…, height, width) of at least one element becomes (…, `to[0]`, `to[1]`).
pub(super) fn resize(x: &Tensor, to: [usize; 2], detail: Detail) -> Result<Tensor> {
    let (lead, from) = x.dims().split_at(x.rank() - 2);
    let matrix = |axis: usize| {
        let shape = (to[axis], from[axis]);
        Tensor::from_vec(shares(from[axis], to[axis], detail), shape, x.device())
    };
    let planes: usize = lead.iter().product();
    let rows = x.reshape((planes * from[0], from[1]))?.matmul(&matrix(1)?.t()?)?; // (planes · height, to[1])
    let rows = rows.reshape((planes, from[0], to[1]))?;
    let resized = matrix(0)?.broadcast_left(planes)?.contiguous()?.matmul(&rows)?; // (planes, to[0], to[1])
    Ok(resized.reshape([lead, &to].concat())?)
}

/// A picture of another size: `pixels` (batch, channels, height, width) in 0..1 becomes (batch, channels, `size[0]`, `size[1]`), in 0..1.
/// It is what Pillow and PyTorch do with `bicubic` and antialiasing, and the way in which DINOv2's pictures are brought to their size.
///
/// # Errors
/// [`Error::Shape`] unless `pixels` has four axes and an element, [`Error::DType`] unless it is of floats, [`Error::Argument`] for a size
/// of no pixels, [`Error::Memory`] if the result does not fit.
///
/// ```
/// use wavemesh::backbones::resize_picture;
/// use wavemesh::prelude::*;
/// // A picture from its bytes, three for each pixel and rows from the top, as `notebook::Picture::rgb` returns them.
/// let (width, height, rgb) = (2, 1, [255u8, 0, 0, 0, 0, 255]);
/// let bytes = Tensor::from_slice(&rgb, (1, height, width, 3), &Device::Cpu)?;
/// let pixels = (bytes.permute((0, 3, 1, 2))?.to_dtype(DType::F32)? / 255.0)?; // (1, 3, height, width)
/// let pixels = resize_picture(&pixels, [28, 28])?;
/// assert_eq!(pixels.dims(), [1, 3, 28, 28]);
/// assert_eq!(pixels.i((0, 0, 14, 0))?.to_scalar::<f32>()?, 1.0); // red is on the left
/// # Ok::<(), Error>(())
/// ```
pub fn resize_picture(pixels: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    const OP: &str = "resize_picture";
    let &[batch, channels, height, width] = pixels.dims() else {
        return Err(not_a_picture(OP, pixels));
    };
    if pixels.elem_count() == 0 {
        return Err(not_a_picture(OP, pixels));
    }
    check_floats(OP, pixels)?;
    if size.contains(&0) {
        return Err(Error::argument(OP, "size", format!("{size:?}"), "at least one pixel along each side"));
    }
    for shape in [[batch, channels, height, size[1]], [batch, channels, size[0], size[1]]] {
        memory::elements::<f32>(OP, "a picture", &shape, 0)?;
    }
    for (from, to) in [(height, size[0]), (width, size[1])] {
        memory::elements::<f32>(OP, "the shares of samples", &[to, from], 0)?;
    }
    Ok(resize(&pixels.to_dtype(DType::F32)?, size, Detail::Smoothed)?.clamp(0f32, 1f32)?)
}

fn not_a_picture(op: &'static str, pixels: &Tensor) -> Error {
    let expected = "(batch, channels, height, width), each at least 1".into();
    Error::Shape { op, what: "pixels", got: pixels.dims().to_vec(), expected }
}

/// Checks that pixels are of a float type.
pub(super) fn check_floats(op: &'static str, pixels: &Tensor) -> Result<()> {
    if pixels.dtype().is_float() {
        return Ok(());
    }
    let expected = "a float type; bytes become pixels in 0..1 with `(x.to_dtype(DType::F32)? / 255.0)?`";
    Err(Error::DType { op, what: "pixels", got: pixels.dtype(), expected })
}
