//! The card of a sparse tensor.

use candle_core::Device;

use super::tensor::device_name;
use super::{Facts, STATISTICS_HEADER, Table, picture_card, statistics_row};
use crate::Result;
use crate::notebook::html::{bytes, count};
use crate::notebook::voxels::Voxels;
use crate::notebook::{MimeBundle, Rich, VoxelPlot};
use crate::sparse::SparseConvTensor;

/// How many channels get a row of statistics.
const CHANNELS: usize = 8;

impl Rich for SparseConvTensor {
    fn rich(&self) -> MimeBundle {
        let [d, h, w] = self.spatial_shape();
        let size = self.len() * (self.channels() * self.dtype().size_in_bytes() + 16);
        let mut facts: Facts = vec![
            ("sites", count(self.len() as u64)),
            ("channels", self.channels().to_string()),
            ("shape", format!("{d}×{h}×{w} (z, y, x)")),
            ("batch", self.batch_size().to_string()),
            ("occupancy", format!("{:.3}%", 100.0 * self.occupancy())),
            ("", self.dtype().as_str().to_owned()),
            ("", device_name(self.device())),
            ("", bytes(size as u64)),
        ];
        if self.batch_size() > 1 {
            let counts = self.batch_counts().map_or_else(|error| error.to_string(), |counts| format!("{counts:?}"));
            facts.push(("sites each", counts));
        }
        let mut table = Table::new(STATISTICS_HEADER.to_vec(), std::iter::empty());
        let all: Vec<_> = shown(self).map_or_else(
            |_| Vec::new(),
            |shown| (0..self.batch_size()).filter_map(|batch| Voxels::of_batch(&shown, batch).ok()).collect(),
        );
        let boxes: Vec<_> = all.iter().filter_map(Voxels::occupied_box).collect();
        let corners = |pick: fn(i32, i32) -> i32, end: usize| {
            boxes.iter().map(|b| b[end]).reduce(|a, b| std::array::from_fn(|i| pick(a[i], b[i])))
        };
        if let (Some(low), Some(high)) = (corners(i32::min, 0), corners(i32::max, 1)) {
            let part = |axis: usize| format!("{}–{}", low[axis], high[axis]);
            facts.push(("box", format!("z {} y {} x {}", part(2), part(1), part(0))));
        }
        for channel in 0..self.channels().min(CHANNELS) {
            let values = all.iter().flat_map(|voxels| voxels.channels()[channel].iter().copied());
            table.rows.push(statistics_row(format!("channel {channel}"), values));
        }
        if self.channels() > CHANNELS {
            let mut rest = vec![format!("… {} more", self.channels() - CHANNELS)];
            rest.resize(STATISTICS_HEADER.len(), String::new());
            table.rows.push(rest);
        }
        let picture =
            all.iter().find(|voxels| !voxels.is_empty()).map(|voxels| VoxelPlot::new(voxels)?.size(300, 230).picture());
        picture_card("SparseConvTensor", &facts, Some(&table), picture)
    }
}

/// The channels that a card shows, in the computer's memory.
fn shown(x: &SparseConvTensor) -> Result<SparseConvTensor> {
    let channels = x.channels().min(CHANNELS);
    x.replace_feature(x.features().detach().narrow(1, 0, channels)?.to_device(&Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;

    #[test]
    fn the_card_tells_sites_shape_box_and_statistics_of_each_channel() {
        let features = Tensor::new(&[[1f32, -1.0], [3.0, f32::NAN]], &Device::Cpu).unwrap();
        let x = SparseConvTensor::from_coords(features, vec![[0, 1, 2, 3], [1, 0, 0, 0]], [2, 4, 8], 2).unwrap();
        let bundle = x.rich();
        let text = bundle.plain();
        for part in [
            "sites 2",
            "channels 2",
            "2×4×8 (z, y, x)",
            "batch 2",
            "box z 0–1 y 0–2 x 0–3",
            "sites each [1, 1]",
            "channel 1",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(bundle.get("image/png").is_some());
    }
}
