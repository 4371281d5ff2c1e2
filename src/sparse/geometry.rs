//! The geometry of a convolution: which input cell each output cell reads through each kernel offset.
//!
//! With stride s, padding p and dilation d, offset r of the kernel (0 ≤ r < k on each axis) joins input cell i and output
//! cell o when
//!
//! - convolution: `i = o·s − p + r·d`,
//! - transposed convolution: `o = i·s − p + r·d`.
//!
//! A submanifold convolution is a convolution with s = 1 and p = d·(k/2). The formulas and the output sizes are those of PyTorch's `Conv3d`
//! and `ConvTranspose3d`. The sets of output sites are those of spconv 2 ([`OutputSites::Reachable`]) or of MinkowskiEngine and TorchSparse
//! ([`OutputSites::Strided`]).

use crate::{Error, Result};

/// Which sites of a strided convolution's output are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutputSites {
    /// Every site that the kernel reaches from an active input site, as in spconv. The default.
    #[default]
    Reachable,
    /// Every distinct `floor(site / stride)`, on a grid of `ceil(size / stride)`, as in MinkowskiEngine and TorchSparse. No site is lost,
    /// and layers with the same stride have the same output sites, whatever their kernel and padding.
    Strided,
}

/// What kind of convolution a map belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The output sites are the input sites; stride and padding follow from the kernel.
    Submanifold,
    /// A convolution: site o is active if `i = o·stride − padding + r·dilation` holds for some active i.
    Regular,
    /// A transposed convolution: `o = i·stride − padding + r·dilation`.
    Transposed,
}

/// Everything that decides the pairs of a kernel map, except the sites. Triples are (z, y, x).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub kind: Kind,
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub padding: [usize; 3],
    pub dilation: [usize; 3],
    pub output_sites: OutputSites,
}

/// The largest kernel, stride, padding or dilation on an axis. It keeps coordinates far from overflow.
const MAX_EXTENT: usize = 1 << 15;

impl Geometry {
    /// Checks the ranges, and sets a submanifold kernel's stride and padding.
    pub fn checked(mut self, op: &'static str) -> Result<Self> {
        for (name, values, least) in [
            ("kernel_size", self.kernel, 1),
            ("stride", self.stride, 1),
            ("padding", self.padding, 0),
            ("dilation", self.dilation, 1),
        ] {
            if values.iter().any(|v| !(least..=MAX_EXTENT).contains(v)) {
                return Err(Error::Argument {
                    op,
                    name,
                    got: format!("{values:?}"),
                    expected: format!("{least} to {MAX_EXTENT} on each axis"),
                });
            }
        }
        let volume = self.kernel.iter().product::<usize>();
        if volume > MAX_EXTENT {
            return Err(Error::Argument {
                op,
                name: "kernel_size",
                got: format!("{:?} ({volume} offsets)", self.kernel),
                expected: format!("at most {MAX_EXTENT} offsets"),
            });
        }
        if self.kind == Kind::Submanifold {
            if self.kernel.iter().any(|k| k % 2 == 0) {
                return Err(Error::Argument {
                    op,
                    name: "kernel_size",
                    got: format!("{:?}", self.kernel),
                    expected: "odd sizes: a submanifold kernel has a centre".into(),
                });
            }
            self.stride = [1; 3];
            self.padding = std::array::from_fn(|a| self.kernel[a] / 2 * self.dilation[a]);
            self.output_sites = OutputSites::Reachable;
        }
        if self.kind == Kind::Transposed && self.output_sites == OutputSites::Strided {
            return Err(Error::Argument {
                op,
                name: "output_sites",
                got: "Strided".into(),
                expected: "Reachable: the strided rule is one of convolutions".into(),
            });
        }
        Ok(self)
    }

