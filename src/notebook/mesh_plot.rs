//! [`MeshPlot`]: a picture of a mesh, shaded or as wires.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::colormap::shown_range;
use super::draw::{
    Canvas, FigureBackend, Frame, Picture, Polygon, Projector, Scale, plot_area, register_font, write_text,
};
use super::html::{count, number};
use super::upright::upright;
use super::view::View;
use super::{Colormap, MimeBundle, Rich};
use crate::mesh::Mesh;
use crate::{Error, Result, memory};

/// A picture of a mesh, smoothly shaded, in its own coordinates.
///
/// ```
/// use wavemesh::mesh::Mesh;
/// use wavemesh::notebook::MeshPlot;
/// let triangle = Mesh::new(vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], vec![[0, 1, 2]])?;
/// let picture = MeshPlot::new(&triangle).wireframe(true).size(320, 240).picture()?;
/// assert_eq!(picture.width(), 320);
/// # Ok::<(), wavemesh::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MeshPlot {
    mesh: Mesh,
    pub(super) view: View,
    color: [u8; 3],
    values: Option<Vec<f32>>,
    wireframe: bool,
}

view_setters!(MeshPlot);

impl MeshPlot {
    /// A plot of the mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self {
            mesh: mesh.clone(),
            view: View::new(upright(mesh)),
            color: [140, 173, 209],
            values: None,
            wireframe: false,
        }
    }

    /// The colour of the surface, as red, green, blue.
    pub fn color(mut self, rgb: [u8; 3]) -> Self {
        self.color = rgb;
        self
    }

    /// Colours the surface by a value for each vertex (an error, a curvature), with a colour bar.
    pub fn values(mut self, values: Vec<f32>) -> Self {
        self.values = Some(values);
        self
    }

    /// Draws the edges of the triangles.
    pub fn wireframe(mut self, show: bool) -> Self {
        self.wireframe = show;
        self
    }

    /// Draws the plot.
    ///
    /// # Errors
    /// A view out of range, or not exactly one value for each vertex; [`Error::Memory`] if the triangles do not fit in memory.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let ball = shapes::sphere(0.7).to_mesh(16)?;
    /// let heights: Vec<f32> = ball.vertices().iter().map(|vertex| vertex[2]).collect();
    /// let picture = MeshPlot::new(&ball).values(heights).size(200, 150).picture()?;
    /// assert_eq!((picture.width(), picture.height()), (200, 150));
    /// assert!(MeshPlot::new(&ball).values(vec![0.0]).picture().is_err()); // one value for many vertices
    /// # Ok::<(), Error>(())
    /// ```
    pub fn picture(&self) -> Result<Picture> {
        const OP: &str = "MeshPlot";
        self.view.check(OP)?;
        let (width, height) = self.view.size;
        if let Some(values) = self.values.as_ref().filter(|values| values.len() != self.mesh.vertices().len()) {
            let expected = format!("one value for each of {} vertices", self.mesh.vertices().len());
            return Err(Error::Shape { op: OP, what: "values", got: vec![values.len()], expected });
        }
        let drawn = self.mesh.faces().len() * if self.wireframe { 4 } else { 1 };
        memory::elements::<Polygon>(OP, "the triangles", &[drawn], 0)?;
        let [low, high] = self.mesh.bounds();
        let viewport =
            plot_area(self.view.size, &self.view.camera, &self.view.title, self.view.axes, self.values.is_some());
        let projector = Projector::fit(&self.view.camera, low, high, viewport);
        let frame = self
            .view
            .axes
            .then(|| Frame::new(&projector, low, high, self.view.camera.up, ["x", "y", "z"], self.view.theme));
        let scale = self.scale();

        let mut polygons = frame.as_ref().map_or_else(Vec::new, |frame| frame.lines.clone());
        self.add_faces(&projector, scale.as_ref(), &mut polygons);
        let mut picture = Canvas::new(width as usize, height as usize, self.view.theme.paper()).picture(&polygons);
        register_font();
        let area = FigureBackend::new(&mut picture).into_drawing_area();
        if let Some(frame) = &frame {
            frame.write(&area, self.view.theme)?;
        }
        if !self.view.title.is_empty() {
            write_text(&area, &self.view.title, (width as i32 / 2, 15), HPos::Center, 18, self.view.theme)?;
        }
        if let Some(scale) = &scale {
            scale.draw(&area, (width as i32 - 72, 56), (height as i32 - 96).max(20), self.view.theme)?;
        }
        drop(area);
        Ok(picture)
    }

    fn scale(&self) -> Option<Scale> {
        let values = self.values.as_ref()?;
        let finite = values.iter().filter(|v| v.is_finite());
        let (min, max) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v.into()), h.max(v.into())));
        let (low, high) = if min <= max { shown_range(min, max) } else { (0.0, 1.0) };
        let map = self.view.colormap.unwrap_or_else(|| Colormap::for_range(low, high));
        Some(Scale { map, low, high, label: "value".into() })
    }

    fn add_faces(&self, projector: &Projector, scale: Option<&Scale>, polygons: &mut Vec<Polygon>) {
        let normals = self.mesh.vertex_normals();
        let points: Vec<[f32; 3]> = self.mesh.vertices().iter().map(|&p| projector.project(p)).collect();
        let shades: Vec<f32> = self
            .mesh
            .vertices()
            .iter()
            .zip(&normals)
            .map(|(&p, &n)| {
                // A surface seen from behind is lit as if seen from the front.
                let towards = projector.towards_eye(p);
                let facing = n[0] * towards[0] + n[1] * towards[1] + n[2] * towards[2] >= 0.0;
                projector.brightness(if facing { n } else { n.map(|v| -v) })
            })
            .collect();
        let alpha = (self.view.alpha * 255.0).round().max(1.0) as u8;
        let mut faces: Vec<[usize; 3]> = self.mesh.faces().iter().map(|face| face.map(|v| v as usize)).collect();
        if alpha < 255 {
            let depth = |face: &[usize; 3]| face.iter().map(|&v| points[v][2]).sum::<f32>();
            faces.sort_by(|a, b| depth(a).total_cmp(&depth(b)));
        }
        for face in &faces {
            let color = match (scale, &self.values) {
                (Some(scale), Some(values)) => scale.color(face.iter().map(|&v| values[v]).sum::<f32>() / 3.0),
                _ => self.color,
            };
            polygons.push(Polygon::triangle(face.map(|v| points[v]), color, alpha, face.map(|v| shades[v])));
        }
        if self.wireframe {
            let mut edges: Vec<[usize; 2]> = faces
                .iter()
                .flat_map(|&[a, b, c]| [[a.min(b), a.max(b)], [b.min(c), b.max(c)], [a.min(c), a.max(c)]])
                .collect();
            edges.sort_unstable();
            edges.dedup();
            let ink = self.color.map(|c| (f32::from(c) * 0.35) as u8);
            polygons.extend(edges.iter().map(|&[a, b]| Polygon::line(points[a], points[b], 0.8, ink)));
        }
    }
}

