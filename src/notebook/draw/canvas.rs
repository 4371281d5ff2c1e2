//! The canvas: fills polygons with a depth buffer at twice the picture's resolution, so that edges are smooth.

use rayon::prelude::*;

use super::Picture;
use crate::notebook::wide::wide;

/// Pixels of the canvas along each side of a picture's pixel.
const FINE: usize = 2;
/// Rows of the canvas that a thread fills at a time.
const BAND: usize = 32;

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

/// A picture that is being drawn.
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    color: Vec<[u8; 3]>,
    depth: Vec<f32>,
}

impl Canvas {
    /// An empty canvas for a picture of `width × height` pixels.
    pub fn new(width: usize, height: usize, paper: [u8; 3]) -> Self {
        let (width, height) = (width * FINE, height * FINE);
        Self { width, height, color: vec![paper; width * height], depth: vec![f32::NEG_INFINITY; width * height] }
    }

    /// Draws polygons in the given order. Opaque polygons hide what is behind them; translucent ones must come from far to near.
    pub fn fill(&mut self, polygons: &[Polygon]) {
        let width = self.width;
        // Each band only handles the polygons that reach it, in their order.
        let mut reaching = vec![Vec::new(); self.height.div_ceil(BAND)];
        for polygon in polygons {
            let ys = polygon.points().iter().map(|p| p[1] * FINE as f32);
            let (top, bottom) = ys.fold((f32::INFINITY, f32::NEG_INFINITY), |(t, b), y| (t.min(y), b.max(y)));
            if bottom >= top && bottom >= 0.0 && top <= self.height as f32 {
                let last = (bottom as usize / BAND).min(reaching.len() - 1);
                reaching[top as usize / BAND..=last].iter_mut().for_each(|band| band.push(polygon));
            }
        }
        let colors = self.color.par_chunks_mut(width * BAND);
        let depths = self.depth.par_chunks_mut(width * BAND);
        colors.zip(depths).zip(reaching).enumerate().for_each(|(band, ((color, depth), polygons))| {
            let rows = band * BAND..band * BAND + color.len() / width;
            let mut target = Band { rows, width, color, depth };
            wide(|| {
                for polygon in polygons {
                    target.fill(polygon);
                }
            });
        });
    }

    /// The finished picture.
    pub fn finish(self) -> Picture {
        let (width, height) = (self.width / FINE, self.height / FINE);
        let mut rgb = vec![0u8; width * height * 3];
        let fine_rows = self.color.par_chunks(self.width * FINE);
        rgb.par_chunks_mut(width * 3).zip(fine_rows).for_each(|(row, fine)| {
            let (above, below) = fine.split_at(self.width);
            let fine = above.as_chunks::<FINE>().0.iter().zip(below.as_chunks::<FINE>().0);
            for (pixel, (above, below)) in row.as_chunks_mut::<3>().0.iter_mut().zip(fine) {
                *pixel = std::array::from_fn(|channel| {
                    let sum: u32 = above.iter().chain(below).map(|color| u32::from(color[channel])).sum();
                    ((sum + (FINE * FINE / 2) as u32) / (FINE * FINE) as u32) as u8
                });
            }
        });
        Picture::from_rgb_unchecked(width as u32, height as u32, rgb)
    }

    /// The depth at the middle of a picture's pixel; minus infinity if nothing was drawn there.
    pub fn depth_at(&self, x: usize, y: usize) -> f32 {
        let (x, y) = (x * FINE + FINE / 2, y * FINE + FINE / 2);
        if x < self.width && y < self.height { self.depth[y * self.width + x] } else { f32::NEG_INFINITY }
    }
}

/// Some rows of the canvas.
struct Band<'a> {
    rows: std::ops::Range<usize>,
    width: usize,
    color: &'a mut [[u8; 3]],
    depth: &'a mut [f32],
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

    fn row(self, y: f32) -> (f32, f32) {
        (self.at + y * self.dy, self.dx)
    }
}

