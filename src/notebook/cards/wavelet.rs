//! The card of sparse wavelet coefficients.

use std::collections::BTreeMap;

use super::{Facts, Table, picture_card};
use crate::Result;
use crate::notebook::html::{bytes, count, number};
use crate::notebook::{Colormap, MimeBundle, Rich, VoxelPlot, Voxels};
use crate::wavelet::SparseWavelet;

impl Rich for SparseWavelet {
    fn rich(&self) -> MimeBundle {
        let (layout, stats) = (self.layout(), self.stats());
        let [x, y, z] = layout.frame().shape;
        let facts: Facts = vec![
            ("", format!("{}, {} levels, {}", layout.wavelet().name(), layout.level(), layout.mode().name())),
            ("grid", format!("{x}×{y}×{z} (x, y, z)")),
            ("kept", format!("{} of {}", count(stats.nonzero as u64), count(stats.total as u64))),
            ("sparsity", format!("{:.2}%", 100.0 * stats.sparsity_ratio)),
            ("", format!("{} instead of {}", bytes(stats.memory_sparse as u64), bytes(stats.memory_dense as u64))),
            ("ratio", number(stats.compression_ratio)),
        ];
        let mut kept = vec![(0u64, 0f32); layout.bands()];
        for (&[.., band], &value) in self.indices().iter().zip(self.values()) {
            if let Some((n, largest)) = kept.get_mut(band as usize) {
                *n += 1;
                *largest = largest.max(value.abs());
            }
        }
        let row = |(band, &(n, largest)): (usize, &(u64, f32))| {
            let band = band as i32;
            let of: usize = layout.band_shape(band).map_or(0, |shape| shape.iter().product());
            let share = if of == 0 { 0.0 } else { 100.0 * n as f64 / of as f64 };
            vec![layout.band_name(band), count(n), count(of as u64), format!("{share:.1}%"), number(largest.into())]
        };
        let table = Table::new(vec!["band", "kept", "of", "share", "max |c|"], kept.iter().enumerate().map(row));
        let picture = (!self.is_empty()).then(|| largest_plot(self)?.size(380, 310).picture());
        picture_card("SparseWavelet", &facts, Some(&table), picture)
    }
}

/// A level with fewer coefficients than this tells little about a shape.
const FEW: usize = 30;

/// The places of the largest details in the finest level that has enough of them: they trace the shape.
fn largest_plot(coefficients: &SparseWavelet) -> Result<VoxelPlot> {
    let layout = coefficients.layout();
    for level in 1..=layout.level() {
        let mut largest: BTreeMap<[i32; 3], f32> = BTreeMap::new();
        let mut shape = [0; 3];
        for (&[x, y, z, band], &value) in coefficients.indices().iter().zip(coefficients.values()) {
            if band > 0 && layout.band_level(band) == level {
                let amount = largest.entry([x, y, z]).or_default();
                *amount = amount.max(value.abs());
                shape = layout.band_shape(band).unwrap_or_default();
            }
        }
        // Within the filter's reach of the edge, a coefficient depends on the edge of the grid instead of the shape.
        let reach = layout.wavelet().len().div_ceil(4) as i32;
        let inside = |(at, n): (&i32, usize)| (reach..n as i32 - reach).contains(at);
        largest.retain(|site, amount| *amount > 0.0 && site.iter().zip(shape).all(inside));
        if largest.len() < FEW {
            continue;
        }
        let mut amounts: Vec<f32> = largest.values().copied().collect();
        amounts.sort_unstable_by(|a, b| b.total_cmp(a));
        let least = amounts.get(shape.iter().product::<usize>() / 8).copied().unwrap_or(0.0);
        largest.retain(|_, amount| *amount >= least);
        let amounts = largest.values().map(|amount| amount.log10()).collect();
        let voxels = Voxels::new(largest.into_keys().collect(), shape, vec![amounts])?.named(["log10 |c|"])?;
        return Ok(VoxelPlot::new(&voxels)?
            .title(format!("largest details of level {level}"))
            .colormap(Colormap::Viridis));
    }
    VoxelPlot::new(coefficients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdf::SdfGrid;
    use crate::wavelet::WaveletConfig;

    #[test]
    fn every_band_has_a_row_and_the_kept_add_up() {
        let ball = SdfGrid::from_fn([16; 3], |p| p.iter().map(|v| v * v).sum::<f32>().sqrt() - 0.5).unwrap();
        let coefficients = ball.encode(&WaveletConfig { level: 2, ..Default::default() }).unwrap();
        let text = coefficients.rich().plain().to_owned();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(rows.len(), 15);
        let kept: usize = rows
            .iter()
            .map(|row| row.split_whitespace().rev().nth(3).unwrap().replace(',', "").parse::<usize>().unwrap())
            .sum();
        assert_eq!(kept, coefficients.len());
    }
}
