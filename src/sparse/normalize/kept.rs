//! What is kept of a normalisation's input for its backward pass: the rounded normalised values.
//!
//! If the inputs themselves were rounded, values that lie far from zero but close together would become equal.

use pulp::{Simd, WithSimd};

use super::number::Number;
use super::{Scaling, chunk, wide};
use crate::parallel;
use crate::sparse::backend::simd;

/// `(x − mean)·inverse`, each value rounded to nearest. If that would move `value·weight + bias` of a `knee` (weight, bias) to the other
/// side of zero, the value is rounded the other way: so the ReLU is open and closed where it was before.
pub(super) fn kept<X: Number, K: Number<Wide = X::Wide>>(
    scaling: &Scaling,
    x: &[X],
    knee: Option<[&[X::Wide]; 2]>,
) -> Vec<K> {
    let channels = scaling.mean.len();
    let [mean, inverse]: [Vec<X::Wide>; 2] =
        [&scaling.mean, &scaling.inverse].map(|values| wide(values.iter().copied()));
    let mut kept = vec![K::from_f64(0.0); x.len()];
    let size = chunk(channels);
    parallel::chunks_mut_with(&mut kept, size, &|scratch, i, kept| {
        let x = &x[i * size..i * size + kept.len()];
        simd::dispatch(KeptChunk { x, mean: &mean, inverse: &inverse, knee, scratch, kept });
    });
    kept
}

struct KeptChunk<'a, X: Number, K> {
    x: &'a [X],
    mean: &'a [X::Wide],
    inverse: &'a [X::Wide],
    knee: Option<[&'a [X::Wide]; 2]>,
    scratch: &'a mut [Vec<X::Wide>; 2],
    kept: &'a mut [K],
}

impl<X: Number, K: Number<Wide = X::Wide>> WithSimd for KeptChunk<'_, X, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, mean, inverse, knee, scratch: [normed, again], kept } = self;
        let channels = mean.len();
        let inverse = &inverse[..channels];
        normed.resize(x.len(), X::Wide::default());
        let rows = X::widen(x, again).chunks_exact(channels);
        for (normed, x) in normed.chunks_exact_mut(channels).zip(rows) {
            for c in 0..channels {
                normed[c] = (x[c] - mean[c]) * inverse[c];
            }
        }
        K::narrow(normed, kept);
        let Some([weight, bias]) = knee else { return };
        let (weight, bias) = (&weight[..channels], &bias[..channels]);
        let mut wrong = Vec::new();
        let zero = X::Wide::default();
        let rows = K::widen(kept, again).chunks_exact(channels);
        for (row, (rounded, exact)) in rows.zip(normed.chunks_exact(channels)).enumerate() {
            for c in 0..channels {
                let open = |value: X::Wide| value * weight[c] + bias[c] > zero;
                if open(rounded[c]) != open(exact[c]) {
                    wrong.push((row * channels + c, exact[c] > rounded[c]));
                }
            }
        }
        for (at, above) in wrong {
            kept[at] = kept[at].beside(above);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    /// Tests values around the knees of three channels; rounding to nearest would move some of them to the other side.
    fn stays_on_its_side<K: Number<Wide = f32>>(bits: i32) {
        let scaling = Scaling::here(vec![3.0, 0.0, -1.0], vec![2.0, 1.0, 0.5], true);
        let (weight, bias) = ([1.5f32, -0.7, 1.0], [-0.9f32, 0.3, 0.0]);
        let x: Vec<f32> = (0..30_000)
            .map(|i| {
                let c = i % 3;
                let knee = f64::from(-bias[c] / weight[c]) + (i as f64 * 0.37).sin() * 2f64.powi(-bits);
                (knee / scaling.inverse[c] + scaling.mean[c]) as f32
            })
            .collect();
        let nearest: Vec<K> = kept(&scaling, &x, None);
        let kept: Vec<K> = kept(&scaling, &x, Some([&weight, &bias]));
        let mut moved = 0;
        for (i, (kept, nearest)) in kept.iter().zip(&nearest).enumerate() {
            let c = i % 3;
            let exact = (x[i] - scaling.mean[c] as f32) * scaling.inverse[c] as f32;
            let [kept, nearest] = [kept, nearest].map(|value| value.to_f64() as f32);
            let open = |value: f32| value * weight[c] + bias[c] > 0.0;
            assert_eq!(open(kept), open(exact), "{exact} is kept as {kept}");
            assert!((kept - exact).abs() <= exact.abs() * 2f32.powi(-bits) + 1e-7, "{exact} is kept as {kept}");
            moved += usize::from(kept != nearest);
        }
        assert!(moved > 100, "only {moved} values lay where it matters");
    }

    #[test]
    fn rounding_leaves_the_relu_open_where_it_was() {
        stays_on_its_side::<f16>(10);
        stays_on_its_side::<bf16>(7);
    }
}
