//! The pixels on which plotters draws: smooth lines and well-spaced letters in the bundled font.
//!
//! plotters' own bitmap backend starts each letter on a whole pixel without its bearing, and puts the points of a curve on whole pixels. At
//! the sizes of a notebook, this gives uneven words and stairs.

use ab_glyph::{Font, FontRef, GlyphId, PxScale, ScaleFont, point};
use plotters::backend::BitMapBackend;
use plotters::prelude::DrawingBackend;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind};

use super::Picture;
use super::font::{FAMILIES, FONT};

type Drawn<'a> = Result<(), DrawingErrorKind<<BitMapBackend<'a> as DrawingBackend>::ErrorType>>;

/// The distance from the top of a line of text to its baseline, and its height, as multiples of the font size (plotters' layout).
const BASELINE: f32 = 0.705;
const HEIGHT: f32 = 1.0 / 1.24;

/// The backend of [`figure`](super::figure())'s drawing area.
pub struct FigureBackend<'a> {
    pixels: BitMapBackend<'a>,
    size: (u32, u32),
}

impl<'a> FigureBackend<'a> {
    pub(crate) fn new(picture: &'a mut Picture) -> Self {
        let size = (picture.width(), picture.height());
        Self { pixels: BitMapBackend::with_buffer(picture.rgb_mut(), size), size }
    }

    /// Blends a shape over the pixels of a box, with the `coverage` of each pixel from 0 to 1.
    fn blend(
        &mut self,
        [left, top, right, bottom]: [f32; 4],
        color: BackendColor,
        coverage: impl Fn(f32, f32) -> f32,
    ) -> Drawn<'a> {
        let within = |v: f32, n: u32| v.clamp(0.0, n as f32) as i32;
        for y in within(top.floor(), self.size.1)..within(bottom.ceil() + 1.0, self.size.1) {
            for x in within(left.floor(), self.size.0)..within(right.ceil() + 1.0, self.size.0) {
                let part = coverage(x as f32, y as f32).clamp(0.0, 1.0);
                if part > 0.0 {
                    let alpha = color.alpha * f64::from(part);
                    self.pixels.draw_pixel((x, y), BackendColor { alpha, ..color })?;
                }
            }
        }
        Ok(())
    }

    /// A line through points, with round joints.
    fn stroke(&mut self, points: &[[f32; 2]], style: &impl BackendStyle) -> Drawn<'a> {
        let reach = style.stroke_width() as f32 / 2.0 + 0.5;
        let low = |axis: usize| points.iter().map(|p| p[axis]).fold(f32::INFINITY, f32::min) - reach;
        let high = |axis: usize| points.iter().map(|p| p[axis]).fold(f32::NEG_INFINITY, f32::max) + reach;
        let [left, top] = [0, 1].map(|axis| low(axis).max(0.0).floor());
        let right = high(0).min(self.size.0 as f32 - 1.0).ceil();
        let bottom = high(1).min(self.size.1 as f32 - 1.0).ceil();
        if points.len() < 2 || right < left || bottom < top {
            return Ok(());
        }
        // Each pixel is covered once, however many pieces touch it, so that translucent lines have no knots.
        let (width, height) = ((right - left) as usize + 1, (bottom - top) as usize + 1);
        let mut coverage = vec![0f32; width * height];
        for piece in points.windows(2) {
            let [[ax, ay], [bx, by]] = [piece[0], piece[1]].map(|[x, y]| [x - left, y - top]);
            let (dx, dy) = (bx - ax, by - ay);
            let length = (dx * dx + dy * dy).max(1e-9);
            let rows = (ay.min(by) - reach).max(0.0) as usize
                ..((ay.max(by) + reach).ceil().max(-1.0) + 1.0).min(height as f32) as usize;
            for y in rows {
                // Only the columns that the piece can reach in this row.
                let (first, last) = if dy.abs() > 1e-3 {
                    let at = |v: f32| ax + (v - ay).clamp(dy.min(0.0), dy.max(0.0)) / dy * dx;
                    let (a, b) = (at(y as f32 - reach), at(y as f32 + reach));
                    (a.min(b), a.max(b))
                } else {
                    (ax.min(bx), ax.max(bx))
                };
                let columns = (first - reach).max(0.0) as usize
                    ..((last + reach).ceil().max(-1.0) + 1.0).min(width as f32) as usize;
                for x in columns {
                    let (px, py) = (x as f32 - ax, y as f32 - ay);
                    let t = ((px * dx + py * dy) / length).clamp(0.0, 1.0);
                    let part = (reach - (px - t * dx).hypot(py - t * dy)).clamp(0.0, 1.0);
                    let most = &mut coverage[y * width + x];
                    *most = most.max(part);
                }
            }
        }
        self.blend([left, top, right, bottom], style.color(), |x, y| {
            let (x, y) = ((x - left) as usize, (y - top) as usize);
            if x < width && y < height { coverage[y * width + x] } else { 0.0 }
        })
    }
}

