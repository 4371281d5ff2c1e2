//! [`VoxelViewer`]: voxels that can be turned, clipped and asked for their values.

use serde_json::json;

use super::payload::{Payload, finite_range};
use super::{Content, check_rate, viewer_bundle};
use crate::notebook::html::{bytes, count};
use crate::notebook::view::View;
use crate::notebook::{Axis, ColorBy, Colormap, MimeBundle, Rich, ToVoxels, VoxelPlot, Voxels};
use crate::{Error, Result};

/// An interactive view of voxels, or of a sequence of them such as the steps of a diffusion.
///
/// Drag to turn, shift and drag to move, and click before you zoom with the wheel. The controls below the view clip on three axes, choose
/// channel, colours, threshold, opacity and size, and play a sequence. Point at a voxel to see its site (x, y, z) and value. Values are
/// sent with 16 bits for up to sixty thousand voxels and with 8 bits for more: a displayed value is accurate to 1/65534 or 1/254 of the
/// channel's range.
///
/// ```
/// use wavemesh::notebook::{Rich, VoxelViewer, Voxels};
/// let one = Voxels::new(vec![[1, 2, 3]], [4, 4, 4], vec![vec![0.5]])?;
/// let output = VoxelViewer::new(&one)?.title("one voxel").rich();
/// assert!(output.get("text/html").is_some() && output.get("image/png").is_some());
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct VoxelViewer {
    frames: Vec<(String, Voxels)>,
    view: View,
    voxel_size: f32,
    frames_per_second: f32,
}

/// Sites are sent with 16 bits per coordinate.
const MAX_SIDE: usize = 1 << 16;
/// The view finds neighbours with a bitmap of the grid.
const MAX_CELLS: usize = 1 << 30;

view_setters!(VoxelViewer);

impl VoxelViewer {
    /// A view of the voxels of a sparse tensor, a dense grid, or anything else that has voxels.
    ///
    /// # Errors
    /// The error of the value, or a grid of more than 2³⁰ cells.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// assert!(VoxelViewer::new(&x)?.rich().get("text/html").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(value: &(impl ToVoxels + ?Sized)) -> Result<Self> {
        Self::sequence([("", value)])
    }

    /// A view of a sequence of labelled states, with a slider and a play button.
    ///
    /// # Errors
    /// No states, or states that differ in shape or number of channels.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let features = Tensor::new(&[[1f32], [2.0]], &Device::Cpu)?;
    /// let x = SparseConvTensor::from_coords(features, vec![[0, 0, 0, 0], [0, 0, 0, 1]], [1, 1, 2], 1)?;
    /// let doubled = x.replace_feature((x.features() * 2.0)?)?;
    /// let viewer = VoxelViewer::sequence([("before", &x), ("after", &doubled)])?.frames_per_second(2.0);
    /// assert!(viewer.rich().get("text/html").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sequence<'a, L, V>(states: impl IntoIterator<Item = (L, &'a V)>) -> Result<Self>
    where
        L: Into<String>,
        V: ToVoxels + ?Sized + 'a,
    {
        const OP: &str = "VoxelViewer";
        let frames = states
            .into_iter()
            .map(|(label, value)| Ok((label.into(), value.to_voxels()?)))
            .collect::<Result<Vec<(String, Voxels)>>>()?;
        let Some((_, first)) = frames.first() else {
            return Err(Error::Argument {
                op: OP,
                name: "states",
                got: "none".into(),
                expected: "at least one".into(),
            });
        };
        let kind = |voxels: &Voxels| format!("a {:?} grid with {} channels", voxels.shape(), voxels.channels().len());
        if let Some((label, other)) = frames.iter().find(|(_, voxels)| kind(voxels) != kind(first)) {
            return Err(Error::Argument {
                op: OP,
                name: "states",
                got: format!("{} for `{label}`", kind(other)),
                expected: kind(first),
            });
        }
        let cells = first.shape().iter().try_fold(1usize, |product, &n| product.checked_mul(n)).unwrap_or(usize::MAX);
        if cells > MAX_CELLS || first.shape().iter().any(|&n| n > MAX_SIDE) {
            let expected = format!("at most 2³⁰ cells and {MAX_SIDE} along an axis; crop the grid, or use VoxelPlot");
            return Err(Error::Argument { op: OP, name: "shape", got: format!("{:?}", first.shape()), expected });
        }
        Ok(Self { frames, view: View::new(Axis::Y), voxel_size: 1.0, frames_per_second: 8.0 })
    }

    /// The side of a cube at the start, above 0 to 1 (touching).
    pub fn voxel_size(mut self, size: f32) -> Self {
        self.voxel_size = size;
        self
    }

    /// The speed of a sequence.
    pub fn frames_per_second(mut self, rate: f32) -> Self {
        self.frames_per_second = rate;
        self
    }

    /// The static picture of the last state, which replaces the view where no script runs.
    fn still(&self) -> Result<VoxelPlot> {
        let (_, last) = self.frames.last().ok_or(Error::Argument {
            op: "VoxelViewer",
            name: "states",
            got: "none".into(),
            expected: "at least one".into(),
        })?;
        let mut plot = VoxelPlot::new(last)?.voxel_size(self.voxel_size);
        plot.view = View { title: String::new(), ..self.view.clone() };
        Ok(if last.channels().is_empty() { plot.color_by(ColorBy::Depth) } else { plot })
    }

    fn bundle(&self) -> Result<MimeBundle> {
        check_rate("VoxelViewer", self.frames_per_second)?;
        viewer_bundle(|| self.still()?.picture(), || self.content())
    }

    fn content(&self) -> Result<Content> {
        let (_, first) = &self.frames[0];
        let channels = first.channels().len();
        let ranges: Vec<(f32, f32)> = (0..channels)
            .map(|c| finite_range(self.frames.iter().flat_map(|(_, voxels)| voxels.channels()[c].iter().copied())))
            .collect();
        let map = self.view.colormap.unwrap_or_else(|| {
            ranges.first().map_or(Colormap::Viridis, |&(low, high)| Colormap::for_range(low.into(), high.into()))
        });

        let [w, h, d] = first.shape();
        let mut payload = Payload::default();
        let mut frames = Vec::new();
        let mut sent: Option<(usize, Vec<u64>)> = None;
        for (number, (label, voxels)) in self.frames.iter().enumerate() {
            let linear = |site: [i32; 3]| site[0] as u64 + w as u64 * (site[1] as u64 + h as u64 * site[2] as u64);
            // The place of a voxel in the grid and its number, in one word: it sorts twice as fast as a pair.
            let mut order: Vec<u64> = voxels.sites().iter().zip(0..).map(|(&site, i)| linear(site) << 32 | i).collect();
            order.sort_unstable();
            // Two voxels at one site could not be distinguished; the first stays.
            order.dedup_by_key(|&mut both| both >> 32);
            let keys: Vec<u64> = order.iter().map(|both| both >> 32).collect();
            let same = sent.as_ref().filter(|(_, known)| *known == keys).map(|(frame, _)| *frame);
            if same.is_none() {
                let mut expected = 0;
                for &key in &keys {
                    payload.varint(key - expected);
                    expected = key + 1;
                }
            }
            let n = keys.len();
            let planes: Vec<_> = voxels
                .channels()
                .iter()
                .map(|values| {
                    payload.channel(
                        order.iter().map(|&both| values[both as u32 as usize]),
                        n * channels * self.frames.len(),
                    )
                })
                .collect();
            let mut frame = json!({ "label": label, "n": n, "channels": planes });
            match same {
                Some(frame_number) => frame["sites"] = frame_number.into(),
                None => sent = Some((number, keys)),
            }
            frames.push(frame);
        }
        let meta = json!({
            "kind": "voxels", "title": self.view.title, "shape": [w, h, d], "low": [0, 0, 0], "high": [w, h, d],
            "azimuth": self.view.camera.azimuth, "elevation": self.view.camera.elevation, "perspective": self.view.camera.perspective,
            "up": self.view.camera.up as usize, "width": self.view.size.0, "height": self.view.size.1, "alpha": self.view.alpha, "size": self.voxel_size, "outline": true, "map": map.name(),
            "channels": first.names(), "ranges": ranges, "frames": frames, "fps": self.frames_per_second,
        });
        let data = payload.finish()?;
        let voxels = count(self.frames.last().map_or(0, |(_, voxels)| voxels.len()) as u64);
        let steps = if self.frames.len() > 1 { format!(", {} states", self.frames.len()) } else { String::new() };
        let text = format!(
            "VoxelViewer | {voxels} voxels of {w}×{h}×{d} (x, y, z), {channels} channels{steps}, {}",
            bytes(data.len() as u64)
        );
        Ok(Content { meta, data, text })
    }
}

