//! The canvas: fills polygons with a depth buffer at twice the picture's resolution, so that edges are smooth.

use std::ops::Range;

use rayon::prelude::*;

use super::Picture;
use crate::wide::wide_fn;

/// Pixels of the canvas along each side of a picture's pixel.
const FINE: usize = 2;
/// Rows of the canvas that a thread fills at a time.
const BAND: usize = 32;
/// The brightness of an outline.
pub(super) const OUTLINE: f32 = 0.62;

/// A flat convex polygon on the picture: three or four points of x, y and depth (see [`Projector`](super::Projector)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polygon {
    points: [[f32; 3]; 4],
    corners: u8,
    color: [u8; 3],
    /// 255 is opaque.
    alpha: u8,
    /// Whether to darken a line along the border, for cubes large enough to show it.
    outlined: bool,
    /// For triangles: the brightness of each corner; it is blended between them.
    shades: Option<[f32; 3]>,
}

impl Polygon {
    pub fn quad(points: [[f32; 3]; 4], color: [u8; 3], alpha: u8, outlined: bool) -> Self {
        Self { points, corners: 4, color, alpha, outlined, shades: None }
    }

    pub fn triangle([a, b, c]: [[f32; 3]; 3], color: [u8; 3], alpha: u8, shades: [f32; 3]) -> Self {
        Self { points: [a, b, c, c], corners: 3, color, alpha, outlined: false, shades: Some(shades) }
    }

    /// A line with a width, drawn slightly nearer than it is, so that it is visible on the faces on which it lies.
    pub fn line(a: [f32; 3], b: [f32; 3], width: f32, color: [u8; 3]) -> Self {
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length = dx.hypot(dy).max(1e-6);
        let (nx, ny) = (-dy / length * width / 2.0, dx / length * width / 2.0);
        let depth = |p: [f32; 3]| p[2] + p[2].abs() * 2e-4 + 1e-6;
        let points = [
            [a[0] + nx, a[1] + ny, depth(a)],
            [b[0] + nx, b[1] + ny, depth(b)],
            [b[0] - nx, b[1] - ny, depth(b)],
            [a[0] - nx, a[1] - ny, depth(a)],
        ];
        Self::quad(points, color, 255, false)
    }

    pub fn points(&self) -> &[[f32; 3]] {
        &self.points[..usize::from(self.corners)]
    }

    /// The polygon's colour; for a shaded triangle, the mean.
    pub fn flat_color(&self) -> [u8; 3] {
        let shade = self.shades.map_or(1.0, |s| (s[0] + s[1] + s[2]) / 3.0);
        self.color.map(|c| (f32::from(c) * shade).min(255.0) as u8)
    }

    pub fn alpha(&self) -> u8 {
        self.alpha
    }

    pub fn is_outlined(&self) -> bool {
        self.outlined
    }
}

/// A canvas for a picture of `width × height` pixels. It is drawn and finished in bands, so that memory for one band is enough, which stays in
/// a processor's cache.
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    paper: [u8; 3],
}

impl Canvas {
    pub fn new(width: usize, height: usize, paper: [u8; 3]) -> Self {
        Self { width, height, paper }
    }

    /// The picture of polygons, drawn in the given order. Opaque polygons hide what is behind them; translucent ones must come from far to
    /// near.
    pub fn picture(&self, polygons: &[Polygon]) -> Picture {
        let mut rgb = vec![0u8; 3 * self.width * self.height];
        self.in_bands(polygons, &mut rgb, 3, mean_colors);
        Picture::from_rgb_unchecked(self.width as u32, self.height as u32, rgb)
    }

