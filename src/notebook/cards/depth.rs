//! The card of a depth image: from where it was taken, and the picture.

use super::{Facts, picture_card};
use crate::notebook::draw::Picture;
use crate::notebook::html::number;
use crate::notebook::{MimeBundle, Rich};
use crate::sdf::DepthImage;
use crate::{Error, Result};

/// The greys of the farthest and the nearest surface.
const GREYS: [f32; 2] = [215.0, 45.0];
/// The side of the card's picture, in pixels.
const SIDE: u32 = 256;

impl Picture {
    /// A picture of a depth image, `side` pixels wide and high: white where there is nothing, darker where the surface is nearer. Depths are
    /// stretched to the full range of greys; a silhouette is dark.
    ///
    /// # Errors
    /// [`Error::Argument`] for no pixels, or more than 4096 on a side.
    ///
    /// ```
    /// use wavemesh::notebook::Picture;
    /// use wavemesh::prelude::*;
    /// let image = shapes::sphere(0.5).to_grid(16)?.depth_image(Viewpoint { azimuth: 0.0, elevation: 0.0 }, 8)?;
    /// let picture = Picture::of_depth(&image, 16)?;
    /// assert_eq!((picture.width(), &picture.rgb()[..3]), (16, &[255; 3][..])); // nothing in the corner
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of_depth(image: &DepthImage, side: u32) -> Result<Self> {
        if !(1..=4096).contains(&side) {
            return Err(Error::argument("Picture::of_depth", "side", side, "1 to 4096 pixels"));
        }
        let surface = || image.pixels().iter().copied().filter(|&depth| depth > 0.0);
        let (nearest, farthest) = (surface().fold(0.0, f32::max), surface().fold(1.0, f32::min));
        let grey = |depth: f32| {
            if depth == 0.0 {
                return 255;
            }
            let near = if nearest > farthest { (depth - farthest) / (nearest - farthest) } else { 1.0 };
            (GREYS[0] + (GREYS[1] - GREYS[0]) * near) as u8
        };
        let place = |at: u32| at as usize * image.size() / side as usize;
        let pixels = (0..side).flat_map(|row| (0..side).map(move |column| (row, column)));
        let rgb = pixels.flat_map(|(row, column)| [grey(image.pixels()[place(row) * image.size() + place(column)]); 3]);
        Self::from_rgb(side, side, rgb.collect())
    }
}

impl Rich for DepthImage {
    fn rich(&self) -> MimeBundle {
        let covered = self.pixels().iter().filter(|&&depth| depth > 0.0).count();
        let facts: Facts = vec![
            ("", format!("{0}×{0} pixels", self.size())),
            ("azimuth", format!("{}°", number(self.viewpoint().azimuth.into()))),
            ("elevation", format!("{}°", number(self.viewpoint().elevation.into()))),
            ("covered", format!("{:.1}%", 100.0 * covered as f64 / self.pixels().len().max(1) as f64)),
        ];
        picture_card("DepthImage", &facts, None, Some(Picture::of_depth(self, SIDE)))
    }
}
