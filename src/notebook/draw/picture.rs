//! A finished picture, and pictures side by side.

use std::path::Path;

use super::super::{MimeBundle, Rich, html::bytes, png};
use crate::{Error, Result};

/// A picture of RGB pixels. It shows itself as a PNG of at most 256 colours, which keeps notebooks small.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture from `rgb`, three bytes a pixel, rows from the top.
    ///
    /// # Errors
    /// [`Error::Shape`] when `rgb` does not have `3 · width · height` bytes.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        png::check_size(width, height, &rgb)?;
        Ok(Self { width, height, rgb })
    }

    /// A picture from a PNG file's bytes; transparency is dropped.
    ///
    /// # Errors
    /// [`Error::Format`] when it is not a PNG file that can be read.
    pub fn from_png(file: &[u8]) -> Result<Self> {
        png::decode_rgb(file).and_then(|(width, height, rgb)| Self::from_rgb(width, height, rgb))
    }

    pub(crate) fn from_rgb_unchecked(width: u32, height: u32, rgb: Vec<u8>) -> Self {
        debug_assert_eq!(rgb.len(), 3 * width as usize * height as usize);
        Self { width, height, rgb }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, three bytes each, rows from the top.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    pub(crate) fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// The picture as a PNG file of at most 256 colours.
    pub fn png(&self) -> Result<Vec<u8>> {
        png::encode_small(self.width, self.height, &self.rgb)
    }

    /// Writes the picture as a PNG file in full colour.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written; an older file then stays as it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let unfinished = path.with_extension("png.part");
        std::fs::write(&unfinished, png::encode_rgb(self.width, self.height, &self.rgb)?)
            .map_err(Error::io(&unfinished))?;
        std::fs::rename(&unfinished, path).map_err(Error::io(path))
    }

    /// The picture with a text for those who cannot see it.
    pub(crate) fn bundle(&self, text: String) -> MimeBundle {
        match self.png() {
            Ok(png) => MimeBundle::text(text).with_png(&png, self.width, self.height),
            Err(error) => MimeBundle::text(format!("{text}\n{error}")),
        }
    }
}

impl Rich for Picture {
    fn rich(&self) -> MimeBundle {
        self.bundle(format!("picture of {}×{} pixels, {}", self.width, self.height, bytes(self.rgb.len() as u64)))
    }
}

/// Puts pictures in rows of `columns`, aligned, as one picture.
///
/// ```
/// use wavemesh::notebook::{Picture, contact_sheet};
/// # fn main() -> wavemesh::Result<()> {
/// let red = Picture::from_rgb(1, 1, vec![255, 0, 0])?;
/// assert_eq!(contact_sheet(&[red.clone(), red.clone(), red], 2)?.height(), 2);
/// # Ok(()) }
/// ```
///
/// # Errors
/// No pictures or no columns.
pub fn contact_sheet(pictures: &[Picture], columns: usize) -> Result<Picture> {
    if pictures.is_empty() || columns == 0 {
        let got = format!("{} pictures in {columns} columns", pictures.len());
        return Err(Error::Argument {
            op: "contact_sheet",
            name: "pictures",
            got,
            expected: "at least one of each".into(),
        });
    }
    let columns = columns.min(pictures.len());
    let rows: Vec<&[Picture]> = pictures.chunks(columns).collect();
    let widths: Vec<usize> = (0..columns)
        .map(|c| pictures.iter().skip(c).step_by(columns).map(|p| p.width as usize).max().unwrap_or(0))
        .collect();
    let heights: Vec<usize> = rows.iter().map(|row| row.iter().map(|p| p.height as usize).max().unwrap_or(0)).collect();
    let (width, height) = (widths.iter().sum::<usize>(), heights.iter().sum::<usize>());
    let paper = [pictures[0].rgb[0], pictures[0].rgb[1], pictures[0].rgb[2]];
    let mut rgb: Vec<u8> = paper.iter().copied().cycle().take(width * height * 3).collect();
    let mut top = 0;
    for (row, row_height) in rows.iter().zip(&heights) {
        let mut left = 0;
        for (picture, column_width) in row.iter().zip(&widths) {
            let bytes = picture.width as usize * 3;
            for (y, line) in picture.rgb.chunks_exact(bytes).enumerate() {
                let at = ((top + y) * width + left) * 3;
                rgb[at..at + bytes].copy_from_slice(line);
            }
            left += column_width;
        }
        top += row_height;
    }
    Picture::from_rgb(width as u32, height as u32, rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_keeps_every_pixel_in_its_place() {
        let of = |value: u8, width: u32| Picture::from_rgb(width, 1, vec![value; width as usize * 3]).unwrap();
        let sheet = contact_sheet(&[of(1, 1), of(2, 2), of(3, 1)], 2).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (3, 2));
        let first_bytes: Vec<u8> = sheet.rgb().iter().copied().step_by(3).collect();
        assert_eq!(first_bytes, [1, 2, 2, 3, 1, 1]);
    }

    #[test]
    fn an_empty_sheet_is_an_error() {
        assert!(contact_sheet(&[], 3).unwrap_err().to_string().contains("0 pictures"));
    }
}