    /// The depth at the middle of each of the picture's pixels, row by row; minus infinity where nothing is drawn.
    pub fn depths(&self, polygons: &[Polygon]) -> Vec<f32> {
        let mut depths = vec![f32::NEG_INFINITY; self.width * self.height];
        self.in_bands(polygons, &mut depths, 1, |band, depths| {
            for (y, row) in depths.chunks_exact_mut(self.width).enumerate() {
                let fine = &band.depth[(y * FINE + FINE / 2) * band.width..][..band.width];
                row.iter_mut().zip(fine.chunks_exact(FINE)).for_each(|(depth, fine)| *depth = fine[FINE / 2]);
            }
        });
        depths
    }

    /// Draws each band and lets `finish` write its part of `result`, which has `numbers` for each pixel of the picture.
    fn in_bands<T: Send>(
        &self,
        polygons: &[Polygon],
        result: &mut [T],
        numbers: usize,
        finish: impl Fn(&Band, &mut [T]) + Sync,
    ) {
        let (width, height) = (self.width * FINE, self.height * FINE);
        if width == 0 {
            return;
        }
        // Each band only handles the polygons that reach it, in their order.
        let mut reaching = vec![Vec::new(); height.div_ceil(BAND)];
        for polygon in polygons {
            let ys = polygon.points().iter().map(|p| p[1] * FINE as f32);
            let (top, bottom) = ys.fold((f32::INFINITY, f32::NEG_INFINITY), |(t, b), y| (t.min(y), b.max(y)));
            if bottom >= top && bottom >= 0.0 && top <= height as f32 {
                let last = (bottom as usize / BAND).min(reaching.len() - 1);
                reaching[(top as usize / BAND).min(last)..=last].iter_mut().for_each(|band| band.push(polygon));
            }
        }
        let paper = packed(self.paper);
        let parts = result.par_chunks_mut(numbers * self.width * BAND / FINE).zip(reaching).enumerate();
        let memory = || (vec![0u32; width * BAND], vec![0f32; width * BAND]);
        parts.for_each_init(memory, |(color, depth), (band, (part, polygons))| {
            let rows = band * BAND..(band * BAND + BAND).min(height);
            let (color, depth) = (&mut color[..width * rows.len()], &mut depth[..width * rows.len()]);
            color.fill(paper);
            depth.fill(f32::NEG_INFINITY);
            let mut target = Band { rows, width, color, depth };
            fill(&mut target, &polygons);
            finish(&target, part);
        });
    }
}

wide_fn! {
    /// Draws polygons in the given order.
    fn fill(band: &mut Band, polygons: &[&Polygon]) {
        for polygon in polygons {
            band.fill::<WIDE>(polygon);
        }
    }
}

wide_fn! {
    /// The picture's pixels: means of the band's.
    fn mean_colors(band: &Band, rgb: &mut [u8]) {
        let rows = rgb.chunks_exact_mut(3 * band.width / FINE).zip(band.color.chunks_exact(FINE * band.width));
        for (row, fine) in rows {
            let (above, below) = fine.split_at(band.width);
            let fine = above.as_chunks::<FINE>().0.iter().zip(below.as_chunks::<FINE>().0);
            for (pixel, (above, below)) in row.as_chunks_mut::<3>().0.iter_mut().zip(fine) {
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let of = |color: &u32| (color >> (8 * channel)) & 255;
                    let sum: u32 = above.iter().chain(below).map(of).sum();
                    *value = ((sum + (FINE * FINE / 2) as u32) / (FINE * FINE) as u32) as u8;
                }
            }
        }
    }
}

/// Some rows of the canvas.
struct Band<'a> {
    rows: Range<usize>,
    width: usize,
    /// Red, green and blue from the lowest byte on.
    color: &'a mut [u32],
    depth: &'a mut [f32],
}

/// A colour as one number.
fn packed([r, g, b]: [u8; 3]) -> u32 {
    u32::from_le_bytes([r, g, b, 0])
}

/// A value that is linear over the picture: `at + x · dx + y · dy`.
#[derive(Clone, Copy)]
struct Plane {
    at: f32,
    dx: f32,
    dy: f32,
}

