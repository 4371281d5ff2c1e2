//! [`ShapeSheet`]: small pictures of many shapes, in rows.

use plotters::style::text_anchor::HPos;

use super::draw::{Axis, Picture, Theme, contact_sheet, figure, write_text};
use super::{MeshPlot, MimeBundle, Rich};
use crate::sdf::SdfGrid;
use crate::{Error, Result};

/// Small pictures of shapes in rows, with z up, as procedural and generated shapes are. The place of a shape without a surface is empty.
///
/// ```
/// use wavemesh::prelude::*;
/// let two = [shapes::sphere(0.5).to_grid(16)?, shapes::torus(0.5, 0.2).to_grid(16)?];
/// let sheet = ShapeSheet::new(&two).titles(["a ball", "a ring"]).size(100);
/// assert_eq!((sheet.picture()?.width(), sheet.picture()?.height()), (200, 100));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ShapeSheet {
    shapes: Vec<SdfGrid>,
    titles: Vec<String>,
    columns: usize,
    up: Axis,
    size: u32,
}

impl ShapeSheet {
    /// A sheet of the shapes, five in a row.
    pub fn new(shapes: &[SdfGrid]) -> Self {
        Self { shapes: shapes.to_vec(), titles: Vec::new(), columns: 5, up: Axis::Z, size: 190 }
    }

    /// A line above each shape.
    #[must_use]
    pub fn titles(mut self, titles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.titles = titles.into_iter().map(Into::into).collect();
        self
    }

    /// How many shapes are in a row.
    #[must_use]
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = columns;
        self
    }

    /// The axis that points up.
    #[must_use]
    pub fn up(mut self, axis: Axis) -> Self {
        self.up = axis;
        self
    }

    /// Width and height of a shape's picture in pixels, 64 to 8192.
    #[must_use]
    pub fn size(mut self, pixels: u32) -> Self {
        self.size = pixels;
        self
    }

    /// The single pictures, for an animation or for your own rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one title for each shape; [`Error::Argument`] for a size out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let growing = [0.2, 0.4, 0.6].map(|radius| shapes::sphere(radius).to_grid(16));
    /// let growing = growing.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// let frames = ShapeSheet::new(&growing).size(90).pictures()?;
    /// assert_eq!((frames.len(), frames[0].width()), (3, 90));
    /// assert!(notebook::animation(&frames, 300).is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn pictures(&self) -> Result<Vec<Picture>> {
        if !self.titles.is_empty() && self.titles.len() != self.shapes.len() {
            let expected = format!("{}, one for each shape", self.shapes.len());
            return Err(Error::Shape { op: "ShapeSheet", what: "titles", got: vec![self.titles.len()], expected });
        }
        let title = |i: usize| self.titles.get(i).map_or("", String::as_str);
        self.shapes.iter().enumerate().map(|(i, shape)| self.draw(shape, title(i))).collect()
    }

    /// All pictures as one.
    ///
    /// # Errors
    /// The errors of [`pictures`](Self::pictures); no shapes, or no columns.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let balls = [0.3f32, 0.4, 0.5].map(|radius| SdfGrid::from_fn([16; 3], |p| p.map(|v| v * v).iter().sum::<f32>().sqrt() - radius));
    /// let balls = balls.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// let picture = ShapeSheet::new(&balls).columns(2).size(100).picture()?;
    /// assert_eq!((picture.width(), picture.height()), (200, 200));
    /// assert!(ShapeSheet::new(&balls).titles(["only one"]).picture().is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn picture(&self) -> Result<Picture> {
        contact_sheet(&self.pictures()?, self.columns)
    }

    fn draw(&self, shape: &SdfGrid, title: &str) -> Result<Picture> {
        let has = |side: fn(&f32) -> bool| shape.values().iter().any(side);
        if has(|value| *value < 0.0) && has(|value| *value >= 0.0) {
            let plot = MeshPlot::new(&shape.to_mesh()?).up(self.up).title(title).axes(false);
            return plot.size(self.size, self.size).picture();
        }
        let empty = figure((self.size, self.size), |root| {
            Ok(write_text(root, title, (self.size as i32 / 2, 15), HPos::Center, 18, Theme::Light)?)
        })?;
        empty.into_picture()
    }
}

impl Rich for ShapeSheet {
    fn rich(&self) -> MimeBundle {
        match self.picture() {
            Ok(picture) => picture.bundle(format!("ShapeSheet | {} shapes", self.shapes.len())),
            Err(error) => Err::<MimeBundle, _>(error).rich(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdf::shapes;

    #[test]
    fn a_shape_without_a_surface_leaves_its_place_empty() {
        let shapes = [SdfGrid::from_fn([8; 3], |_| 1.0).unwrap(), shapes::sphere(0.5).to_grid(16).unwrap()];
        let sheet = ShapeSheet::new(&shapes).size(80).picture().unwrap();
        let white = |columns: std::ops::Range<usize>| {
            let pixel = |x: usize, y: usize| &sheet.rgb()[3 * (y * sheet.width() as usize + x)..][..3];
            (0..80).all(|y| columns.clone().all(|x| pixel(x, y) == [255; 3]))
        };
        assert_eq!((sheet.width(), sheet.height()), (160, 80));
        assert!(white(0..80) && !white(80..160));
    }

    #[test]
    fn titles_of_another_number_are_an_error_that_names_both() {
        let shapes = [shapes::sphere(0.5).to_grid(16).unwrap()];
        let error = ShapeSheet::new(&shapes).titles(["a", "b"]).picture().unwrap_err().to_string();
        assert!(
            error.contains("titles") && error.contains("[2]") && error.contains("1, one for each shape"),
            "{error}"
        );
        assert!(ShapeSheet::new(&shapes).size(1).picture().is_err());
    }
}
