//! PNG files from pixels, kept small, since notebooks contain every picture that they show.

use std::collections::HashMap;

use crate::wide::wide_fn;
use crate::{Error, Result};

/// Encodes `rgb` (three bytes per pixel, rows from the top) in full colour.
pub(crate) fn encode_rgb(width: u32, height: u32, rgb: &[u8]) -> Result<Vec<u8>> {
    check_size(width, height, rgb)?;
    encode(width, height, png::ColorType::Rgb, None, rgb)
}

/// Encodes `rgb` with a palette: exact if there are at most 256 colours, otherwise with the 256 that fit best.
pub(crate) fn encode_small(width: u32, height: u32, rgb: &[u8]) -> Result<Vec<u8>> {
    check_size(width, height, rgb)?;
    let (palette, indices) = indexed(rgb, width as usize);
    encode_indexed(width, height, palette, &indices)
}

/// Encodes frames of one size, one below the other in `rgb`, as an animated PNG that repeats for ever, with one palette.
pub(crate) fn encode_animated(width: u32, height: u32, rgb: &[u8], milliseconds: u16) -> Result<Vec<u8>> {
    let frame = width as usize * height as usize;
    let (palette, indices) = indexed(rgb, width as usize);
    let io = |error: png::EncodingError| Error::Io { path: "image.png".into(), error: std::io::Error::other(error) };
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(palette);
    encoder.set_animated((indices.len() / frame) as u32, 0).map_err(io)?;
    encoder.set_frame_delay(milliseconds, 1000).map_err(io)?;
    let mut writer = encoder.write_header().map_err(io)?;
    indices.chunks_exact(frame).try_for_each(|frame| writer.write_image_data(frame)).map_err(io)?;
    writer.finish().map_err(io)?;
    Ok(file)
}

/// A palette of at most 256 colours, three bytes each, and its entry for each pixel.
fn indexed(rgb: &[u8], width: usize) -> (Vec<u8>, Vec<u8>) {
    let mut numbers: HashMap<[u8; 3], u32, ByMultiplication> = HashMap::default();
    let mut colors: Vec<([u8; 3], u32)> = Vec::new();
    // Most of a picture is paper, or an element enlarged: equal neighbours, in a row and as rows, are looked up only once.
    let (pixels, _) = rgb.as_chunks::<3>();
    let rows: Vec<&[[u8; 3]]> = pixels.chunks(width.max(1)).collect();
    // Colours' numbers and how many pixels follow each other with them; for each group of equal rows, the end of its runs and how many rows
    // these are.
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for equal in rows.chunk_by(|a, b| a == b) {
        for run in equal[0].chunk_by(|a, b| a == b) {
            let number = *numbers.entry(run[0]).or_insert_with(|| {
                colors.push((run[0], 0));
                colors.len() as u32 - 1
            });
            colors[number as usize].1 += (run.len() * equal.len()) as u32;
            runs.push((number, run.len() as u32));
        }
        groups.push((runs.len(), equal.len()));
    }
    // Sorted, so that the palette does not depend on the order of the pixels.
    let mut order: Vec<u32> = (0..colors.len() as u32).collect();
    order.sort_unstable_by_key(|&number| colors[number as usize]);
    let sorted: Vec<([u8; 3], u32)> = order.iter().map(|&number| colors[number as usize]).collect();
    let (palette, entries) = if sorted.len() <= 256 {
        (sorted.iter().map(|(color, _)| *color).collect(), (0..sorted.len()).map(|entry| entry as u8).collect())
    } else {
        let palette = best_palette(&sorted);
        let entries = nearest(&Planes::new(&palette), &sorted);
        (palette, entries)
    };
    let mut entry_of = vec![0; colors.len()];
    order.iter().zip(entries).for_each(|(&number, entry): (_, u8)| entry_of[number as usize] = entry);
    let mut indices = Vec::with_capacity(pixels.len());
    let mut first = 0;
    for (end, equal) in groups {
        let start = indices.len();
        for &(number, count) in &runs[first..end] {
            indices.resize(indices.len() + count as usize, entry_of[number as usize]);
        }
        let row = start..indices.len();
        (1..equal).for_each(|_| indices.extend_from_within(row.clone()));
        first = end;
    }
    (palette.into_iter().flatten().collect(), indices)
}

/// A fast hash for colours; nobody makes them collide on purpose.
#[derive(Clone, Copy, Default)]
struct ByMultiplication(u64);

