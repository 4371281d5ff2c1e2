//! Colormaps: from a number to a colour that is easy to read, in print and for colour-blind readers.
//!
//! Each map is seventeen colours at equal distances, blended linearly; the colours are matplotlib's (viridis, magma, plasma, inferno
//! and cividis are CC0; turbo is Apache-2.0; coolwarm is Moreland's, RdBu ColorBrewer's).

use crate::{Error, Result};

/// A colormap, by matplotlib's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Colormap {
    /// Blue to yellow, even in lightness; the default for one-sided data.
    #[default]
    Viridis,
    /// Black to pale yellow through purple.
    Magma,
    /// Blue to yellow through pink.
    Plasma,
    /// Black to pale yellow through red.
    Inferno,
    /// Blue to yellow, the same for eyes that do not tell red from green.
    Cividis,
    /// Blue through grey to red; the default for data around zero.
    Coolwarm,
    /// Blue through white to red.
    RdBu,
    /// Black to white.
    Grey,
    /// Rainbow of even steps, for many distinct levels.
    Turbo,
}

use Colormap::*;

named!(Colormap);

impl Colormap {
    /// All maps.
    pub const ALL: [Self; 9] = [Viridis, Magma, Plasma, Inferno, Cividis, Coolwarm, RdBu, Grey, Turbo];

    /// The map with this name.
    ///
    /// # Errors
    /// [`Error::Unknown`], which lists the known names.
    ///
    /// ```
    /// use wavemesh::notebook::Colormap;
    /// assert_eq!(Colormap::from_name("magma")?, Colormap::Magma);
    /// assert!(Colormap::from_name("rainbow").is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        let wanted = if name == "gray" { "grey" } else { name };
        Self::ALL.into_iter().find(|map| map.name() == wanted).ok_or_else(|| Error::Unknown {
            kind: "colormap",
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// The map's name, `"viridis"`.
    pub fn name(self) -> &'static str {
        match self {
            Viridis => "viridis",
            Magma => "magma",
            Plasma => "plasma",
            Inferno => "inferno",
            Cividis => "cividis",
            Coolwarm => "coolwarm",
            RdBu => "rdbu",
            Grey => "grey",
            Turbo => "turbo",
        }
    }

    /// The colour for `t` from 0 (low) to 1 (high); outside, the colour of that end. NaN is magenta, which is in no map.
    #[inline(always)]
    pub fn color(self, t: f32) -> [u8; 3] {
        if t.is_nan() {
            return NAN_COLOR;
        }
        let stops = self.stops();
        let position = t.clamp(0.0, 1.0) * 16.0;
        let left = (position as usize).min(15);
        let part = position - left as f32;
        let channel = |i: usize| {
            let (a, b) = (f32::from(stops[left][i]), f32::from(stops[left + 1][i]));
            (a + (b - a) * part).round() as u8
        };
        [channel(0), channel(1), channel(2)]
    }

    /// The seventeen colours of the map.
    pub(crate) fn stops(self) -> &'static [[u8; 3]; 17] {
        // Parsed from text at compile time, since a picture needs millions of colours.
        match self {
            Viridis => {
                const {
                    &stops_of(b"44015448186a472d7b4240863b528b33638d2c728e26828e21918c1fa08828ae803fbc735ec96284d44baddc30d8e219fde725")
                }
            }
            Magma => {
                const {
                    &stops_of(b"0000040a08221d114736106b51127c6a1c818326819c2e7fb73779d0416fe75263f56b5cfc8961fea772fec488fde2a3fcfdbf")
                }
            }
            Plasma => {
                const {
                    &stops_of(b"0d08873105974c02a16600a77e03a89511a1aa2395bc3587cc4778da5a6ae66c5cf0804ef89540fdac33fdc527f8df25f0f921")
                }
            }
            Inferno => {
                const {
                    &stops_of(b"0000040b0724210c4a3d096557106e71196e8a226aa32c61bc3754d24644e45a31f1731df98e09fcac11f9cb35f2ea69fcffa4")
                }
            }
            Cividis => {
                const {
                    &stops_of(b"00224e002e6a1a386f32436d434e6c535a6d61656f6f70737d7c788c88789b9476aba072bcae6ccdbb63dec958f0d846fee838")
                }
            }
            Coolwarm => {
                const {
                    &stops_of(b"3b4cc04e68d86282ea779af78db0fea3c2feb9d0f9ccd9eddddcdcecd3c5f5c4acf7b093f4987aeb7d62dd5f4bca3b37b40426")
                }
            }
            RdBu => {
                const {
                    &stops_of(b"0530611752902a71b23f8ec06bacd19bc9e0c2ddece0ecf3f7f6f6fbe5d8fbccb4f5aa89e48066d05548ba2832930e2667001f")
                }
            }
            Grey => {
                const {
                    &stops_of(b"000000101010202020303030404040505050606060707070808080909090a0a0a0b0b0b0c0c0c0d0d0d0e0e0e0f0f0f0ffffff")
                }
            }
            Turbo => {
                const {
                    &stops_of(b"30123b4040a2466be34294ff28bceb18ddc232f2986dfe62a4fc3ccdec34eecf3afdac34fb7e21eb500ed02f05a916017a0403")
                }
            }
        }
    }

