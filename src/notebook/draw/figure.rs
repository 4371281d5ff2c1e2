//! Any plotters drawing as an output, with text that needs no system fonts.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{FigureBackend, Picture, register_font};
use crate::notebook::{MimeBundle, Rich};
use crate::{Error, Result};

/// The longest side of a figure, in pixels.
const MOST: u32 = 16384;

/// A finished plotters drawing; made by [`figure`] or [`figure_svg`].
#[derive(Clone, Debug)]
pub struct Figure {
    width: u32,
    height: u32,
    drawn: Drawn,
}

#[derive(Clone, Debug)]
enum Drawn {
    Pixels(Picture),
    Svg(String),
}

impl Figure {
    /// The pixels, if the figure was drawn as pixels.
    pub fn picture(&self) -> Option<&Picture> {
        match &self.drawn {
            Drawn::Pixels(picture) => Some(picture),
            Drawn::Svg(_) => None,
        }
    }

    /// The pixels of a figure that was drawn as pixels.
    pub(crate) fn into_picture(self) -> Result<Picture> {
        match self.drawn {
            Drawn::Pixels(picture) => Ok(picture),
            Drawn::Svg(_) => Err(failed("drawn as SVG")),
        }
    }

    /// The SVG document, if the figure was drawn as SVG.
    pub fn svg(&self) -> Option<&str> {
        match &self.drawn {
            Drawn::Pixels(_) => None,
            Drawn::Svg(svg) => Some(svg),
        }
    }
}

impl Rich for Figure {
    fn rich(&self) -> MimeBundle {
        let text = format!("figure of {}×{} pixels", self.width, self.height);
        match &self.drawn {
            Drawn::Pixels(picture) => picture.bundle(text),
            Drawn::Svg(svg) => MimeBundle::text(text).with_svg(svg.clone()),
        }
    }
}

fn check_size(op: &'static str, (width, height): (u32, u32)) -> Result<()> {
    if (1..=MOST).contains(&width) && (1..=MOST).contains(&height) {
        return Ok(());
    }
    let got = format!("{width}×{height}");
    Err(Error::Argument { op, name: "size", got, expected: format!("1 to {MOST} pixels each way") })
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Argument {
        op: "figure",
        name: "draw",
        got: format!("error: {error}"),
        expected: "a drawing without errors".into(),
    }
}

/// Draws with plotters and shows the result as a PNG. The drawing area starts white.
///
/// ```
/// use wavemesh::notebook::figure;
/// use plotters::prelude::*;
/// let plot = figure((300, 200), |root| {
///     let mut chart = ChartBuilder::on(root).margin(10).caption("x²", ("sans-serif", 18)).x_label_area_size(24)
///         .y_label_area_size(30).build_cartesian_2d(-1f32..1.0, 0f32..1.0)?;
///     chart.configure_mesh().draw()?;
///     chart.draw_series(LineSeries::new((-10..=10).map(|i| i as f32 / 10.0).map(|x| (x, x * x)), &BLUE))?;
///     Ok(())
/// })?;
/// assert!(plot.picture().is_some());
/// # Ok::<(), wavemesh::Error>(())
/// ```
///
/// # Errors
/// A size of zero or above 16384, or an error of the drawing.
pub fn figure<F>(size: (u32, u32), draw: F) -> Result<Figure>
where
    F: FnOnce(&DrawingArea<FigureBackend, Shift>) -> Result<(), Box<dyn std::error::Error>>,
{
    register_font();
    let (width, height) = size;
    check_size("figure", size)?;
    let mut picture = Picture::from_rgb(width, height, vec![255; 3 * width as usize * height as usize])?;
    {
        let root = FigureBackend::new(&mut picture).into_drawing_area();
        draw(&root).map_err(failed)?;
        root.present().map_err(failed)?;
    }
    Ok(Figure { width, height, drawn: Drawn::Pixels(picture) })
}

/// Draws with plotters and shows the result as SVG, which is sharp at any size; best with few shapes.
///
/// # Errors
/// A size of zero or above 16384, or an error of the drawing.
///
/// ```
/// use plotters::prelude::*;
/// use wavemesh::notebook::figure_svg;
/// use wavemesh::prelude::plotters;
/// let plot = figure_svg((80, 40), |root| {
///     root.fill(&WHITE)?;
///     root.draw(&Circle::new((40, 20), 10, RED.filled()))?;
///     Ok(())
/// })?;
/// assert!(plot.svg().unwrap().contains("<circle"));
/// # Ok::<(), wavemesh::Error>(())
/// ```
pub fn figure_svg<F>(size: (u32, u32), draw: F) -> Result<Figure>
where
    F: FnOnce(&DrawingArea<SVGBackend, Shift>) -> Result<(), Box<dyn std::error::Error>>,
{
    register_font();
    let (width, height) = size;
    check_size("figure_svg", size)?;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&root).map_err(failed)?;
        root.present().map_err(failed)?;
    }
    Ok(Figure { width, height, drawn: Drawn::Svg(svg) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_without_system_fonts() {
        let plot = figure((80, 40), |root| {
            root.draw(&Text::new("Wave", (5, 5), ("sans-serif", 24).into_font().color(&BLACK)))?;
            Ok(())
        })
        .unwrap();
        let dark = plot.picture().unwrap().rgb().chunks(3).filter(|p| p[0] < 100).count();
        assert!(dark > 60, "{dark} dark pixels");
    }

    #[test]
    fn svg_keeps_text_as_text() {
        let plot =
            figure_svg((80, 40), |root| Ok(root.draw(&Text::new("<Wave>", (5, 5), ("sans-serif", 24)))?)).unwrap();
        assert!(plot.svg().unwrap().contains("&lt;Wave&gt;"));
    }

    #[test]
    fn a_failing_drawing_is_an_error_with_its_reason() {
        let error = figure((10, 10), |_| Err("no data".into())).unwrap_err().to_string();
        assert!(error.contains("no data"), "{error}");
        assert!(figure((0, 10), |_| Ok(())).is_err());
        assert!(figure((u32::MAX, u32::MAX), |_| Ok(())).unwrap_err().to_string().contains("16384"));
    }
}