impl std::hash::BuildHasher for ByMultiplication {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl std::hash::Hasher for ByMultiplication {
    fn write(&mut self, bytes: &[u8]) {
        let word = bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Reads a PNG file: width, height, and three bytes per pixel.
pub(crate) fn decode_rgb(file: &[u8]) -> Result<(u32, u32, Vec<u8>)> {
    let bad = |problem: String| Error::Format { path: "image.png".into(), format: "PNG", problem };
    let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| bad(error.to_string()))?;
    let size = reader.output_buffer_size().ok_or_else(|| bad("it is too large".into()))?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).map_err(|error| bad(error.to_string()))?;
    let channels = info.color_type.samples();
    let rgb = pixels[..info.buffer_size()]
        .chunks_exact(channels)
        .flat_map(|p| if channels < 3 { [p[0]; 3] } else { [p[0], p[1], p[2]] })
        .collect();
    Ok((info.width, info.height, rgb))
}

/// Median cut: the box of colours with the most pixels × extent is halved along its longest side until there are 256 boxes.
fn best_palette(colors: &[([u8; 3], u32)]) -> Vec<[u8; 3]> {
    struct Box<'a> {
        colors: Vec<&'a ([u8; 3], u32)>,
        axis: usize,
        extent: u8,
        weight: u64,
    }
    fn boxed<'a>(colors: Vec<&'a ([u8; 3], u32)>) -> Box<'a> {
        let extent = |axis: usize| {
            let values = || colors.iter().map(|(color, _)| color[axis]);
            values().max().unwrap_or(0) - values().min().unwrap_or(0)
        };
        let axis = (0..3).max_by_key(|&axis| extent(axis)).unwrap_or(0);
        // Rare colours (thin lines, text) still count: the weight grows with the square root of the number of pixels.
        let weight = colors.iter().map(|(_, n)| u64::from(n.isqrt())).sum();
        Box { axis, extent: extent(axis), weight, colors }
    }
    let mut boxes = vec![boxed(colors.iter().collect())];
    while boxes.len() < 256 {
        let score = |b: &Box| b.weight * u64::from(b.extent) * u64::from(b.extent > 0);
        let Some(largest) = (0..boxes.len()).max_by_key(|&i| score(&boxes[i])).filter(|&i| boxes[i].extent > 0) else {
            break;
        };
        let Box { mut colors, axis, weight, .. } = boxes.swap_remove(largest);
        colors.sort_unstable_by_key(|(color, _)| color[axis]);
        let mut sum = 0;
        let half = colors.iter().position(|(_, n)| {
            sum += u64::from(n.isqrt());
            2 * sum >= weight
        });
        let half = half.unwrap_or(0).clamp(1, colors.len() - 1);
        let right = colors.split_off(half);
        boxes.push(boxed(colors));
        boxes.push(boxed(right));
    }
    let mean = |b: &Box| {
        let pixels: u64 = b.colors.iter().map(|(_, n)| u64::from(*n)).sum();
        std::array::from_fn(|i| {
            (b.colors.iter().map(|(color, n)| u64::from(color[i]) * u64::from(*n)).sum::<u64>() / pixels.max(1)) as u8
        })
    };
    boxes.iter().map(mean).collect()
}

/// A palette in three planes, so that many entries can be compared at a time.
struct Planes([[i32; 256]; 3]);

impl Planes {
    fn new(palette: &[[u8; 3]]) -> Self {
        // Unused entries are far from every colour.
        let mut planes = [[1 << 10; 256]; 3];
        for (i, color) in palette.iter().enumerate() {
            (0..3).for_each(|c| planes[c][i] = color[c].into());
        }
        Self(planes)
    }
}

wide_fn! {
    /// The entry of the palette that is nearest to each colour; the first if several are equally near.
    fn nearest(planes: &Planes, colors: &[([u8; 3], u32)]) -> Vec<u8> {
        let [reds, greens, blues] = &planes.0;
        let mut entries = vec![0; colors.len()];
        for (entry, ([r, g, b], _)) in entries.iter_mut().zip(colors) {
            let (r, g, b) = (i32::from(*r), i32::from(*g), i32::from(*b));
            let mut least = i32::MAX;
            for i in 0..256 {
                let (dr, dg, db) = (reds[i] - r, greens[i] - g, blues[i] - b);
                // The low bits hold the entry's number, so that of equal distances the first is the smallest.
                least = least.min((dr * dr + dg * dg + db * db) << 8 | i as i32);
            }
            *entry = (least & 255) as u8;
        }
        entries
    }
}

/// Checks that there are three bytes for each pixel, and at least one pixel.
pub(crate) fn check_size(width: u32, height: u32, rgb: &[u8]) -> Result<()> {
    let expected = 3 * u128::from(width) * u128::from(height);
    if rgb.len() as u128 != expected || expected == 0 {
        return Err(Error::Shape {
            op: "image",
            what: "rgb",
            got: vec![rgb.len()],
            expected: format!("[{expected}] bytes (3 × {width} × {height}, at least one pixel)"),
        });
    }
    Ok(())
}

/// Encodes palette indices, one byte per pixel. `palette` has three bytes per colour and at most 256 colours.
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
        // Palette entries are not quantities, so differences between them do not help. This is a twentieth larger than level 6, in half the
        // time.
        encoder.set_filter(png::Filter::NoFilter);
        encoder.set_deflate_compression(png::DeflateCompression::Level(2));
    }
    let io = |error: png::EncodingError| Error::Io { path: "image.png".into(), error: std::io::Error::other(error) };
    let mut writer = encoder.write_header().map_err(io)?;
    writer.write_image_data(pixels).map_err(io)?;
    writer.finish().map_err(io)?;
    Ok(file)
}