    /// Number of kernel offsets.
    pub fn volume(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Kernel offsets (rz, ry, rx) in the order of the weights.
    pub fn offsets(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [kz, ky, kx] = self.kernel;
        (0..kz).flat_map(move |z| (0..ky).flat_map(move |y| (0..kx).map(move |x| [z, y, x])))
    }

    /// The output's spatial shape: as PyTorch computes it, or the smallest that holds every `floor(site / stride)`.
    pub fn output_shape(&self, op: &'static str, input: [usize; 3]) -> Result<[usize; 3]> {
        if self.output_sites == OutputSites::Strided {
            return Ok(std::array::from_fn(|a| input[a].div_ceil(self.stride[a])));
        }
        let mut output = [0; 3];
        for a in 0..3 {
            let reach = self.dilation[a] * (self.kernel[a] - 1) + 1;
            let size = match self.kind {
                Kind::Submanifold => Some(input[a]),
                Kind::Regular => (input[a] + 2 * self.padding[a]).checked_sub(reach).map(|n| n / self.stride[a] + 1),
                Kind::Transposed => {
                    ((input[a] - 1) * self.stride[a] + reach).checked_sub(2 * self.padding[a]).filter(|&n| n > 0)
                }
            };
            output[a] = size.ok_or_else(|| Error::Argument {
                op,
                name: "kernel_size",
                got: format!(
                    "{:?} with padding {:?} and dilation {:?} on a grid of {input:?}",
                    self.kernel, self.padding, self.dilation
                ),
                expected: format!("an output of at least one cell on axis {}; change the padding", ["z", "y", "x"][a]),
            })?;
        }
        Ok(output)
    }

    /// The rule by which an output cell finds its input cells.
    pub fn gather(&self) -> SourceRule {
        let steps = Steps { stride: self.stride, padding: self.padding, dilation: self.dilation };
        match self.kind {
            Kind::Submanifold | Kind::Regular => SourceRule::Multiply(steps),
            Kind::Transposed => SourceRule::Divide(steps),
        }
    }
}

/// Stride, padding and dilation of a rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    pub stride: [usize; 3],
    pub padding: [usize; 3],
    pub dilation: [usize; 3],
}

/// How the coordinate that is read follows from the one that is written, for one axis.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SourceRule {
    /// `source = target·s − p + r·d`
    Multiply(Steps),
    /// `source = (target + p − r·d) / s` if that is a whole number
    Divide(Steps),
}

impl SourceRule {
    /// The rule with the roles of source and target exchanged.
    pub fn reversed(self) -> Self {
        match self {
            Self::Multiply(steps) => Self::Divide(steps),
            Self::Divide(steps) => Self::Multiply(steps),
        }
    }

    /// The source coordinate on `axis`, which may be outside the grid; `None` if it is not a whole number.
    #[inline]
    pub fn source(&self, axis: usize, target: i64, r: usize) -> Option<i64> {
        match self {
            Self::Multiply(Steps { stride, padding, dilation }) => {
                Some(target * stride[axis] as i64 - padding[axis] as i64 + (r * dilation[axis]) as i64)
            }
            Self::Divide(Steps { stride, padding, dilation }) => {
                let scaled = target + padding[axis] as i64 - (r * dilation[axis]) as i64;
                (scaled % stride[axis] as i64 == 0).then(|| scaled / stride[axis] as i64)
            }
        }
    }
}

/// A size for each of N axes, the last ones of (z, y, x). It can be made from one `usize` for all axes, from `[z, y, x]` or from `(z, y,
/// x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const N: usize>(pub [usize; N]);

/// [`Size`] of three axes (z, y, x).
pub type Size3 = Size<3>;

impl<const N: usize> From<usize> for Size<N> {
    fn from(n: usize) -> Self {
        Self([n; N])
    }
}

impl<const N: usize> From<[usize; N]> for Size<N> {
    fn from(sizes: [usize; N]) -> Self {
        Self(sizes)
    }
}

impl From<(usize, usize, usize)> for Size<3> {
    fn from((z, y, x): (usize, usize, usize)) -> Self {
        Self([z, y, x])
    }
}

impl From<(usize, usize)> for Size<2> {
    fn from((y, x): (usize, usize)) -> Self {
        Self([y, x])
    }
}

/// Sizes of N axes as sizes of (z, y, x); missing axes get `other`.
pub(super) fn three<const N: usize>(sizes: [usize; N], other: usize) -> [usize; 3] {
    std::array::from_fn(|axis| if axis + N >= 3 { sizes[axis + N - 3] } else { other })
}

/// Chooses among a layer's names for 1, 2 and 3 axes. Other numbers of axes do not compile.
pub(super) const fn name_of<const N: usize>(names: [&'static str; 3]) -> &'static str {
    const { assert!(N >= 1 && N <= 3, "sparse layers have 1, 2 or 3 axes") };
    names[N - 1]
}
