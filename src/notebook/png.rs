//! PNG files from pixels, kept small: notebooks carry every picture they show.

use crate::{Error, Result};

/// Encodes `rgb` (three bytes a pixel, rows from the top) in full colour.
pub(crate) fn encode_rgb(width: u32, height: u32, rgb: &[u8]) -> Result<Vec<u8>> {
    let expected = 3 * width as usize * height as usize;
    if rgb.len() != expected || expected == 0 {
        return Err(Error::Shape {
            op: "image",
            what: "rgb",
            got: vec![rgb.len()],
            expected: format!("[{expected}] bytes (3 × {width} × {height}, at least one pixel)"),
        });
    }
    encode(width, height, png::ColorType::Rgb, None, rgb)
}

/// Encodes palette indices, one byte a pixel. `palette` has three bytes a colour, at most 256 colours.
pub(crate) fn encode_indexed(width: u32, height: u32, palette: Vec<u8>, indices: &[u8]) -> Result<Vec<u8>> {
    encode(width, height, png::ColorType::Indexed, Some(palette), indices)
}

fn encode(width: u32, height: u32, color: png::ColorType, palette: Option<Vec<u8>>, pixels: &[u8]) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    let io = |error: png::EncodingError| Error::Io { path: "image.png".into(), source: std::io::Error::other(error) };
    let mut writer = encoder.write_header().map_err(io)?;
    writer.write_image_data(pixels).map_err(io)?;
    writer.finish().map_err(io)?;
    Ok(file)
}
