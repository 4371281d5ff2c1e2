//! Pictures without a window or a system font: a depth-buffered canvas, a camera, axes, text.

mod axes;
mod camera;
mod canvas;
mod chart;
mod figure;
mod font;
mod picture;
mod pixels;
mod svg;
mod ticks;

pub use crate::mesh::Axis;
pub(crate) use axes::{Frame, Scale, plot_area, write_text};
pub use camera::Camera;
pub(crate) use camera::Projector;
pub(crate) use canvas::{Canvas, Polygon};
pub(crate) use chart::{Chart, Kind, Series};
pub use figure::{Figure, figure, figure_svg};
pub(crate) use font::register_font;
pub use picture::{Picture, animation, contact_sheet};
pub use pixels::FigureBackend;
pub(crate) use svg::svg_document;
pub(crate) use ticks::ChartAxis;

/// Colours of a plot's page: paper, ink and the lines between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Theme {
    /// Dark on white.
    #[default]
    Light,
    /// Light on near black.
    Dark,
}

impl Theme {
    pub(crate) fn paper(self) -> [u8; 3] {
        match self {
            Self::Light => [255, 255, 255],
            Self::Dark => [17, 19, 23],
        }
    }

    pub(crate) fn ink(self) -> [u8; 3] {
        match self {
            Self::Light => [40, 44, 52],
            Self::Dark => [215, 219, 226],
        }
    }

    /// Grid lines.
    pub(crate) fn line(self) -> [u8; 3] {
        match self {
            Self::Light => [200, 204, 210],
            Self::Dark => [72, 78, 88],
        }
    }
}
