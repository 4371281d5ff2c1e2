//! [`Mode`]: how a signal continues beyond its ends.

use crate::{Error, Result};

/// The nine signal extension modes of PyWavelets. All but [`Mode::Periodization`] give (n + taps - 1) / 2 coefficients
/// from n samples; it gives n / 2, rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// `0 0 | a b c | 0 0`
    Zero,
    /// `a a | a b c | c c`
    Constant,
    /// `b a | a b c | c b`
    Symmetric,
    /// `b c | a b c | a b`
    Periodic,
    /// Straight lines through the first and the last two samples.
    Smooth,
    /// `c b | a b c | b a`
    Reflect,
    /// `-b -a | a b c | -c -b`
    Antisymmetric,
    /// `2a-c 2a-b | a b c | 2c-b 2c-a`
    Antireflect,
    /// Like [`Mode::Periodic`], with the fewest coefficients; a signal of odd length repeats its last sample once.
    #[default]
    Periodization,
}

/// A sample at any position, expressed by samples of the signal.
pub(super) enum Extended {
    /// Equal to a sample.
    Sample(usize),
    /// A weighted sum of samples; zero if there are none.
    Sum(Vec<(usize, f64)>),
}

named!(Mode);

impl Mode {
    /// All nine, in PyWavelets' order.
    pub const ALL: [Mode; 9] = [
        Mode::Zero,
        Mode::Constant,
        Mode::Symmetric,
        Mode::Periodic,
        Mode::Smooth,
        Mode::Periodization,
        Mode::Reflect,
        Mode::Antisymmetric,
        Mode::Antireflect,
    ];

    /// PyWavelets' name of the mode.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Constant => "constant",
            Self::Symmetric => "symmetric",
            Self::Periodic => "periodic",
            Self::Smooth => "smooth",
            Self::Reflect => "reflect",
            Self::Antisymmetric => "antisymmetric",
            Self::Antireflect => "antireflect",
            Self::Periodization => "periodization",
        }
    }

    /// The mode with this PyWavelets name.
    ///
    /// # Errors
    /// [`Error::Unknown`], which lists the known names.
    ///
    /// ```
    /// use wavemesh::wavelet::Mode;
    /// assert_eq!(Mode::from_name("periodization")?, Mode::Periodization);
    /// assert!(Mode::from_name("mirror").is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(|| Error::Unknown {
            kind: "extension mode",
            name: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// Number of coefficients of each kind for `n` samples and a filter with `taps` taps.
    pub(super) fn coefficients(self, n: usize, taps: usize) -> usize {
        if self == Self::Periodization { n.div_ceil(2) } else { (n + taps - 1) / 2 }
    }

    /// Number of samples that `m` coefficients of each kind reconstruct: as many as they were made from, or one more. `None` if they are
    /// too few for a filter with `taps` taps.
    pub(super) fn samples(self, m: usize, taps: usize) -> Option<usize> {
        if self == Self::Periodization { Some(2 * m) } else { (2 * m + 2).checked_sub(taps).filter(|&n| n > 0) }
    }

    /// The value at any position `p` of a signal with `n` samples.
    pub(super) fn extend(self, p: isize, n: usize) -> Extended {
        let (len, last) = (n as isize, n - 1);
        if (0..len).contains(&p) {
            return Extended::Sample(p as usize);
        }
        let before = p < 0;
        let end = if before { 0 } else { last };
        let beyond = if before { -p } else { p - last as isize };
        // Position within a period of `2n`, whose second half runs backwards.
        let folded = p.rem_euclid(2 * len) as usize;
        match self {
            Self::Zero => Extended::Sum(Vec::new()),
            Self::Constant => Extended::Sample(end),
            Self::Symmetric => Extended::Sample(folded.min(2 * n - 1 - folded)),
            Self::Antisymmetric if folded < n => Extended::Sample(folded),
            Self::Antisymmetric => Extended::Sum(vec![(2 * n - 1 - folded, -1.0)]),
            Self::Periodic => Extended::Sample(p.rem_euclid(len) as usize),
            Self::Periodization => Extended::Sample((p.rem_euclid(len + len % 2) as usize).min(last)),
            // A single sample has neither slope nor neighbour.
            Self::Smooth | Self::Reflect | Self::Antireflect if n == 1 => Extended::Sample(0),
            Self::Smooth => {
                let (inner, far) = (if before { 1 } else { last - 1 }, beyond as f64);
                Extended::Sum(vec![(end, 1.0 + far), (inner, -far)])
            }
            Self::Reflect => {
                let folded = p.rem_euclid(2 * (len - 1)) as usize;
                Extended::Sample(folded.min(2 * last - folded))
            }
            Self::Antireflect => {
                // With a reflection at one end and then at the other, the signal rises by its own height each time.
                let (turns, rest) = (p.div_euclid(len - 1), p.rem_euclid(len - 1) as usize);
                let rise = |times: f64| [(last, times), (0, -times)];
                Extended::Sum(if turns % 2 == 0 {
                    [&[(rest, 1.0)][..], &rise(turns as f64)].concat()
                } else {
                    [&[(last - rest, -1.0), (last, 2.0)][..], &rise((turns - 1) as f64)].concat()
                })
            }
        }
    }
}
