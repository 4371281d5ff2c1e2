//! The pictures on a tensor's card: heatmaps with one pixel for each element, and the still picture, for places that do not show HTML, with
//! the histogram and all heatmaps. All have the same palette, so that no colours have to be searched for.

use base64::Engine as _;

use crate::Result;
use crate::notebook::Colormap;
use crate::notebook::colormap::{INF_COLOR, NAN_COLOR};
use crate::notebook::png;

/// The margin around the histogram and each heatmap of the still picture, in pixels.
pub(super) const MARGIN: usize = 4;
/// The height of the histogram's highest bar, and the width of a bar with the gap behind it, in pixels.
const BARS: usize = 56;
const BAR: usize = 4;
/// The places of the paper and of the bars in the palette.
const PAPER: u8 = 0;
const INK: u8 = 1;
/// The colours that values have: with the paper, the bars, NaN and ∞ they fill a palette of 256.
const LEVELS: usize = 252;

/// A PNG file and its size in pixels.
pub(super) struct Still {
    pub file: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

/// Elements as colours, panel by panel.
pub(super) struct Heat {
    palette: Vec<[u8; 3]>,
    /// The places of the elements' colours in the palette.
    panels: Vec<Vec<u8>>,
    columns: usize,
    rows: usize,
}

impl Heat {
    /// The colours of the panels' values, row by row.
    pub fn new(panels: &[Vec<f64>], [columns, rows]: [usize; 2], (low, high): (f64, f64), map: Colormap) -> Self {
        let mut palette = vec![[255; 3], [74, 144, 196]];
        let mut places = [None; LEVELS + 2];
        let mut place = |&value: &f64| {
            let level = match value {
                v if v.is_nan() => LEVELS,
                v if v.is_infinite() => LEVELS + 1,
                v => (((v - low) / (high - low) * (LEVELS - 1) as f64 + 0.5) as usize).min(LEVELS - 1),
            };
            *places[level].get_or_insert_with(|| {
                palette.push(match level {
                    LEVELS => NAN_COLOR,
                    level if level > LEVELS => INF_COLOR,
                    level => map.color(level as f32 / (LEVELS - 1) as f32),
                });
                (palette.len() - 1) as u8
            })
        };
        let panels = panels.iter().map(|values| values.iter().map(&mut place).collect()).collect();
        Self { palette, panels, columns, rows }
    }

    /// A panel as a PNG file in base64 with one pixel for each element.
    pub fn png(&self, panel: usize) -> Result<String> {
        let (columns, rows) = (self.columns as u32, self.rows as u32);
        let file = png::encode_indexed(columns, rows, self.palette.concat(), &self.panels[panel])?;
        Ok(base64::engine::general_purpose::STANDARD.encode(file))
    }

    /// The histogram and all panels side by side, each panel enlarged to `width × height` pixels.
    pub fn still(&self, histogram: &[u64], [width, height]: [u32; 2]) -> Result<Still> {
        let [width, height] = [width, height].map(|side| side as usize);
        let bars = histogram.len() * BAR + 2 * MARGIN;
        let whole = [bars + self.panels.len() * (width + 2 * MARGIN), BARS.max(height) + 2 * MARGIN];
        let mut pixels = vec![PAPER; whole[0] * whole[1]];
        let most = histogram.iter().copied().max().unwrap_or(0).max(1) as f64;
        for (bin, &n) in histogram.iter().enumerate().filter(|(_, n)| **n > 0) {
            let tall = (n as f64 / most * BARS as f64).max(1.0) as usize;
            for y in MARGIN + BARS - tall..MARGIN + BARS {
                pixels[y * whole[0] + MARGIN + BAR * bin..][..BAR - 1].fill(INK);
            }
        }
        let columns: Vec<usize> = (0..width).map(|x| (x * self.columns / width).min(self.columns - 1)).collect();
        for (panel, places) in self.panels.iter().enumerate() {
            let left = bars + panel * (width + 2 * MARGIN) + MARGIN;
            let mut drawn = None;
            for y in 0..height {
                let row = (y * self.rows / height).min(self.rows - 1);
                let start = (MARGIN + y) * whole[0] + left;
                if drawn == Some(row) {
                    let above = start - whole[0];
                    pixels.copy_within(above..above + width, start);
                } else {
                    let places = &places[row * self.columns..][..self.columns];
                    pixels[start..][..width]
                        .iter_mut()
                        .zip(&columns)
                        .for_each(|(pixel, &column)| *pixel = places[column]);
                    drawn = Some(row);
                }
            }
        }
        let [width, height] = whole.map(|side| side as u32);
        Ok(Still { file: png::encode_indexed(width, height, self.palette.concat(), &pixels)?, width, height })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notebook::Picture;

    #[test]
    fn all_colours_at_once_fit_in_the_palette() {
        let values: Vec<f64> = (0..4000).map(|i| f64::from(i) / 3999.0).chain([f64::NAN, f64::INFINITY]).collect();
        let heat = Heat::new(&[values], [2001, 2], (0.0, 1.0), Colormap::Viridis);
        assert_eq!(heat.palette.len(), 256);
        assert_eq!(heat.palette[usize::from(*heat.panels[0].last().unwrap())], INF_COLOR);
    }

    #[test]
    fn the_still_picture_has_the_histogram_and_each_panel_in_its_place() {
        let heat = Heat::new(&[vec![0.0, 1.0], vec![1.0, 0.0]], [1, 2], (0.0, 1.0), Colormap::Grey);
        let still = heat.still(&[2, 1], [10, 60]).unwrap();
        let picture = Picture::from_png(&still.file).unwrap();
        assert_eq!((still.width, still.height), ((16 + 18 + 18) as u32, 68));
        let pixel = |x: usize, y: usize| picture.rgb()[(y * 52 + x) * 3..][..3].to_vec();
        let (ink, black, white) = ([74, 144, 196], [0; 3], [255; 3]);
        assert_eq!([pixel(4, 4), pixel(8, 4), pixel(8, 59), pixel(7, 59)], [ink, white, ink, white]);
        assert_eq!([pixel(20, 4), pixel(29, 33), pixel(20, 34), pixel(30, 4)], [black, black, white, white]);
        assert_eq!([pixel(38, 33), pixel(38, 34), pixel(47, 63), pixel(48, 63)], [white, black, black, white]);
    }
}