impl Band<'_> {
    #[inline(always)]
    fn fill(&mut self, polygon: &Polygon) {
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
        let plain = polygon.alpha == 255 && shade.is_none() && !polygon.outlined;

        for y in first..last {
            let yc = y as f32 + 0.5;
            let (mut left, mut right) = (0.0f32, self.width as f32);
            for border in borders {
                let (at, dx) = border.row(yc);
                if dx > 1e-9 {
                    left = left.max(-at / dx);
                } else if dx < -1e-9 {
                    right = right.min(-at / dx);
                } else if at < 0.0 {
                    right = left - 1.0;
                }
            }
            let (from, to) = ((left - 0.5).ceil().max(0.0), (right - 0.5).ceil().min(self.width as f32));
            if from >= to {
                continue;
            }
            let start = (y - self.rows.start) * self.width;
            let (depth_at, depth_dx) = depth.row(yc);
            if plain {
                let pixels = start + from as usize..start + to as usize;
                let places = self.depth[pixels.clone()].iter_mut().zip(&mut self.color[pixels]);
                let mut xc = from + 0.5;
                for (depth, color) in places {
                    let here = depth_at + xc * depth_dx;
                    xc += 1.0;
                    if here > *depth {
                        (*depth, *color) = (here, polygon.color);
                    }
                }
                continue;
            }
            for x in from as usize..to as usize {
                let xc = x as f32 + 0.5;
                let here = depth_at + xc * depth_dx;
                let i = start + x;
                if here <= self.depth[i] {
                    continue;
                }
                let mut bright = shade.map_or(1.0, |plane| (plane.at + xc * plane.dx + yc * plane.dy).clamp(0.0, 1.2));
                if polygon.outlined {
                    let nearest = borders.iter().map(|b| b.at + xc * b.dx + yc * b.dy).fold(f32::INFINITY, f32::min);
                    if nearest < line {
                        bright *= 0.62;
                    }
                }
                let alpha = u32::from(polygon.alpha);
                for (old, new) in self.color[i].iter_mut().zip(polygon.color) {
                    let new = (f32::from(new) * bright).min(255.0) as u32;
                    *old = ((new * alpha + u32::from(*old) * (255 - alpha)) / 255) as u8;
                }
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
            let mut canvas = Canvas::new(8, 80, [255; 3]);
            canvas.fill(&order);
            let picture = canvas.finish();
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
        let mut canvas = Canvas::new(10, 10, [0; 3]);
        canvas.fill(&[slanted(0.0, 1.0, [255, 0, 0]), slanted(1.0, 0.0, [0, 255, 0])]);
        let picture = canvas.finish();
        assert_eq!([pixel(&picture, 1, 5), pixel(&picture, 8, 5)], [[0, 255, 0], [255, 0, 0]]);
    }

    #[test]
    fn a_translucent_polygon_lets_what_is_behind_it_through() {
        let mut canvas = Canvas::new(4, 4, [255; 3]);
        canvas.fill(&[square(0.0, 0.0, 4.0, 1.0, [0, 0, 0], 102)]);
        assert_eq!(pixel(&canvas.finish(), 2, 2), [153; 3]);
    }

    #[test]
    fn neighbouring_triangles_leave_no_gap_and_do_not_overlap() {
        let (a, b, c, d) = ([1.3, 0.7, 1.0], [9.1, 2.2, 1.0], [7.7, 9.4, 1.0], [0.9, 8.3, 1.0]);
        let triangle = |points| Polygon::triangle(points, [0, 0, 0], 128, [1.0; 3]);
        let mut canvas = Canvas::new(10, 10, [255; 3]);
        canvas.fill(&[triangle([a, b, c]), triangle([a, c, d])]);
        let picture = canvas.finish();
        for (x, y) in [(4, 4), (5, 5), (3, 3), (6, 7), (4, 5)] {
            assert_eq!(pixel(&picture, x, y), [127; 3], "at {x}, {y}");
        }
    }
}
