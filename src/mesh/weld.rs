//! Joins positions that are the same place into one vertex.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::geometry::vec3::{dot, sub};

/// The position's bits; both zeros become one.
pub(super) trait Bits: Copy {
    fn bits(self) -> u64;
}

impl Bits for f32 {
    fn bits(self) -> u64 {
        (self + 0.0).to_bits().into()
    }
}

impl Bits for f64 {
    fn bits(self) -> u64 {
        (self + 0.0).to_bits()
    }
}

/// The distinct positions in order of first appearance, and for each position its index among them.
pub(super) fn equal<T: Bits>(positions: &[[T; 3]]) -> (Vec<[T; 3]>, Vec<u32>) {
    const FREE: u32 = u32::MAX;
    // An open hash table that is at most half full, so that a search is short.
    let places = (2 * positions.len()).next_power_of_two();
    let mut table = vec![FREE; places];
    let mut distinct: Vec<[T; 3]> = Vec::new();
    // The writer of the positions cannot know this number, so nobody can make them collide on purpose. The result does not depend on it.
    let start = RandomState::new().hash_one(0);
    let index = positions.iter().map(|position| {
        let key = position.map(T::bits);
        // Odd factors of high entropy spread neighbouring positions over the table (Steele and Vigna 2021).
        let mixed =
            key.iter().fold(start, |hash, &bits| (hash ^ bits).wrapping_mul(0xd134_2543_de82_ef95).rotate_left(29));
        let mut at = (mixed ^ mixed >> 32) as usize & (places - 1);
        loop {
            match table[at] {
                FREE => {
                    table[at] = distinct.len() as u32;
                    distinct.push(*position);
                    return table[at];
                }
                known if distinct[known as usize].map(T::bits) == key => return known,
                _ => at = (at + 1) & (places - 1),
            }
        }
    });
    let index = index.collect();
    (distinct, index)
}

/// Positions of which none is within `tolerance` of an earlier one, and for each given position the index of the one that it becomes: the
/// first that is near enough.
pub(super) fn near(positions: &[[f32; 3]], tolerance: f32) -> (Vec<[f32; 3]>, Vec<u32>) {
    let cell = |p: [f32; 3]| p.map(|c| (f64::from(c) / f64::from(tolerance)).floor() as i64);
    let mut kept: Vec<[f32; 3]> = Vec::new();
    let mut cells: HashMap<[i64; 3], Vec<u32>> = HashMap::new();
    let index = positions.iter().map(|&position| {
        let own @ [x, y, z] = cell(position);
        let around = (0..27).map(|n| [x + n / 9 - 1, y + n / 3 % 3 - 1, z + n % 3 - 1]);
        let candidates = around.filter_map(|cell| cells.get(&cell)).flatten();
        let within = |&&known: &&u32| {
            let away = sub(kept[known as usize], position).map(f64::from);
            dot(away, away) <= f64::from(tolerance).powi(2)
        };
        match candidates.filter(within).min().copied() {
            Some(known) => known,
            None => {
                kept.push(position);
                let new = kept.len() as u32 - 1;
                cells.entry(own).or_default().push(new);
                new
            }
        }
    });
    let index = index.collect();
    (kept, index)
}