impl Plane {
    /// The plane through the values at three points; `None` if the points lie on a line.
    #[inline(always)]
    fn through(points: [[f32; 2]; 3], values: [f32; 3]) -> Option<Self> {
        let ([x0, y0], [x1, y1], [x2, y2]) = (points[0], points[1], points[2]);
        let area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
        if area.abs() < 1e-9 {
            return None;
        }
        let dx = ((values[1] - values[0]) * (y2 - y0) - (values[2] - values[0]) * (y1 - y0)) / area;
        let dy = ((values[2] - values[0]) * (x1 - x0) - (values[1] - values[0]) * (x2 - x0)) / area;
        Some(Self { at: values[0] - x0 * dx - y0 * dy, dx, dy })
    }

    #[inline(always)]
    fn row(self, y: f32) -> (f32, f32) {
        (self.at + y * self.dy, self.dx)
    }
}

/// A channel's value, which is not negative, rounded down.
#[inline(always)]
fn channel(value: f32) -> u32 {
    // With the comparison in this order, NaN also goes to the end.
    let value = if value < 255.0 { value } else { 255.0 };
    // SAFETY: it lies within 0 to 255.
    unsafe { value.to_int_unchecked::<i32>() as u32 }
}

/// Paints a pixel if this is nearer than what is there, without a branch.
#[inline(always)]
fn paint(depth: &mut f32, place: &mut u32, here: f32, color: u32) {
    let is_nearer = here > *depth;
    *depth = if is_nearer { here } else { *depth };
    *place = if is_nearer { color } else { *place };
}

#[inline(always)]
fn brightness(plane: Plane, x: f32, y: f32) -> f32 {
    (plane.at + x * plane.dx + y * plane.dy).clamp(0.0, 1.2)
}

/// The pixels of a row that lie `inside` all borders by that much.
#[inline(always)]
fn between(borders: &[Plane], y: f32, width: usize, inside: f32) -> Range<usize> {
    let (mut left, mut right) = (0.0f32, width as f32);
    for border in borders {
        let (at, dx) = border.row(y);
        let at = at - inside;
        if dx > 1e-9 {
            left = left.max(-at / dx);
        } else if dx < -1e-9 {
            right = right.min(-at / dx);
        } else if at < 0.0 {
            right = left - 1.0;
        }
    }
    let (from, to) = ((left - 0.5).ceil().max(0.0), (right - 0.5).ceil().min(width as f32));
    from as usize..(to.max(from) as usize)
}

