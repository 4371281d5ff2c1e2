//! Bits to bytes and back: a range coder whose odds follow the bits.
//!
//! [`Odds`] hold the probability of a bit in one context, as video codecs do: the mean of a fast and a slow running average.
//! The coder itself is the crate constriction's.

use std::borrow::Borrow;
use std::num::NonZeroU32;

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};
use constriction::stream::queue::{DefaultRangeDecoder, DefaultRangeEncoder};
use constriction::stream::{Decode, Encode};

const PRECISION: usize = 16;
const ONE: u32 = 1 << PRECISION;

/// How likely the next bit of a context is to be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Odds {
    fast: u32,
    slow: u32,
}

impl Odds {
    /// Nothing is known yet.
    pub const EVEN: Self = Self { fast: ONE / 2, slow: ONE / 2 };

    /// Parts of [`ONE`] that a bit is clear; neither none nor all.
    fn clear(self) -> u32 {
        (ONE - (self.fast + self.slow) / 2).clamp(32, ONE - 32)
    }

    fn follow(&mut self, bit: bool) {
        let target = if bit { ONE } else { 0 };
        let step = |value: u32, shift: u32| (value as i32 + ((target as i32 - value as i32) >> shift)) as u32;
        self.fast = step(self.fast, 4);
        self.slow = step(self.slow, 7);
    }
}

impl EntropyModel<PRECISION> for Odds {
    type Symbol = bool;
    type Probability = u32;
}

impl EncoderModel<PRECISION> for Odds {
    fn left_cumulative_and_probability(&self, bit: impl Borrow<bool>) -> Option<(u32, NonZeroU32)> {
        let clear = self.clear();
        let (left, share) = if *bit.borrow() { (clear, ONE - clear) } else { (0, clear) };
        NonZeroU32::new(share).map(|share| (left, share))
    }
}

impl DecoderModel<PRECISION> for Odds {
    fn quantile_function(&self, quantile: u32) -> (bool, u32, NonZeroU32) {
        let clear = self.clear();
        let (bit, left, share) = if quantile < clear { (false, 0, clear) } else { (true, clear, ONE - clear) };
        (bit, left, NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN))
    }
}

/// Writes bits or reads them: what is written with one sequence of odds is read with the same.
pub(super) trait Coder {
    /// Writes `bit` and returns it, or returns the bit that is read; `None` when the bytes are no such sequence.
    fn code(&mut self, odds: Odds, bit: bool) -> Option<bool>;

    /// A bit in a context, whose odds then follow it.
    fn bit(&mut self, odds: &mut Odds, bit: bool) -> Option<bool> {
        let bit = self.code(*odds, bit)?;
        odds.follow(bit);
        Some(bit)
    }
}

/// Writes bits.
#[derive(Default)]
pub(super) struct Writer(DefaultRangeEncoder);

impl Writer {
    /// Everything that was written.
    pub fn finish(self) -> Vec<u8> {
        let words: Vec<u32> = self.0.into_compressed().unwrap_or_default();
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

impl Coder for Writer {
    fn code(&mut self, odds: Odds, bit: bool) -> Option<bool> {
        self.0.encode_symbol(bit, odds).ok().map(|()| bit)
    }
}

/// Reads bits.
pub(super) struct Reader(DefaultRangeDecoder);

impl Reader {
    /// Reads what a [`Writer`] wrote; `None` for bytes that it cannot have written.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        let words: Vec<u32> = words.iter().map(|&word| u32::from_le_bytes(word)).collect();
        if rest.is_empty() { DefaultRangeDecoder::from_compressed(words).ok().map(Self) } else { None }
    }
}

impl Coder for Reader {
    fn code(&mut self, odds: Odds, _: bool) -> Option<bool> {
        self.0.decode_symbol(odds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn bits_come_back_and_rare_ones_take_little_room() {
        let mut rng = StdRng::seed_from_u64(3);
        let bits: Vec<bool> = (0..100_000).map(|_| rng.random_bool(0.02)).collect();
        let (mut writer, mut odds) = (Writer::default(), Odds::EVEN);
        bits.iter().for_each(|&bit| drop(writer.bit(&mut odds, bit)));
        let bytes = writer.finish();
        // The entropy of one bit is 0.1414.
        assert!((1767..1767 * 11 / 10).contains(&bytes.len()), "{} bytes", bytes.len());
        let (mut reader, mut odds) = (Reader::new(&bytes).unwrap(), Odds::EVEN);
        assert!(bits.iter().all(|&bit| reader.bit(&mut odds, false) == Some(bit)));
    }
}
