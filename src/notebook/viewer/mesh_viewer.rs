//! [`MeshViewer`]: a mesh that can be turned, clipped and looked into.

use serde_json::json;

use super::payload::{Payload, finite_range};
use super::{Content, check_rate, viewer_bundle};
use crate::mesh::Mesh;
use crate::notebook::html::{bytes, count};
use crate::notebook::upright::upright;
use crate::notebook::view::View;
use crate::notebook::{Axis, Colormap, MeshPlot, MimeBundle, Rich};
use crate::{Error, Result};

/// An interactive view of a mesh, or of a sequence of meshes.
///
/// Positions are sent with 16 bits each, so a vertex is accurate to 1/65534 of the mesh's extent.
///
/// ```
/// use wavemesh::mesh::Mesh;
/// use wavemesh::notebook::{MeshViewer, Rich};
/// let triangle = Mesh::new(vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], vec![[0, 1, 2]])?;
/// assert!(MeshViewer::new(&triangle).rich().get("text/html").is_some());
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MeshViewer {
    frames: Vec<(String, Mesh)>,
    values: Option<Vec<f32>>,
    view: View,
    wireframe: bool,
    frames_per_second: f32,
}

view_setters!(MeshViewer);

impl MeshViewer {
    /// A view of the mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self::of(vec![(String::new(), mesh.clone())])
    }

    /// A view of a sequence of labelled meshes, with a slider and a play button.
    ///
    /// # Errors
    /// No meshes.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let [small, large] = [0.4, 0.8].map(|radius| shapes::sphere(radius).to_mesh(16));
    /// let (small, large) = (small?, large?);
    /// let viewer = MeshViewer::sequence([("small", &small), ("large", &large)])?.frames_per_second(2.0);
    /// assert!(viewer.rich().get("text/html").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sequence<'a, L: Into<String>>(meshes: impl IntoIterator<Item = (L, &'a Mesh)>) -> Result<Self> {
        let frames: Vec<_> = meshes.into_iter().map(|(label, mesh)| (label.into(), mesh.clone())).collect();
        if frames.is_empty() {
            return Err(Error::Argument {
                op: "MeshViewer",
                name: "meshes",
                got: "none".into(),
                expected: "at least one".into(),
            });
        }
        Ok(Self::of(frames))
    }

    fn of(frames: Vec<(String, Mesh)>) -> Self {
        let up = frames.first().map_or(Axis::Y, |(_, mesh)| upright(mesh));
        Self { frames, values: None, view: View::new(up), wireframe: false, frames_per_second: 8.0 }
    }

    /// Colours a single mesh by a value for each vertex.
    pub fn values(mut self, values: Vec<f32>) -> Self {
        self.values = Some(values);
        self
    }

    /// Whether the edges of the triangles are shown at the start.
    pub fn wireframe(mut self, show: bool) -> Self {
        self.wireframe = show;
        self
    }

    /// The speed of a sequence.
    pub fn frames_per_second(mut self, rate: f32) -> Self {
        self.frames_per_second = rate;
        self
    }

    fn bundle(&self) -> Result<MimeBundle> {
        let (_, last) = &self.frames[self.frames.len() - 1];
        if let Some(values) = &self.values
            && (self.frames.len() > 1 || values.len() != last.vertices().len())
        {
            let expected = format!("one value for each of {} vertices of a single mesh", last.vertices().len());
            return Err(Error::Shape { op: "MeshViewer", what: "values", got: vec![values.len()], expected });
        }
        let mut still = MeshPlot::new(last).wireframe(self.wireframe);
        still.view = View { title: String::new(), ..self.view.clone() };
        if let Some(values) = &self.values {
            still = still.values(values.clone());
        }
        check_rate("MeshViewer", self.frames_per_second)?;
        viewer_bundle(|| still.picture(), || self.content())
    }

    fn content(&self) -> Result<Content> {
        let (_, last) = &self.frames[self.frames.len() - 1];
        let bounds = self.frames.iter().map(|(_, mesh)| mesh.bounds());
        let [low, high] = bounds
            .reduce(|[l, h], [l2, h2]| {
                [std::array::from_fn(|i| l[i].min(l2[i])), std::array::from_fn(|i| h[i].max(h2[i]))]
            })
            .unwrap_or_default();
        let mut payload = Payload::default();
        let mut frames = Vec::new();
        for (label, mesh) in &self.frames {
            for axis in 0..3 {
                let extent = (high[axis] - low[axis]).max(f32::MIN_POSITIVE);
                let part = |p: &[f32; 3]| ((p[axis] - low[axis]) / extent * 65534.0).round() as u16;
                payload.plane16(mesh.vertices().iter().map(part));
            }
            let mut before = 0;
            for &corner in mesh.faces().iter().flatten() {
                payload.zigzag(i64::from(corner) - before);
                before = i64::from(corner);
            }
            let n = mesh.vertices().len();
            let planes: Vec<_> = self.values.iter().map(|values| payload.channel(values.iter().copied(), n)).collect();
            frames.push(json!({ "label": label, "n": mesh.faces().len(), "vertices": n, "channels": planes }));
        }
        let ranges: Vec<_> = self.values.iter().map(|values| finite_range(values.iter().copied())).collect();
        let map = self.view.colormap.unwrap_or_else(|| {
            ranges.first().map_or(Colormap::Viridis, |&(l, h)| Colormap::for_range(l.into(), h.into()))
        });
        let names: Vec<_> = ranges.iter().map(|_| "value").collect();
        let meta = json!({
            "kind": "mesh", "title": self.view.title, "low": low, "high": high,
            "azimuth": self.view.camera.azimuth, "elevation": self.view.camera.elevation, "perspective": self.view.camera.perspective,
            "up": self.view.camera.up as usize, "width": self.view.size.0, "height": self.view.size.1, "alpha": self.view.alpha, "size": 1, "outline": self.wireframe, "map": map.name(),
            "channels": names, "ranges": ranges, "frames": frames, "fps": self.frames_per_second,
        });
        let data = payload.finish()?;
        let text = format!(
            "MeshViewer | {} vertices, {} faces, {}",
            count(last.vertices().len() as u64),
            count(last.faces().len() as u64),
            bytes(data.len() as u64)
        );
        Ok(Content { meta, data, text })
    }
}

impl Rich for MeshViewer {
    fn rich(&self) -> MimeBundle {
        self.bundle().unwrap_or_else(|error| Err::<MimeBundle, _>(error).rich())
    }
}
