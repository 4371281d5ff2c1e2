//! Distances that level off: they are written in place of plain distances, so that coefficients are spent near the surface.
//!
//! Far from a shape its distance is large and has creases, but nobody looks there: a threshold on plain distances keeps mostly coefficients
//! at the rim of the box. `d / √(1 + (d/τ)²)` equals `d` at the surface, with slope 1, and levels off at ±τ.

/// Longer than the diagonal of the cube [-1, 1]³, so no distance within the cube is larger.
const FARTHEST: f32 = 4.0;

/// The written form of a distance; it levels off at ±`limit`.
pub(crate) fn level_off(distance: f32, limit: f32) -> f32 {
    distance / (1.0 + (distance / limit).powi(2)).sqrt()
}

/// The distance with this written form. If it would be larger than any distance in the cube, it is 4.
pub(crate) fn distance_of(written: f32, limit: f32) -> f32 {
    let most = level_off(FARTHEST, limit);
    let written = written.clamp(-most, most);
    written / (1.0 - (written / limit).powi(2)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_come_back_and_keep_their_sign() {
        for limit in [0.05, 0.2, 1.0] {
            for step in -20..=20 {
                let d = 0.05 * step as f32;
                let back = distance_of(level_off(d, limit), limit);
                // Levelling off loses digits: the slope at d is (1 + (d/τ)²)^(-3/2).
                let slope = (1.0 + (d / limit).powi(2)).powf(-1.5);
                assert!((back - d).abs() <= 4.0 * f32::EPSILON * limit / slope, "{limit} {d} {back}");
            }
            assert!(distance_of(2.0 * limit, limit) > 1.0 && distance_of(-2.0 * limit, limit) < -1.0);
        }
    }
}
