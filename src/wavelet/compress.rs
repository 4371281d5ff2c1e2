//! [`SparseWavelet`] in few bytes: coefficients are rounded to multiples of a step and written by a range coder.
//!
//! Bands are written from coarse to fine. In each band, blocks of 4³ cells tell whether they hold anything; each cell of such a block tells
//! whether it is zero, its sign and its size. The probabilities depend on neighbours that came earlier, and on the cell of the coarser
//! level with the same place and direction (Shapiro 1993, "Embedded image coding using zerotrees"). The approximation is written as
//! differences from a prediction by its neighbours (Ibarria et al. 2003, the Lorenzo predictor).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::entropy::{Coder, Odds, Reader, Writer};
use super::layout::WaveletLayout;
use super::sparse::SparseWavelet;
use crate::files::write_atomically;
use crate::{Error, Result, memory};

/// The first bytes of a compressed file.
pub(super) const MAGIC: &[u8; 4] = b"WMZ1";
/// The extension of a compressed file.
pub(super) const EXTENSION: &str = "wmz";

/// Cells of a block along an axis.
const BLOCK: usize = 4;
/// The largest rounded coefficient.
const MOST: f32 = (1 << 30) as f32;

#[derive(Serialize, Deserialize)]
struct Header {
    layout: WaveletLayout,
    /// Coefficients are multiples of this.
    step: f32,
    /// Number of coefficients that are not zero.
    count: usize,
    /// A checksum of them, which detects damage.
    check: u32,
}

impl SparseWavelet {
    /// Compresses the coefficients. The grid that [decompressing](Self::decompress) and [decoding](Self::decode) gives differs from the
    /// grid of these coefficients by at most `max_error` at every sample, in the units of the grid; this is checked by decoding. For
    /// distances that [level off](super::WaveletConfig::truncation), the bound applies to the levelled distances.
    ///
    /// To compress a grid with a single bound on the error, encode it with [`Threshold::Lossless`](super::Threshold::Lossless): values that
    /// are too small to matter are rounded to zero here.
    ///
    /// # Errors
    /// [`Error::Argument`] for an error that is not above zero, or is smaller than rounding allows.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let ball = shapes::sphere(0.7).to_grid(32)?;
    /// let coeffs = ball.encode(&WaveletConfig::new().threshold(Threshold::Lossless))?;
    /// let bytes = coeffs.compress(0.005)?;
    /// assert!(bytes.len() < 4 * ball.values().len() / 20);
    /// let back = SparseWavelet::decompress(&bytes)?.decode()?;
    /// assert!(ball.values().iter().zip(back.values()).all(|(a, b)| (a - b).abs() <= 0.0051));
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn compress(&self, max_error: f32) -> Result<Vec<u8>> {
        const OP: &str = "SparseWavelet::compress";
        if !(max_error.is_finite() && max_error > 0.0) {
            return Err(Error::argument(OP, "max_error", max_error, "a number above 0"));
        }
        let exact = self.written()?;
        let error = |rounded: &Rounded| -> Result<f32> {
            let decoded = rounded.to_wavelet(self.layout())?.written()?;
            let differences = exact.iter().zip(&decoded).map(|(a, b)| (a - b).abs());
            Ok(differences.fold(0.0, f32::max))
        };
        // The error grows roughly in proportion to the step: each try corrects the step by the last error.
        let mut step = 2.0 * max_error;
        let mut best: Option<Rounded> = None;
        for _ in 0..TRIES {
            let rounded = Rounded::new(self, step)?;
            let error = error(&rounded)?;
            if error <= max_error {
                let enough = error >= 0.95 * max_error || rounded.values.is_empty();
                best = Some(rounded);
                if enough {
                    break;
                }
            } else if best.is_some() {
                break;
            }
            step *= (0.98 * max_error / error.max(0.1 * max_error)).clamp(0.1, 4.0);
        }
        let rounded = best.ok_or_else(|| {
            let expected = "an error that rounding to 32-bit floats allows";
            Error::argument(OP, "max_error", max_error, expected)
        })?;
        rounded.write(self.layout())
    }

