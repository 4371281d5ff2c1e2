//! [`Wavelet`]: a wavelet's four filters, by PyWavelets' names.
//!
//! Only low-pass filters are stored. With `k` counting from 0: `dec_hi[k] = (-1)^(k+1) rec_lo[k]`, `rec_hi[k] = (-1)^k dec_lo[k]`. For an
//! orthogonal wavelet, `rec_lo` is `dec_lo` reversed. `rbioN.M` is `biorN.M` with decomposition and reconstruction exchanged and all
//! filters reversed.

use super::filter_table::{BIORTHOGONAL, ORTHOGONAL};
use crate::{Error, Result};

/// A discrete wavelet: `haar`, `db1`–`db20`, `sym2`–`sym20`, `coif1`–`coif5`, `bior1.1`–`bior6.8`, `rbio1.1`–`rbio6.8`.
///
/// ```
/// use wavemesh::wavelet::Wavelet;
/// let haar = Wavelet::from_name("haar")?;
/// assert_eq!(haar.rec_lo(), [0.5f64.sqrt(), 0.5f64.sqrt()]);
/// assert!(Wavelet::from_name("daubechies").unwrap_err().to_string().contains("db1"));
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Wavelet {
    name: String,
    dec_lo: Vec<f64>,
    dec_hi: Vec<f64>,
    rec_lo: Vec<f64>,
    rec_hi: Vec<f64>,
}

impl Wavelet {
    /// The wavelet with this PyWavelets name.
    ///
    /// # Errors
    /// [`Error::Unknown`], which lists the known names.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let wavelet = Wavelet::from_name("haar")?;
    /// assert!(wavelet.dec_lo().iter().all(|tap| (tap - 0.5f64.sqrt()).abs() < 1e-12));
    /// assert!(Wavelet::from_name("db99").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_name(name: &str) -> Result<Self> {
        let reversed = |filter: &[f64]| filter.iter().rev().copied().collect::<Vec<_>>();
        let table_name = if name == "haar" { "db1" } else { name };
        if let Some((_, dec_lo)) = ORTHOGONAL.iter().find(|row| row.0 == table_name) {
            return Ok(Self::from_low_pass(name, dec_lo.to_vec(), reversed(dec_lo)));
        }
        if let Some((_, dec_lo, rec_lo)) = BIORTHOGONAL.iter().find(|row| row.0 == name) {
            return Ok(Self::from_low_pass(name, dec_lo.to_vec(), rec_lo.to_vec()));
        }
        let base = name.strip_prefix("rbio");
        let base = base.and_then(|orders| BIORTHOGONAL.iter().find(|row| row.0.strip_prefix("bior") == Some(orders)));
        if let Some((_, dec_lo, rec_lo)) = base {
            return Ok(Self::from_low_pass(name, reversed(rec_lo), reversed(dec_lo)));
        }
        let known = "haar, db1 to db20, sym2 to sym20, coif1 to coif5, and bior or rbio followed by \
                     1.1, 1.3, 1.5, 2.2, 2.4, 2.6, 2.8, 3.1, 3.3, 3.5, 3.7, 3.9, 4.4, 5.5 or 6.8";
        Err(Error::Unknown { kind: "wavelet", name: name.into(), known: known.into() })
    }

    /// Every known name, in the order of PyWavelets' families.
    pub fn names() -> Vec<String> {
        let orthogonal = ORTHOGONAL.iter().map(|row| row.0.to_string());
        let bior = BIORTHOGONAL.iter().map(|row| row.0.to_string());
        let rbio = BIORTHOGONAL.iter().map(|row| row.0.replace("bior", "rbio"));
        std::iter::once("haar".to_string()).chain(orthogonal).chain(bior).chain(rbio).collect()
    }

    fn from_low_pass(name: &str, dec_lo: Vec<f64>, rec_lo: Vec<f64>) -> Self {
        let alternate = |filter: &[f64], first: f64| -> Vec<f64> {
            filter.iter().enumerate().map(|(k, c)| if k % 2 == 0 { first * c } else { -first * c }).collect()
        };
        let (dec_hi, rec_hi) = (alternate(&rec_lo, -1.0), alternate(&dec_lo, 1.0));
        Self { name: name.into(), dec_lo, dec_hi, rec_lo, rec_hi }
    }

    /// The wavelet whose analysis is the transpose of this one's synthesis: all filters are reversed, and decomposition and reconstruction
    /// exchanged. An orthogonal wavelet is its own dual; the dual of `biorN.M` is `rbioN.M`.
    pub(crate) fn dual(&self) -> Self {
        let reversed = |filter: &[f64]| filter.iter().rev().copied().collect::<Vec<_>>();
        Self {
            name: format!("dual of {}", self.name),
            dec_lo: reversed(&self.rec_lo),
            dec_hi: reversed(&self.rec_hi),
            rec_lo: reversed(&self.dec_lo),
            rec_hi: reversed(&self.dec_hi),
        }
    }

    /// The name with which it was requested.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Decomposition low-pass filter.
    pub fn dec_lo(&self) -> &[f64] {
        &self.dec_lo
    }

    /// Decomposition high-pass filter.
    pub fn dec_hi(&self) -> &[f64] {
        &self.dec_hi
    }

    /// Reconstruction low-pass filter.
    pub fn rec_lo(&self) -> &[f64] {
        &self.rec_lo
    }

    /// Reconstruction high-pass filter.
    pub fn rec_hi(&self) -> &[f64] {
        &self.rec_hi
    }

    /// Number of taps of each of the filters; always even.
    pub fn len(&self) -> usize {
        self.dec_lo.len()
    }

    /// Always false: every wavelet has taps.
    pub fn is_empty(&self) -> bool {
        self.dec_lo.is_empty()
    }
}