impl Band<'_> {
    #[inline(always)]
    fn fill<const WIDE: bool>(&mut self, polygon: &Polygon) {
        let corners = usize::from(polygon.corners);
        let points = polygon.points.map(|[x, y, _]| [x * FINE as f32, y * FINE as f32]);
        let points = &points[..corners];
        let (top, bottom) =
            points.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(t, b), p| (t.min(p[1]), b.max(p[1])));
        let first = ((top - 0.5).ceil().max(0.0) as usize).max(self.rows.start);
        let last = (((bottom - 0.5).floor() + 1.0).max(0.0) as usize).min(self.rows.end);
        if first >= last {
            return;
        }
        let three = [points[0], points[1], points[2]];
        let Some(depth) = Plane::through(three, [polygon.points[0][2], polygon.points[1][2], polygon.points[2][2]])
        else {
            return;
        };
        let shade = polygon.shades.and_then(|shades| Plane::through(three, shades));

        // Border lines as signed distances, positive inside.
        let turn = (three[1][0] - three[0][0]) * (three[2][1] - three[0][1])
            - (three[2][0] - three[0][0]) * (three[1][1] - three[0][1]);
        let sign = turn.signum();
        let mut borders = [Plane { at: 1.0, dx: 0.0, dy: 0.0 }; 4];
        for (i, border) in borders[..corners].iter_mut().enumerate() {
            let (p, q) = (points[i], points[(i + 1) % corners]);
            let (ex, ey) = (q[0] - p[0], q[1] - p[1]);
            // Only outlines need distances in pixels; elsewhere the sign is enough.
            let scale = if polygon.outlined { sign / ex.hypot(ey).max(1e-9) } else { sign };
            *border = Plane { at: (ey * p[0] - ex * p[1]) * scale, dx: -ey * scale, dy: ex * scale };
        }
        let borders = &borders[..corners];
        let line = FINE as f32 * 0.55;
        let flat = polygon.alpha == 255 && shade.is_none();
        let color = packed(polygon.color);
        let dark = packed(polygon.color.map(|channel| (f32::from(channel) * OUTLINE) as u8));

        for y in first..last {
            let yc = y as f32 + 0.5;
            let pixels = between(borders, yc, self.width, 0.0);
            if pixels.is_empty() {
                continue;
            }
            let start = (y - self.rows.start) * self.width;
            let (depth_at, depth_dx) = depth.row(yc);
            if flat {
                let inner = if polygon.outlined { between(borders, yc, self.width, line) } else { pixels.clone() };
                let inner = if inner.is_empty() { pixels.end..pixels.end } else { inner };
                let parts = [(pixels.start..inner.start, dark), (inner.clone(), color), (inner.end..pixels.end, dark)];
                for (part, color) in parts {
                    let (first, part) = (part.start, start + part.start..start + part.end);
                    let places = self.depth[part.clone()].iter_mut().zip(&mut self.color[part]);
                    for (i, (depth, place)) in (0i32..).zip(places) {
                        let here = depth_at + ((first as i32 + i) as f32 + 0.5) * depth_dx;
                        paint(depth, place, here, color);
                    }
                }
                continue;
            }
            if let Some(shade) = shade.filter(|_| polygon.alpha == 255 && !polygon.outlined) {
                let [red, green, blue] = polygon.color.map(f32::from);
                let (first, part) = (pixels.start, start + pixels.start..start + pixels.end);
                let places = self.depth[part.clone()].iter_mut().zip(&mut self.color[part]);
                for (i, (depth, place)) in (0i32..).zip(places) {
                    let xc = (first as i32 + i) as f32 + 0.5;
                    let here = depth_at + xc * depth_dx;
                    let bright = brightness(shade, xc, yc);
                    let color = channel(red * bright) | channel(green * bright) << 8 | channel(blue * bright) << 16;
                    paint(depth, place, here, color);
                }
                continue;
            }
            for x in pixels {
                let xc = x as f32 + 0.5;
                let here = depth_at + xc * depth_dx;
                let i = start + x;
                if here <= self.depth[i] {
                    continue;
                }
                let mut bright = shade.map_or(1.0, |plane| brightness(plane, xc, yc));
                if polygon.outlined {
                    let nearest = borders.iter().map(|b| b.at + xc * b.dx + yc * b.dy).fold(f32::INFINITY, f32::min);
                    if nearest < line {
                        bright *= OUTLINE;
                    }
                }
                let alpha = u32::from(polygon.alpha);
                let old = self.color[i].to_le_bytes();
                self.color[i] = packed(std::array::from_fn(|c| {
                    let new = channel(f32::from(polygon.color[c]) * bright);
                    ((new * alpha + u32::from(old[c]) * (255 - alpha)) / 255) as u8
                }));
                if alpha == 255 {
                    self.depth[i] = here;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f32, y: f32, size: f32, depth: f32, color: [u8; 3], alpha: u8) -> Polygon {
        let at = |dx: f32, dy: f32| [x + dx * size, y + dy * size, depth];
        Polygon::quad([at(0.0, 0.0), at(1.0, 0.0), at(1.0, 1.0), at(0.0, 1.0)], color, alpha, false)
    }

    fn pixel(picture: &Picture, x: usize, y: usize) -> [u8; 3] {
        let at = (y * picture.width() as usize + x) * 3;
        [picture.rgb()[at], picture.rgb()[at + 1], picture.rgb()[at + 2]]
    }

    #[test]
    fn the_nearer_polygon_wins_in_either_order_and_squares_fill_their_pixels_exactly() {
        let (near, far) = (square(2.0, 2.0, 4.0, 2.0, [255, 0, 0], 255), square(0.0, 0.0, 4.0, 1.0, [0, 0, 255], 255));
        for order in [[near, far], [far, near]] {
            let picture = Canvas::new(8, 80, [255; 3]).picture(&order);
            assert_eq!(
                [pixel(&picture, 1, 1), pixel(&picture, 3, 3), pixel(&picture, 5, 5), pixel(&picture, 6, 6)],
                [[0, 0, 255], [255, 0, 0], [255, 0, 0], [255; 3]]
            );
        }
    }

    #[test]
    fn slanted_polygons_pass_through_each_other() {
        let slanted = |left: f32, right: f32, color| {
            Polygon::quad(
                [[0.0, 0.0, left], [10.0, 0.0, right], [10.0, 10.0, right], [0.0, 10.0, left]],
                color,
                255,
                false,
            )
        };
        let canvas = Canvas::new(10, 10, [0; 3]);
        let picture = canvas.picture(&[slanted(0.0, 1.0, [255, 0, 0]), slanted(1.0, 0.0, [0, 255, 0])]);
        assert_eq!([pixel(&picture, 1, 5), pixel(&picture, 8, 5)], [[0, 255, 0], [255, 0, 0]]);
    }

    #[test]
    fn a_translucent_polygon_lets_what_is_behind_it_through() {
        let picture = Canvas::new(4, 4, [255; 3]).picture(&[square(0.0, 0.0, 4.0, 1.0, [0, 0, 0], 102)]);
        assert_eq!(pixel(&picture, 2, 2), [153; 3]);
    }

    #[test]
    fn neighbouring_triangles_leave_no_gap_and_do_not_overlap() {
        let (a, b, c, d) = ([1.3, 0.7, 1.0], [9.1, 2.2, 1.0], [7.7, 9.4, 1.0], [0.9, 8.3, 1.0]);
        let triangle = |points| Polygon::triangle(points, [0, 0, 0], 128, [1.0; 3]);
        let picture = Canvas::new(10, 10, [255; 3]).picture(&[triangle([a, b, c]), triangle([a, c, d])]);
        for (x, y) in [(4, 4), (5, 5), (3, 3), (6, 7), (4, 5)] {
            assert_eq!(pixel(&picture, x, y), [127; 3], "at {x}, {y}");
        }
    }

    #[test]
    fn an_outline_is_dark_along_the_border_and_the_depths_are_those_of_the_nearest() {
        let at = |x: f32, y: f32| [2.0 + 40.0 * x, 3.0 + 40.0 * y, 1.0];
        let outlined = Polygon::quad([at(0.0, 0.0), at(1.0, 0.0), at(1.0, 1.0), at(0.0, 1.0)], [200; 3], 255, true);
        let canvas = Canvas::new(50, 50, [255; 3]);
        let picture = canvas.picture(&[outlined]);
        // A pixel wide, nearly: 1.1 of 2 fine pixels are dark.
        assert_eq!(
            [pixel(&picture, 2, 20), pixel(&picture, 20, 3), pixel(&picture, 41, 42)],
            [[162; 3], [162; 3], [143; 3]]
        );
        assert_eq!(
            [pixel(&picture, 3, 20), pixel(&picture, 20, 20), pixel(&picture, 1, 20)],
            [[200; 3], [200; 3], [255; 3]]
        );
        let depths = canvas.depths(&[outlined, square(4.0, 5.0, 10.0, 2.0, [0; 3], 255)]);
        assert_eq!([depths[20 * 50 + 20], depths[9 * 50 + 9], depths[0]], [1.0, 2.0, f32::NEG_INFINITY]);
    }
}
