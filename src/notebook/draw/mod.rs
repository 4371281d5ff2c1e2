//! Pictures without a window or system fonts: a depth-buffered canvas, a camera, axes, text.

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

    /// The theme whose ink has the greater contrast on this colour (WCAG 2.1, contrast ratio).
    pub(crate) fn readable_on(ground: [u8; 3]) -> Theme {
        let luminance = |color: [u8; 3]| -> f64 {
            let linear = color.map(|c| (f64::from(c) / 255.0).powf(2.2));
            0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        };
        let contrast = |theme: Theme| {
            let (ink, ground) = (luminance(theme.ink()) + 0.05, luminance(ground) + 0.05);
            (ink / ground).max(ground / ink)
        };
        if contrast(Theme::Light) >= contrast(Theme::Dark) { Theme::Light } else { Theme::Dark }
    }

    /// Grid lines.
    pub(crate) fn line(self) -> [u8; 3] {
        match self {
            Self::Light => [200, 204, 210],
            Self::Dark => [72, 78, 88],
        }
    }
}
