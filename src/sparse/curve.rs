//! [`Curve`]: space-filling curves, which put neighbouring sites close together in a sequence.

/// A curve through the cells of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// Morton's order: the interleaved bits of the coordinates.
    ZOrder,
    /// Hilbert's curve: consecutive cells of the curve are neighbours.
    Hilbert,
}

/// The bits of a coordinate that count: grids may have up to 2²¹ cells a side.
const BITS: u32 = 21;

impl Curve {
    /// The position of a cell (z, y, x) of non-negative coordinates along the curve.
    pub fn position(self, [z, y, x]: [i32; 3]) -> u64 {
        let cell = [z, y, x].map(|v| v.max(0) as u32 & ((1 << BITS) - 1));
        match self {
            Self::ZOrder => interleaved(cell),
            Self::Hilbert => interleaved(transposed(cell)),
        }
    }
}

/// The bits of the three numbers in turn, highest bits first, and the first number first.
fn interleaved(cell: [u32; 3]) -> u64 {
    let mut code = 0;
    for bit in (0..BITS).rev() {
        for value in cell {
            code = code << 1 | u64::from(value >> bit & 1);
        }
    }
    code
}

/// Skilling's transposed Hilbert index ("Programming the Hilbert curve", 2004).
fn transposed(mut x: [u32; 3]) -> [u32; 3] {
    let top = 1 << (BITS - 1);
    let mut q = top;
    while q > 1 {
        let p = q - 1;
        for i in 0..3 {
            if x[i] & q != 0 {
                x[0] ^= p;
            } else {
                let t = (x[0] ^ x[i]) & p;
                x[0] ^= t;
                x[i] ^= t;
            }
        }
        q >>= 1;
    }
    x[1] ^= x[0];
    x[2] ^= x[1];
    let mut t = 0;
    let mut q = top;
    while q > 1 {
        if x[2] & q != 0 {
            t ^= q - 1;
        }
        q >>= 1;
    }
    x.map(|v| v ^ t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn morton_s_order_interleaves() {
        assert_eq!(Curve::ZOrder.position([0, 0, 1]), 1);
        assert_eq!(Curve::ZOrder.position([0, 1, 0]), 2);
        assert_eq!(Curve::ZOrder.position([1, 0, 0]), 4);
        assert_eq!(Curve::ZOrder.position([3, 0, 2]), 0b101_100);
    }

    #[test]
    fn hilbert_s_curve_visits_every_cell_of_a_cube_in_steps_of_one() {
        let mut cells: Vec<[i32; 3]> = (0..512).map(|i| [i / 64, i / 8 % 8, i % 8]).collect();
        cells.sort_by_key(|&cell| Curve::Hilbert.position(cell));
        let positions: Vec<u64> = cells.iter().map(|&cell| Curve::Hilbert.position(cell)).collect();
        assert_eq!(positions, (0..512).collect::<Vec<_>>(), "each position once, from the corner");
        for pair in cells.windows(2) {
            let step: i32 = pair[0].iter().zip(pair[1]).map(|(a, b)| (a - b).abs()).sum();
            assert_eq!(step, 1, "{pair:?}");
        }
    }
}