/// The points of a curve without the stairs of whole pixels: where points are close together, each moves to the mean of its neighbourhood.
fn without_stairs(path: &[BackendCoord]) -> Vec<[f32; 2]> {
    let mut points: Vec<[f32; 2]> = path.iter().map(|&(x, y)| [x as f32, y as f32]).collect();
    points.dedup();
    let near = |a: [f32; 2], b: [f32; 2]| (a[0] - b[0]).abs().max((a[1] - b[1]).abs()) <= 3.0;
    for _ in 0..2 {
        let before = points.clone();
        for i in 1..points.len().saturating_sub(1) {
            let (a, b, c) = (before[i - 1], before[i], before[i + 1]);
            if near(a, b) && near(b, c) {
                points[i] = std::array::from_fn(|axis| (a[axis] + 2.0 * b[axis] + c[axis]) / 4.0);
            }
        }
    }
    points
}

/// A line of text: its letters with their places, and its length.
fn letters(font: &FontRef<'static>, size: f32, text: &str) -> (Vec<(GlyphId, f32)>, f32) {
    let scaled = font.as_scaled(PxScale::from(size));
    let (mut at, mut last, mut placed) = (0.0, None, Vec::new());
    for letter in text.chars() {
        let id = scaled.glyph_id(letter);
        at += last.map_or(0.0, |last| scaled.kern(last, id));
        placed.push((id, at));
        at += scaled.h_advance(id);
        last = Some(id);
    }
    (placed, at)
}

/// The bundled font, if the style selects it and it has every letter.
fn bundled(style: &impl BackendTextStyle, text: &str) -> Option<FontRef<'static>> {
    let font = FontRef::try_from_slice(FONT).ok()?;
    let known = FAMILIES.contains(&style.family().as_str());
    (known && text.chars().all(|letter| font.glyph_id(letter).0 != 0)).then_some(font)
}

impl<'a> DrawingBackend for FigureBackend<'a> {
    type ErrorType = <BitMapBackend<'a> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn<'a> {
        self.pixels.ensure_prepared()
    }

