//! The common settings of 3D displays: the view, the size, and the theme.

use super::Colormap;
use super::draw::{Camera, Theme};
use crate::mesh::Axis;
use crate::{Error, Result};

/// The view of a plot or viewer on its object.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub title: String,
    pub colormap: Option<Colormap>,
    pub camera: Camera,
    pub alpha: f32,
    pub size: (u32, u32),
    pub theme: Theme,
    pub axes: bool,
}

impl View {
    /// The sizes that a display may have in each direction, in pixels.
    const SIZES: std::ops::RangeInclusive<u32> = 64..=8192;

    /// The view that shows everything, with `up` upright.
    pub fn new(up: Axis) -> Self {
        Self {
            title: String::new(),
            colormap: None,
            camera: Camera { up, ..Default::default() },
            alpha: 1.0,
            size: (640, 480),
            theme: Theme::Light,
            axes: true,
        }
    }

    /// Checks that all settings are in range.
    ///
    /// # Errors
    /// [`Error::Argument`], which names the setting that is not.
    pub fn check(&self, op: &'static str) -> Result<()> {
        let (width, height) = self.size;
        if !Self::SIZES.contains(&width) || !Self::SIZES.contains(&height) {
            let expected = format!("{} to {} pixels each way", Self::SIZES.start(), Self::SIZES.end());
            return Err(Error::argument(op, "size", format!("{width}×{height}"), expected));
        }
        let Camera { azimuth, elevation, zoom, .. } = self.camera;
        for (name, value, fits, expected) in [
            ("alpha", self.alpha, self.alpha > 0.0 && self.alpha <= 1.0, "above 0, at most 1"),
            ("azimuth", azimuth, azimuth.is_finite(), "an angle in degrees"),
            ("elevation", elevation, (-90.0..=90.0).contains(&elevation), "-90 to 90 degrees"),
            ("zoom", zoom, zoom.is_finite() && zoom > 0.0, "a number above 0"),
        ] {
            if !fits {
                return Err(Error::argument(op, name, value, expected));
            }
        }
        Ok(())
    }
}

/// Writes the methods that set up a display with a field `view`. If the field is named, writes those for points, which have no opacity. A
/// setting out of range gives an error when the display is drawn.
macro_rules! view_setters {
    ($display:ident) => {
        view_setters!($display, view);
        impl $display {
            /// The opacity, above 0 to 1; a viewer starts with it.
            #[must_use]
            pub fn alpha(mut self, alpha: f32) -> Self {
                self.view.alpha = alpha;
                self
            }
        }
    };
    ($display:ident, $($view:ident).+) => {
        impl $display {
            /// Sets the title above the display.
            #[must_use]
            pub fn title(mut self, title: impl Into<String>) -> Self {
                self.$($view).+.title = title.into();
                self
            }

            /// The colormap of its values.
            #[must_use]
            pub fn colormap(mut self, colormap: $crate::notebook::Colormap) -> Self {
                self.$($view).+.colormap = Some(colormap);
                self
            }

            /// The camera; a viewer starts with it.
            #[must_use]
            pub fn camera(mut self, camera: $crate::notebook::Camera) -> Self {
                self.$($view).+.camera = camera;
                self
            }

            /// Sets the angles of the view, in degrees: `azimuth` around the upright axis, and `elevation` above the horizon, -90 to 90.
            #[must_use]
            pub fn view(mut self, azimuth: f32, elevation: f32) -> Self {
                (self.$($view).+.camera.azimuth, self.$($view).+.camera.elevation) = (azimuth, elevation);
                self
            }

            /// The axis that points up. The default is y; it is z for points, and for a mesh that could stand on z but not on y.
            #[must_use]
            pub fn up(mut self, axis: $crate::mesh::Axis) -> Self {
                self.$($view).+.camera.up = axis;
                self
            }

            /// Width and height in pixels, 64 to 8192 each; a viewer shrinks with its page.
            #[must_use]
            pub fn size(mut self, width: u32, height: u32) -> Self {
                self.$($view).+.size = (width, height);
                self
            }

            /// Light or dark theme; for a viewer, that of its still picture.
            #[must_use]
            pub fn theme(mut self, theme: $crate::notebook::Theme) -> Self {
                self.$($view).+.theme = theme;
                self
            }

            /// Whether the box, ticks and axis names are drawn; for a viewer, in its still picture.
            #[must_use]
            pub fn axes(mut self, show: bool) -> Self {
                self.$($view).+.axes = show;
                self
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let good = View::new(Axis::Y);
        assert!(good.check("Plot").is_ok());
        let camera = |camera: Camera| View { camera, ..good.clone() };
        for (name, view) in [
            ("size", View { size: (63, 480), ..good.clone() }),
            ("size", View { size: (640, 8193), ..good.clone() }),
            ("alpha", View { alpha: 0.0, ..good.clone() }),
            ("azimuth", camera(Camera { azimuth: f32::NAN, ..good.camera })),
            ("elevation", camera(Camera { elevation: 91.0, ..good.camera })),
            ("zoom", camera(Camera { zoom: 0.0, ..good.camera })),
        ] {
            let error = view.check("Plot").unwrap_err().to_string();
            assert!(error.starts_with(&format!("Plot: {name} is ")), "{error}");
        }
    }
}