    /// Reads the bytes that [`compress`](Self::compress) wrote.
    ///
    /// # Errors
    /// [`Error::Argument`] for bytes that are damaged or something else; [`Error::Memory`] if they announce more than fits in memory.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let coefficients = shapes::sphere(0.5).to_grid(16)?.encode(&WaveletConfig::new().level(2))?;
    /// let bytes = coefficients.compress(0.01)?;
    /// let back = SparseWavelet::decompress(&bytes)?;
    /// assert_eq!(back.layout(), coefficients.layout());
    /// assert!(SparseWavelet::decompress(&bytes[..bytes.len() / 2]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn decompress(bytes: &[u8]) -> Result<Self> {
        let damaged = |problem: String| {
            Error::argument("SparseWavelet::decompress", "bytes", problem, "what SparseWavelet::compress wrote")
        };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as such a file does".into()))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("too short".into()))?;
        let length = u32::from_le_bytes(*length) as usize;
        let header = rest.get(..length).ok_or_else(|| damaged("too short".into()))?;
        let header: Header = serde_json::from_slice(header).map_err(|error| damaged(format!("damaged: {error}")))?;
        if !(header.step.is_finite() && header.step > 0.0) || header.count > header.layout.total() {
            return Err(damaged(format!("damaged: step {}, {} coefficients", header.step, header.count)));
        }
        let reader = Reader::new(&rest[length..]).ok_or_else(|| damaged("cut off".into()))?;
        let rounded = Rounded::read(&header, reader)?.ok_or_else(|| damaged("damaged".into()))?;
        if rounded.values.len() != header.count || rounded.check() != header.check {
            return Err(damaged("damaged: its checksum does not match".into()));
        }
        rounded.to_wavelet(&header.layout)
    }

    /// Writes the bytes of [`compress`](Self::compress) to a `.wmz` file, which [`load`](Self::load) reads.
    ///
    /// # Errors
    /// The errors of [`compress`](Self::compress); [`Error::Unknown`] for another extension; [`Error::Io`] if the file cannot be written.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-compressed-example.wmz");
    /// let coefficients = shapes::sphere(0.5).to_grid(16)?.encode(&WaveletConfig::new().level(2))?;
    /// coefficients.save_compressed(&path, 0.01)?; // no sample of the decoded grid is off by more
    /// assert_eq!(SparseWavelet::load(&path)?.layout(), coefficients.layout());
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn save_compressed(&self, path: impl AsRef<Path>, max_error: f32) -> Result<()> {
        let path = path.as_ref();
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION)) {
            let name = path.display().to_string();
            let kind = "extension for compressed wavelet coefficients";
            return Err(Error::Unknown { kind, name, known: EXTENSION.into() });
        }
        write_atomically(path, &self.compress(max_error)?)
    }
}

/// How many steps are tried to meet an error.
const TRIES: usize = 12;

/// Coefficients as multiples of a step, without those that are zero.
struct Rounded {
    step: f32,
    indices: Vec<[i32; 4]>,
    values: Vec<i32>,
}

impl Rounded {
    fn new(wavelet: &SparseWavelet, step: f32) -> Result<Self> {
        let most = wavelet.values().iter().fold(0f32, |most, value| most.max(value.abs()));
        if most / step >= MOST {
            let expected = format!("at least {}: coefficients reach {most}", most / MOST);
            return Err(Error::argument("SparseWavelet::compress", "max_error", step / 2.0, expected));
        }
        let rounded = wavelet.indices().iter().zip(wavelet.values());
        let rounded = rounded.map(|(&row, value)| (row, (value / step).round() as i32));
        let (indices, values) = rounded.filter(|&(_, value)| value != 0).unzip();
        Ok(Self { step, indices, values })
    }

    fn to_wavelet(&self, layout: &WaveletLayout) -> Result<SparseWavelet> {
        let values = self.values.iter().map(|&value| value as f32 * self.step).collect();
        SparseWavelet::new(layout.clone(), self.indices.clone(), values)
    }