    /// The default map for values between `low` and `high`: diverging if they lie on both sides of zero, and each side reaches at least a
    /// twentieth as far as the other.
    pub fn for_range(low: f64, high: f64) -> Self {
        if is_two_sided(low, high) { Coolwarm } else { Viridis }
    }
}

const fn stops_of(hex: &[u8; 102]) -> [[u8; 3]; 17] {
    const fn digit(c: u8) -> u8 {
        if c <= b'9' { c - b'0' } else { c - b'a' + 10 }
    }
    let mut stops = [[0; 3]; 17];
    let mut byte = 0;
    while byte < 51 {
        stops[byte / 3][byte % 3] = 16 * digit(hex[2 * byte]) + digit(hex[2 * byte + 1]);
        byte += 1;
    }
    stops
}

/// The colour of NaN, in every picture.
pub(crate) const NAN_COLOR: [u8; 3] = [255, 0, 255];
/// The colour of ±∞, in every picture.
pub(crate) const INF_COLOR: [u8; 3] = [0, 230, 0];

fn is_two_sided(low: f64, high: f64) -> bool {
    (-low).min(high) >= 0.05 * (-low).max(high) && low < 0.0
}

/// The range that is shown for values between `low` and `high`: symmetric if a diverging map shows them, and never empty.
pub(crate) fn shown_range(low: f64, high: f64) -> (f64, f64) {
    if is_two_sided(low, high) {
        let reach = high.max(-low);
        (-reach, reach)
    } else if low < high {
        (low, high)
    } else {
        (low - 0.5, low + 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_middles_are_matplotlibs() {
        assert_eq!(Viridis.color(0.0), [0x44, 0x01, 0x54]);
        assert_eq!(Viridis.color(1.0), [0xfd, 0xe7, 0x25]);
        assert_eq!(Magma.color(0.5), [0xb7, 0x37, 0x79]);
        assert_eq!(Grey.color(-3.0), [0, 0, 0]);
        assert_eq!(Grey.color(f32::NAN), NAN_COLOR);
    }

    #[test]
    fn values_a_little_below_zero_do_not_take_half_the_colours() {
        assert_eq!(shown_range(-0.01, 9.0), (-0.01, 9.0));
        assert_eq!(shown_range(-3.0, 1.0), (-3.0, 3.0));
        assert_eq!((Colormap::for_range(-0.01, 9.0), Colormap::for_range(-1.0, 1.0)), (Viridis, Coolwarm));
        assert_eq!(shown_range(2.0, 2.0), (1.5, 2.5));
    }

    #[test]
    fn names_lead_back_and_unknown_ones_list_the_known() {
        for map in Colormap::ALL {
            assert_eq!(Colormap::from_name(map.name()).unwrap(), map);
        }
        let error = Colormap::from_name("jet").unwrap_err().to_string();
        assert!(error.contains("`jet`") && error.contains("viridis") && error.contains("turbo"), "{error}");
    }
}
