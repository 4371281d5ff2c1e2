//! A finished picture, and pictures side by side.

use std::path::Path;

use super::super::{MimeBundle, Rich, html::bytes, png};
use crate::files::write_atomically;
use crate::{Error, Result};

/// A picture of RGB pixels. It is shown as a PNG of at most 256 colours, which keeps notebooks small.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture from `rgb`: three bytes per pixel, rows from the top.
    ///
    /// # Errors
    /// [`Error::Shape`] if `rgb` does not have `3 · width · height` bytes.
    ///
    /// ```
    /// use wavemesh::notebook::Picture;
    /// let red_and_blue = Picture::from_rgb(2, 1, vec![255, 0, 0, 0, 0, 255])?;
    /// assert_eq!((red_and_blue.width(), red_and_blue.height()), (2, 1));
    /// assert!(Picture::from_rgb(2, 2, vec![255, 0, 0]).is_err()); // 12 bytes are needed
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        png::check_size(width, height, &rgb)?;
        Ok(Self { width, height, rgb })
    }

    /// A picture from the bytes of a PNG file; transparency is dropped.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not a valid PNG file.
    ///
    /// ```
    /// use wavemesh::notebook::Picture;
    /// let picture = Picture::from_rgb(2, 1, vec![255, 0, 0, 0, 0, 255])?;
    /// assert_eq!(Picture::from_png(&picture.png()?)?, picture);
    /// assert!(Picture::from_png(b"GIF89a").is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
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
    ///
    /// # Errors
    /// If the picture has no pixels, or the file does not fit in memory.
    ///
    /// ```
    /// use wavemesh::notebook::Picture;
    /// let file = Picture::from_rgb(100, 100, vec![255; 30_000])?.png()?;
    /// assert!(file.starts_with(b"\x89PNG") && file.len() < 1000);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn png(&self) -> Result<Vec<u8>> {
        png::encode_small(self.width, self.height, &self.rgb)
    }

    /// Writes the picture as a `.png` file in full colour.
    ///
    /// # Errors
    /// [`Error::Unknown`] for another extension; [`Error::Io`] if the file cannot be written; an older file is then unchanged.
    ///
    /// ```
    /// use wavemesh::notebook::Picture;
    /// let picture = Picture::from_rgb(1, 1, vec![255, 0, 0])?;
    /// let path = std::env::temp_dir().join("wavemesh-picture-example.png");
    /// picture.save(&path)?;
    /// assert!(picture.save("picture.jpg").is_err()); // PNG is all it writes
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        if !path.as_ref().extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
            let name = path.as_ref().display().to_string();
            return Err(Error::Unknown { kind: "extension for writing a picture", name, known: "png".into() });
        }
        write_atomically(path.as_ref(), &png::encode_rgb(self.width, self.height, &self.rgb)?)
    }

    /// The picture with a text for readers who cannot see it.
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

/// Arranges pictures in rows of `columns`, aligned, as one picture.
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
    let mut rgb = vec![0; width * height * 3];
    rgb.as_chunks_mut().0.fill(paper);
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

/// Shows pictures of one size one after the other, each for `milliseconds`, and repeats: an animated PNG, which browsers play without a
/// script.
///
/// ```
/// use wavemesh::notebook::{Picture, animation};
/// # fn main() -> wavemesh::Result<()> {
/// let frame = |value| Picture::from_rgb(1, 1, vec![value; 3]);
/// assert!(animation(&[frame(0)?, frame(255)?], 200)?.get("image/png").is_some());
/// # Ok(()) }
/// ```
///
/// # Errors
/// No pictures, or pictures of different sizes.
pub fn animation(pictures: &[Picture], milliseconds: u16) -> Result<MimeBundle> {
    let sizes: Vec<[u32; 2]> = pictures.iter().map(|p| [p.width, p.height]).collect();
    if sizes.is_empty() || sizes.iter().any(|size| *size != sizes[0]) {
        return Err(Error::Argument {
            op: "animation",
            name: "pictures",
            got: format!("{} of the sizes {sizes:?}", sizes.len()),
            expected: "at least one, all of one size".into(),
        });
    }
    let [width, height] = sizes[0];
    let rgb: Vec<u8> = pictures.iter().flat_map(|p| p.rgb.iter().copied()).collect();
    let png = png::encode_animated(width, height, &rgb, milliseconds)?;
    let text = format!("animation of {} pictures of {width}×{height} pixels", pictures.len());
    Ok(MimeBundle::text(text).with_png(&png, width, height))
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
    fn an_animation_holds_every_frame() {
        let frame = |value: u8| Picture::from_rgb(2, 1, vec![value; 6]).unwrap();
        let rgb: Vec<u8> = [10, 200, 30].iter().flat_map(|&v| frame(v).rgb).collect();
        let file = png::encode_animated(2, 1, &rgb, 100).unwrap();
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        assert_eq!(reader.info().animation_control().unwrap().num_frames, 3);
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let first: Vec<u8> = (0..3).map(|_| reader.next_frame(&mut pixels).map(|_| pixels[0]).unwrap()).collect();
        assert_eq!(first, [0, 2, 1], "entries of the palette, which is sorted");
        let other = Picture::from_rgb(1, 1, vec![0; 3]).unwrap();
        assert!(animation(&[frame(1), other], 100).unwrap_err().to_string().contains("[[2, 1], [1, 1]]"));
    }

    #[test]
    fn an_empty_sheet_is_an_error() {
        assert!(contact_sheet(&[], 3).unwrap_err().to_string().contains("0 pictures"));
    }
}