    fn present(&mut self) -> Drawn<'a> {
        self.pixels.present()
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawn<'a> {
        self.pixels.draw_pixel(point, color)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn<'a> {
        self.stroke(&[from, to].map(|(x, y)| [x as f32, y as f32]), style)
    }

    fn draw_rect<S: BackendStyle>(&mut self, a: BackendCoord, b: BackendCoord, style: &S, fill: bool) -> Drawn<'a> {
        self.pixels.draw_rect(a, b, style, fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn<'a> {
        let path: Vec<BackendCoord> = path.into_iter().collect();
        self.stroke(&without_stairs(&path), style)
    }

    fn draw_circle<S: BackendStyle>(&mut self, (x, y): BackendCoord, radius: u32, style: &S, fill: bool) -> Drawn<'a> {
        let (x, y, radius) = (x as f32, y as f32, radius as f32);
        let half = style.stroke_width() as f32 / 2.0;
        let reach = radius + half + 0.5;
        self.blend([x - reach, y - reach, x + reach, y + reach], style.color(), |px, py| {
            let distance = (px - x).hypot(py - y);
            if fill { radius + 0.5 - distance } else { half + 0.5 - (distance - radius).abs() }
        })
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Drawn<'a> {
        self.pixels.fill_polygon(corners, style)
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, (x, y): BackendCoord) -> Drawn<'a> {
        let Some(font) = bundled(style, text) else { return self.pixels.draw_text(text, style, (x, y)) };
        let (size, color, turn) = (style.size() as f32, style.color(), style.transform());
        let (letters, length) = letters(&font, size, text);
        let left = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -length / 2.0,
            HPos::Right => -length,
        };
        let baseline = match style.anchor().v_pos {
            VPos::Top => BASELINE * size,
            VPos::Center => (BASELINE - HEIGHT / 2.0) * size,
            VPos::Bottom => (BASELINE - HEIGHT) * size,
        };
        let mut dots = Vec::new();
        for (id, at) in letters {
            let glyph = id.with_scale_and_position(PxScale::from(size), point(left + at, baseline.round()));
            if let Some(outline) = font.outline_glyph(glyph) {
                let corner = outline.px_bounds().min;
                outline
                    .draw(|px, py, part| dots.push((corner.x as i32 + px as i32, corner.y as i32 + py as i32, part)));
            }
        }
        let (width, height) = (self.size.0 as i32, self.size.1 as i32);
        for (px, py, part) in dots {
            let (dx, dy) = turn.transform(px, py);
            let at = (x + dx, y + dy);
            if (0..width).contains(&at.0) && (0..height).contains(&at.1) && part > 0.0 {
                let alpha = color.alpha * f64::from(part.min(1.0));
                self.pixels.draw_pixel(at, BackendColor { alpha, ..color })?;
            }
        }
        Ok(())
    }

    fn blit_bitmap(&mut self, at: BackendCoord, size: (u32, u32), source: &[u8]) -> Drawn<'a> {
        self.pixels.blit_bitmap(at, size, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::prelude::*;
    use plotters::style::text_anchor::Pos;

    fn drawn(draw: impl FnOnce(&mut FigureBackend)) -> Vec<u8> {
        let mut picture = Picture::from_rgb(60, 40, vec![255; 60 * 40 * 3]).unwrap();
        draw(&mut FigureBackend::new(&mut picture));
        picture.rgb().iter().copied().step_by(3).collect()
    }

    #[test]
    fn upright_lines_are_sharp_and_a_translucent_curve_has_no_knots() {
        let line = drawn(|b| b.draw_line((5, 10), (20, 10), &BLACK).unwrap());
        assert_eq!([line[9 * 60 + 12], line[10 * 60 + 12], line[11 * 60 + 12]], [255, 0, 255]);
        let curve = drawn(|b| {
            b.draw_path([(5, 5), (20, 5), (35, 5)], &ShapeStyle::from(BLACK.mix(0.5)).stroke_width(3)).unwrap()
        });
        assert!(curve.iter().all(|&v| v >= 127));
    }

    #[test]
    fn centred_text_is_centred_and_its_letters_do_not_run_together() {
        let style = ("sans-serif", 20).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Center));
        let text = drawn(|b| b.draw_text("HHH", &style, (30, 20)).unwrap());
        let dark: Vec<usize> = (0..60).filter(|x| (0..40).any(|y| text[y * 60 + x] < 128)).collect();
        let rows: Vec<usize> = (0..40).filter(|y| (0..60).any(|x| text[y * 60 + x] < 128)).collect();
        assert!((dark[0] + dark[dark.len() - 1]).abs_diff(60) <= 2, "{dark:?}");
        assert!((rows[0] + rows[rows.len() - 1]).abs_diff(40) <= 3, "{rows:?}");
        // Stem, bar, stem, gap: three letters with the same width and spacing.
        let starts: Vec<usize> = dark.iter().copied().filter(|x| !dark.contains(&(x - 1))).collect();
        assert_eq!(starts.len(), 3, "{dark:?}");
        assert!((starts[1] - starts[0]).abs_diff(starts[2] - starts[1]) <= 1, "{starts:?}");
    }

    #[test]
    fn shapes_beyond_the_edge_are_cut() {
        drawn(|b| {
            b.draw_path([(-500, -20), (900, 70), (30, 5000)], &ShapeStyle::from(BLACK).stroke_width(2)).unwrap();
            b.draw_circle((-3, 39), 10, &BLACK.filled(), true).unwrap();
            b.draw_text("far away", &("sans-serif", 20).into_font().color(&BLACK), (55, -5)).unwrap();
            b.draw_line((100, 100), (200, 200), &BLACK).unwrap();
        });
    }
}
