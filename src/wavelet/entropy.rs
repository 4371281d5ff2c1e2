//! Converts bits to bytes and back by a range coder with adaptive odds.
//!
//! [`Odds`] hold the probability of a bit in one context, as in video codecs: the mean of a fast and a slow running average. The coder is
//! that of Martin (1979, "Range encoding") with the carry of LZMA: bytes that a carry may still change are held back.

/// Bits of a probability.
const PRECISION: u32 = 15;
const ONE: u32 = 1 << PRECISION;
/// If the range is below this, it gets eight more bits.
const LEAST_RANGE: u32 = 1 << 24;
/// The number of bytes that hold the whole lower end of a range.
const TAIL: usize = 5;

/// The probability that the next bit of a context is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Odds {
    fast: u32,
    slow: u32,
}

impl Odds {
    /// The odds when nothing is known.
    pub const EVEN: Self = Self { fast: ONE / 2, slow: ONE / 2 };

    /// The part of a range that means a clear bit; it is neither empty nor the whole range.
    fn clear(self, range: u32) -> u32 {
        (range >> PRECISION) * (ONE - (self.fast + self.slow) / 2).clamp(16, ONE - 16)
    }

    fn follow(&mut self, bit: bool) {
        let step =
            |value: u32, shift: u32| if bit { value + ((ONE - value) >> shift) } else { value - (value >> shift) };
        self.fast = step(self.fast, 4);
        self.slow = step(self.slow, 7);
    }
}

/// Writes or reads bits: what is written with a sequence of odds must be read with the same sequence.
pub(super) trait Coder {
    /// Writes `bit` and returns it, or returns the bit that was read; `None` at the end of the bytes.
    fn code(&mut self, odds: Odds, bit: bool) -> Option<bool>;

    /// Codes a bit in a context, and adapts the context's odds to it.
    fn bit(&mut self, odds: &mut Odds, bit: bool) -> Option<bool> {
        let bit = self.code(*odds, bit)?;
        odds.follow(bit);
        Some(bit)
    }
}

/// Writes bits.
pub(super) struct Writer {
    /// The lower end of the range: 32 bits, and a carry.
    low: u64,
    range: u32,
    bytes: Vec<u8>,
    /// The last byte that is not 255, and how many bytes of 255 follow it: a carry would change them all.
    waiting: Option<u8>,
    full: usize,
}

impl Writer {
    pub fn new() -> Self {
        Self { low: 0, range: u32::MAX, bytes: Vec::new(), waiting: None, full: 0 }
    }

    /// Outputs the upper byte of `low`.
    fn shift(&mut self) {
        let (byte, carry) = ((self.low >> 24) as u8, (self.low >> 32) as u8);
        if byte == u8::MAX && carry == 0 {
            self.full += 1;
        } else {
            self.bytes.extend(self.waiting.map(|waiting| waiting.wrapping_add(carry)));
            self.bytes.extend(std::iter::repeat_n(u8::MAX.wrapping_add(carry), self.full));
            (self.waiting, self.full) = (Some(byte), 0);
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    /// All bytes that were written.
    pub fn finish(mut self) -> Vec<u8> {
        // One byte more than `low` has pushes out the bytes that are held back.
        (0..TAIL).for_each(|_| self.shift());
        self.bytes
    }
}

impl Coder for Writer {
    fn code(&mut self, odds: Odds, bit: bool) -> Option<bool> {
        let clear = odds.clear(self.range);
        if bit {
            self.low += u64::from(clear);
            self.range -= clear;
        } else {
            self.range = clear;
        }
        while self.range < LEAST_RANGE {
            self.range <<= 8;
            self.shift();
        }
        Some(bit)
    }
}

/// Reads bits.
pub(super) struct Reader<'a> {
    /// The place in the range to which the bytes point.
    place: u32,
    range: u32,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads what a [`Writer`] wrote; `None` for bytes that are too few.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (first, bytes) = bytes.split_first_chunk::<4>()?;
        Some(Self { place: u32::from_be_bytes(*first), range: u32::MAX, bytes })
    }
}

impl Coder for Reader<'_> {
    fn code(&mut self, odds: Odds, _: bool) -> Option<bool> {
        let clear = odds.clear(self.range);
        let bit = self.place >= clear;
        if bit {
            self.place -= clear;
            self.range -= clear;
        } else {
            self.range = clear;
        }
        while self.range < LEAST_RANGE {
            let (&byte, rest) = self.bytes.split_first()?;
            (self.place, self.range, self.bytes) = (self.place << 8 | u32::from(byte), self.range << 8, rest);
        }
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn carries_reach_the_bytes_that_wait() {
        // A set bit with the smallest odds leaves the range just below a carry; the seeds then continue differently.
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let steps: Vec<(bool, Odds)> = (0..300)
                .map(|_| {
                    let odds = [16, ONE / 2, ONE - 16][rng.random_range(0..3)];
                    (rng.random(), Odds { fast: odds, slow: odds })
                })
                .collect();
            let mut writer = Writer::new();
            assert!(steps.iter().all(|&(bit, odds)| writer.code(odds, bit) == Some(bit)));
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes).unwrap();
            assert!(steps.iter().all(|&(bit, odds)| reader.code(odds, false) == Some(bit)), "seed {seed}");
        }
    }

    #[test]
    fn bits_come_back_and_rare_ones_take_little_room() {
        let mut rng = StdRng::seed_from_u64(3);
        let bits: Vec<bool> = (0..100_000).map(|_| rng.random_bool(0.02)).collect();
        let (mut writer, mut odds) = (Writer::new(), Odds::EVEN);
        assert!(bits.iter().all(|&bit| writer.bit(&mut odds, bit) == Some(bit)));
        let bytes = writer.finish();
        // The entropy of one bit is 0.1414.
        assert!((1767..1767 * 11 / 10).contains(&bytes.len()), "{} bytes", bytes.len());
        let (mut reader, mut odds) = (Reader::new(&bytes).unwrap(), Odds::EVEN);
        assert!(bits.iter().all(|&bit| reader.bit(&mut odds, false) == Some(bit)));
        let (mut reader, mut odds) = (Reader::new(&bytes[..bytes.len() / 2]).unwrap(), Odds::EVEN);
        assert!(bits.iter().any(|_| reader.bit(&mut odds, false).is_none()), "the end of the bytes is noticed");
    }
}