impl Rich for VoxelViewer {
    fn rich(&self) -> MimeBundle {
        self.bundle().unwrap_or_else(|error| Err::<MimeBundle, _>(error).rich())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shell of a ball with about a hundred thousand voxels and a smooth value.
    fn large() -> Voxels {
        let n = 128;
        let (mut sites, mut values) = (Vec::new(), Vec::new());
        for i in 0..n * n * n {
            let site: [i32; 3] = [i % n, i / n % n, i / n / n];
            let r = site.map(|v| (v as f32 - 63.5).powi(2)).iter().sum::<f32>().sqrt();
            if (60.6..62.8).contains(&r) {
                sites.push(site);
                values.push((site[0] as f32 * 0.1).sin() + (site[1] as f32 * 0.07).cos());
            }
        }
        Voxels::new(sites, [n as usize; 3], vec![values]).unwrap()
    }

    #[test]
    fn a_hundred_thousand_voxels_stay_below_350_kb() {
        let voxels = large();
        assert!(voxels.len() > 100_000, "{}", voxels.len());
        let html = VoxelViewer::new(&voxels).unwrap().rich().to_html();
        assert!(html.len() <= 350_000, "{} bytes for {} voxels", html.len(), voxels.len());
    }

    #[test]
    fn titles_and_labels_cannot_leave_their_place() {
        let evil = "</script><script>alert(1)</script>";
        let one = Voxels::new(vec![[0, 0, 0]], [1; 3], vec![vec![1.0]]).unwrap().named([evil]).unwrap();
        let html = VoxelViewer::sequence([(evil, &one)]).unwrap().title(evil).rich().to_html();
        assert_eq!(html.matches("</script>").count(), 1);
        assert_eq!(html.matches("<script>").count(), 1);
    }

    #[test]
    fn wrong_sequences_and_names_are_explained() {
        let of = |shape| Voxels::new(vec![[0, 0, 0]], shape, vec![vec![1.0]]).unwrap();
        let error = VoxelViewer::sequence([("a", &of([2; 3])), ("b", &of([3; 3]))]).unwrap_err().to_string();
        assert!(error.contains("`b`") && error.contains("[2, 2, 2]"), "{error}");
        assert!(VoxelViewer::sequence(Vec::<(&str, &Voxels)>::new()).is_err());
        assert!(VoxelViewer::new(&of([2000, 2000, 2000])).is_err());
        assert!(of([2; 3]).named(["a", "b"]).unwrap_err().to_string().contains("2 names"));
    }
}