    /// FNV-1a over places and values.
    fn check(&self) -> u32 {
        let numbers = self.indices.as_flattened().iter().chain(&self.values);
        numbers.fold(0x811c_9dc5, |hash, &number| (hash ^ number as u32).wrapping_mul(0x0100_0193))
    }

    fn write(&self, layout: &WaveletLayout) -> Result<Vec<u8>> {
        let mut bands = Bands::zeros("SparseWavelet::compress", layout)?;
        for (&[x, y, z, band], &value) in self.indices.iter().zip(&self.values) {
            *bands.0[band as usize].at([x as usize, y as usize, z as usize]) = value;
        }
        let mut writer = Writer::new();
        let walked = bands.walk(&mut writer, usize::MAX);
        debug_assert!(walked.is_some(), "what is written fits");
        let header = Header { layout: layout.clone(), step: self.step, count: self.values.len(), check: self.check() };
        let header = serde_json::to_vec(&header).map_err(candle_core::Error::wrap)?;
        Ok([&MAGIC[..], &(header.len() as u32).to_le_bytes(), &header, &writer.finish()].concat())
    }

    fn read(header: &Header, mut reader: Reader<'_>) -> Result<Option<Self>> {
        let mut bands = Bands::zeros("SparseWavelet::decompress", &header.layout)?;
        if bands.walk(&mut reader, header.count).is_none() {
            return Ok(None);
        }
        let mut found = Self { step: header.step, indices: Vec::new(), values: Vec::new() };
        for (id, band) in bands.0.iter().enumerate() {
            let [_, ny, nz] = band.shape;
            let rows = band.values.iter().enumerate().filter(|(_, value)| **value != 0);
            for (place, &value) in rows {
                found.indices.push([place / (ny * nz), place / nz % ny, place % nz, id].map(|n| n as i32));
                found.values.push(value);
            }
        }
        Ok(Some(found))
    }
}

/// The cells of a band.
struct Band {
    shape: [usize; 3],
    values: Vec<i32>,
}

impl Band {
    fn at(&mut self, [x, y, z]: [usize; 3]) -> &mut i32 {
        &mut self.values[(x * self.shape[1] + y) * self.shape[2] + z]
    }

    /// The cell at this distance towards the origin; 0 outside the band.
    fn before(&self, cell: [usize; 3], by: [usize; 3]) -> i32 {
        let mut place = 0;
        for axis in 0..3 {
            let Some(at) = cell[axis].checked_sub(by[axis]) else { return 0 };
            place = place * self.shape[axis] + at;
        }
        self.values[place]
    }

    /// The value that the neighbours at three faces, three edges and a corner predict in a smooth band.
    fn predicted(&self, cell: [usize; 3]) -> i32 {
        let at = |x, y, z| self.before(cell, [x, y, z]);
        let (faces, edges) = ([at(1, 0, 0), at(0, 1, 0), at(0, 0, 1)], [at(1, 1, 0), at(1, 0, 1), at(0, 1, 1)]);
        let sum = |values: [i32; 3]| values.iter().fold(0i32, |sum, &value| sum.wrapping_add(value));
        sum(faces).wrapping_sub(sum(edges)).wrapping_add(at(1, 1, 1))
    }
}

/// The odds within a level.
struct Contexts {
    /// By the number of earlier neighbouring blocks that are not empty, and by whether the coarser level has something there.
    block: [Odds; 8],
    /// By the size of earlier neighbours, and of the coarser level's cell.
    zero: [[Odds; 3]; 7],
    /// By the size of the neighbours, and by how often the size was said to be larger.
    larger: [[Odds; Self::UNARY]; 3],
    /// The number of bits of the rest.
    bits: [Odds; 32],
}

impl Contexts {
    /// Sizes up to this are counted in unary.
    const UNARY: usize = 14;

    fn new() -> Self {
        Self {
            block: [Odds::EVEN; 8],
            zero: [[Odds::EVEN; 3]; 7],
            larger: [[Odds::EVEN; Self::UNARY]; 3],
            bits: [Odds::EVEN; 32],
        }
    }