impl Rich for MeshPlot {
    fn rich(&self) -> MimeBundle {
        let mut text = format!(
            "MeshPlot | {} vertices, {} faces",
            count(self.mesh.vertices().len() as u64),
            count(self.mesh.faces().len() as u64)
        );
        if !self.view.title.is_empty() {
            text = format!("{} | {text}", self.view.title);
        }
        if let Some(scale) = self.scale() {
            text += &format!(" · values from {} to {}", number(scale.low), number(scale.high));
        }
        match self.picture() {
            Ok(picture) => picture.bundle(text),
            Err(error) => Err::<MimeBundle, _>(error).rich(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::{Axis, Camera};

    /// A unit square in the plane y = 0.
    fn square() -> Mesh {
        let vertices = vec![[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]];
        Mesh::new(vertices, vec![[0, 1, 2], [0, 2, 3]]).unwrap()
    }

    #[test]
    fn a_square_seen_from_the_front_fills_its_pixels_and_wires_are_darker() {
        let camera = Camera { azimuth: -90.0, elevation: 0.0, perspective: false, up: Axis::Z, ..Default::default() };
        let plot = MeshPlot::new(&square()).color([200, 0, 0]).axes(false).camera(camera).size(100, 100);
        let red = |p: &MeshPlot| p.picture().unwrap().rgb().chunks(3).filter(|p| p[0] > 90 && p[1] < 60).count();
        // 100 pixels less 12 above and 10 below.
        let solid = red(&plot);
        assert!(solid.abs_diff(78 * 78) <= 80, "{solid}");
        // The 78 pixels of the diagonal are dark; the wires of the sides lie half outside and only dim their pixels.
        let dark = solid - red(&plot.wireframe(true));
        assert!((70..=160).contains(&dark), "{dark}");
    }

    #[test]
    fn values_of_the_wrong_number_are_refused() {
        let error = MeshPlot::new(&square()).values(vec![1.0]).picture().unwrap_err().to_string();
        assert!(error.contains("4 vertices"), "{error}");
    }
}