    /// Codes a value; `near` is the sum of its neighbours' sizes (each at most 2), `above` the size of the coarser level's cell.
    fn value(&mut self, coder: &mut impl Coder, value: i32, near: usize, above: usize) -> Option<i32> {
        if !coder.bit(&mut self.zero[near][above], value != 0)? {
            return Some(0);
        }
        let negative = coder.code(Odds::EVEN, value < 0)?;
        let size = value.unsigned_abs();
        let larger = &mut self.larger[near.div_ceil(3).min(2)];
        let mut found = 1;
        while found <= larger.len() as u32 && coder.bit(&mut larger[found as usize - 1], size > found)? {
            found += 1;
        }
        if found > larger.len() as u32 {
            // Elias' gamma code of the rest.
            let rest = size.wrapping_sub(found).wrapping_add(1).max(1);
            let mut count = 0;
            while count < self.bits.len() - 1 && coder.bit(&mut self.bits[count], rest.ilog2() as usize > count)? {
                count += 1;
            }
            let mut read = 1u32;
            for bit in (0..count).rev() {
                read = read << 1 | u32::from(coder.code(Odds::EVEN, rest >> bit & 1 == 1)?);
            }
            found = found.wrapping_add(read).wrapping_sub(1);
        }
        let found = i32::try_from(found).ok()?;
        Some(if negative { -found } else { found })
    }
}

/// All bands, in the order of their ids.
struct Bands(Vec<Band>);

impl Bands {
    fn zeros(op: &'static str, layout: &WaveletLayout) -> Result<Self> {
        memory::elements::<i32>(op, "the bands", &[layout.total()], 0)?;
        let band = |id| {
            let shape = layout.shape(id);
            Band { shape, values: vec![0; shape.iter().product()] }
        };
        Ok(Self((0..layout.bands()).map(band).collect()))
    }

    /// Writes or reads all values; at most `limit` of them are not zero. `None` if the bytes hold something else.
    fn walk(&mut self, coder: &mut impl Coder, limit: usize) -> Option<()> {
        let mut left = limit;
        let mut contexts = Contexts::new();
        for id in 0..self.0.len() {
            if id % 7 == 1 {
                contexts = Contexts::new(); // a new level
            }
            let (coarser, rest) = self.0.split_at_mut(id);
            // The first level of details has no coarser level of its direction.
            let above = coarser.get(id.wrapping_sub(7)).filter(|_| id > 7);
            walk_band(&mut rest[0], above, id == 0, &mut contexts, coder, &mut left)?;
        }
        Some(())
    }
}

fn walk_band(
    band: &mut Band,
    above: Option<&Band>,
    smooth: bool,
    contexts: &mut Contexts,
    coder: &mut impl Coder,
    left: &mut usize,
) -> Option<()> {
    let blocks = band.shape.map(|n| n.div_ceil(BLOCK));
    let mut filled = Band { shape: blocks, values: vec![0; blocks.iter().product()] };
    let above_at = |cell: [usize; 3]| {
        let place = |band: &Band| {
            let [x, y, z] = std::array::from_fn(|axis| (cell[axis] / 2).min(band.shape[axis] - 1));
            band.values[(x * band.shape[1] + y) * band.shape[2] + z]
        };
        above.map_or(0, place).unsigned_abs().min(2) as usize
    };
    for block in cells([0; 3], blocks) {
        let first = block.map(|n| n * BLOCK);
        let end = std::array::from_fn(|axis| band.shape[axis].min(first[axis] + BLOCK));
        let cells = || cells(first, end);
        let before: i32 = [[1, 0, 0], [0, 1, 0], [0, 0, 1]].iter().map(|&by| filled.before(block, by)).sum();
        let below = cells().any(|cell| above_at(cell) > 0);
        let holds = cells().any(|cell| *band.at(cell) != 0);
        if !coder.bit(&mut contexts.block[2 * before as usize + usize::from(below)], holds)? {
            continue;
        }
        *filled.at(block) = 1;
        for cell in cells() {
            let prediction = if smooth { band.predicted(cell) } else { 0 };
            let near = [[1, 0, 0], [0, 1, 0], [0, 0, 1]].map(|by| band.before(cell, by).unsigned_abs().min(2));
            let near = if smooth { 0 } else { near.iter().sum::<u32>() as usize };
            let told = band.at(cell).wrapping_sub(prediction);
            let value = contexts.value(coder, told, near, above_at(cell))?.wrapping_add(prediction);
            if value != 0 {
                *left = left.checked_sub(1)?;
            }
            *band.at(cell) = value;
        }
    }
    Some(())
}

/// All cells from `first` up to `end`, without `end`.
fn cells([x0, y0, z0]: [usize; 3], [x1, y1, z1]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (x0..x1).flat_map(move |x| (y0..y1).flat_map(move |y| (z0..z1).map(move |z| [x, y, z])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdf::SdfGrid;
    use crate::wavelet::{Threshold, WaveletConfig};

    fn die(n: usize) -> SdfGrid {
        SdfGrid::from_fn([n, n + 3, n - 5], |[x, y, z]| {
            let cube = x.abs().max(y.abs()).max(z.abs()) - 0.6;
            cube.max(0.4 - (x * x + y * y + (z - 0.5).powi(2)).sqrt())
        })
        .unwrap()
    }

    #[test]
    fn the_error_is_kept_and_the_bytes_are_few() {
        let grid = die(40);
        let coeffs = grid.encode(&WaveletConfig { threshold: Threshold::Lossless, ..Default::default() }).unwrap();
        let exact = coeffs.decode().unwrap();
        let mut sizes = Vec::new();
        for bound in [0.02, 0.005, 0.0005] {
            let bytes = coeffs.compress(bound).unwrap();
            let back = SparseWavelet::decompress(&bytes).unwrap();
            let decoded = back.decode().unwrap();
            let error = exact.values().iter().zip(decoded.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= bound && error > 0.5 * bound, "{error} for a bound of {bound}");
            assert!(bytes.len() < back.len() * 20 / 6, "{} bytes for {} coefficients", bytes.len(), back.len());
            sizes.push(bytes.len());
        }
        assert!(sizes.is_sorted(), "{sizes:?}");
    }

    #[test]
    fn coefficients_that_are_multiples_of_the_step_come_back_as_they_were() {
        let coeffs =
            die(24).encode(&WaveletConfig { threshold: Threshold::Plain(0.05), ..Default::default() }).unwrap();
        let rounded = Rounded::new(&coeffs, 1e-6).unwrap();
        assert!(rounded.values.iter().any(|value| value.unsigned_abs() > 100_000), "large values are among them");
        let back = SparseWavelet::decompress(&rounded.write(coeffs.layout()).unwrap()).unwrap();
        assert_eq!(back, rounded.to_wavelet(coeffs.layout()).unwrap());
    }

    #[test]
    fn no_coefficients_at_all_take_a_header() {
        let coeffs = die(24).encode(&WaveletConfig { threshold: Threshold::Plain(1e9), ..Default::default() }).unwrap();
        let back = SparseWavelet::decompress(&coeffs.compress(0.1).unwrap()).unwrap();
        assert!(back.is_empty() && back.layout() == coeffs.layout());
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = die(24).encode(&WaveletConfig::default()).unwrap().compress(0.01).unwrap();
        let whole = SparseWavelet::decompress(&bytes).unwrap();
        let header = 8 + u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        for cut in 0..bytes.len() {
            assert!(SparseWavelet::decompress(&bytes[..cut]).is_err(), "cut to {cut} bytes");
        }
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            if let Ok(found) = SparseWavelet::decompress(&other) {
                // A changed digit of the header (such as the grid's place) or of the last bytes may go unnoticed.
                assert!(at < header || found == whole, "a change of byte {at} is not noticed");
            }
        }
        let coeffs = die(24).encode(&WaveletConfig::default()).unwrap();
        for bound in [0.0, -1.0, f32::NAN, 1e-30] {
            assert!(coeffs.compress(bound).is_err(), "{bound}");
        }
    }
}
