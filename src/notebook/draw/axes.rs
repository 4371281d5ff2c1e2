//! Everything around a 3D plot: the box with its grid, ticks and axis names, the title and the colour bar.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::camera::{Camera, Projector, dot};
use super::ticks::ticks;
use super::{Polygon, Theme};
use crate::mesh::Axis;
use crate::notebook::Colormap;
use crate::notebook::html::tick;
use crate::{Error, Result};

/// A colour scale beside a plot.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    pub map: Colormap,
    pub low: f64,
    pub high: f64,
    pub label: String,
}

/// The part of a 3D plot's picture that the box fills, as x, y, width, height. Around it is room for text.
pub(crate) fn plot_area(size: (u32, u32), camera: &Camera, title: &str, axes: bool, bar: bool) -> [f32; 4] {
    let side = if axes { 46.0 } else { 10.0 };
    // Seen from below or straight from above, ticks are above the box.
    let ticks_above = axes && !(0.0..75.0).contains(&camera.elevation);
    let top = if title.is_empty() { 12.0 } else { 34.0 } + if ticks_above { 36.0 } else { 0.0 };
    let bottom = if axes { 40.0 } else { 10.0 };
    let right = if bar { 84.0 } else { 0.0 };
    let (width, height) = (size.0 as f32, size.1 as f32);
    [side, top, (width - 2.0 * side - right).max(16.0), (height - top - bottom).max(16.0)]
}

/// A label on the picture: text, position, and anchor.
type Label = (String, (i32, i32), HPos);

/// The box around the data, as projected lines and labels.
pub(crate) struct Frame {
    /// Grid and box edges behind the data.
    pub lines: Vec<Polygon>,
    labels: Vec<Label>,
}

impl Frame {
    /// The far sides of the box `low..high` with a grid, and ticks along the box's outline.
    pub fn new(projector: &Projector, low: [f32; 3], high: [f32; 3], up: Axis, names: [&str; 3], theme: Theme) -> Self {
        let center: [f32; 3] = std::array::from_fn(|i| (low[i] + high[i]) / 2.0);
        // For each axis, the side of the box that faces away from the eye.
        let far: [f32; 3] = std::array::from_fn(|axis| {
            let mut normal = [0.0; 3];
            normal[axis] = 1.0;
            let mut side = center;
            side[axis] = high[axis];
            if dot(normal, projector.towards_eye(side)) > 0.0 { low[axis] } else { high[axis] }
        });
        let near: [f32; 3] = std::array::from_fn(|axis| low[axis] + high[axis] - far[axis]);
        let mut frame = Self { lines: Vec::new(), labels: Vec::new() };
        let positions: [Vec<f64>; 3] =
            std::array::from_fn(|axis| ticks(f64::from(low[axis]), f64::from(high[axis]), 5));

        for plane in 0..3 {
            for along in (0..3).filter(|&along| along != plane) {
                let across = 3 - plane - along;
                let edges = [low[across], high[across]];
                for at in positions[across].iter().map(|&t| t as f32).chain(edges) {
                    let mut a = far;
                    a[across] = at;
                    let mut b = a;
                    (a[along], b[along]) = (low[along], high[along]);
                    frame.lines.push(Polygon::line(projector.project(a), projector.project(b), 1.0, theme.line()));
                }
            }
        }

        let up = up as usize;
        let middle = projector.project(center);
        for axis in 0..3 {
            // Horizontal axes are on the nearer bottom edges, the upright axis on the outer side edge of the box.
            let mut edge = near;
            if axis == up {
                let (s, t) = ((up + 1) % 3, (up + 2) % 3);
                let candidates = [[far[s], near[t]], [near[s], far[t]]].map(|[vs, vt]| {
                    let mut corner = center;
                    (corner[s], corner[t]) = (vs, vt);
                    corner
                });
                let left =
                    if projector.project(candidates[0])[0] <= projector.project(candidates[1])[0] { 0 } else { 1 };
                edge = candidates[left];
            } else {
                edge[up] = if far[up] == low[up] { low[up] } else { high[up] };
                edge[axis] = far[axis];
            }
            // Seen from above, the upright axis is a dot whose ticks would cover those of the others.
            let [top, bottom] = [high[axis], low[axis]].map(|end| {
                let mut p = edge;
                p[axis] = end;
                projector.project(p)
            });
            if axis == up && (top[0] - bottom[0]).hypot(top[1] - bottom[1]) < 24.0 {
                continue;
            }
            frame.label_edge(
                projector,
                axis,
                edge,
                (low[axis], high[axis]),
                &positions[axis],
                names[axis],
                middle,
                theme,
            );
        }
        frame
    }

    #[allow(clippy::too_many_arguments)]
    fn label_edge(
        &mut self,
        projector: &Projector,
        axis: usize,
        edge: [f32; 3],
        (low, high): (f32, f32),
        positions: &[f64],
        name: &str,
        middle: [f32; 3],
        theme: Theme,
    ) {
        let at = |value: f32| {
            let mut p = edge;
            p[axis] = value;
            projector.project(p)
        };
        let (start, end) = (at(low), at(high));
        // Nearer than the grid lines that end on it.
        let [a, b] = [start, end].map(|[x, y, depth]| [x, y, depth + depth.abs() * 4e-4 + 1e-5]);
        self.lines.push(Polygon::line(a, b, 1.4, theme.ink()));
        // Outwards: across the edge, away from the middle of the box.
        let (dx, dy) = (end[0] - start[0], end[1] - start[1]);
        let length = dx.hypot(dy);
        if length < 12.0 {
            return;
        }
        let (mut ox, mut oy) = (-dy / length, dx / length);
        let half = [(start[0] + end[0]) / 2.0, (start[1] + end[1]) / 2.0];
        if ox * (half[0] - middle[0]) + oy * (half[1] - middle[1]) < 0.0 {
            (ox, oy) = (-ox, -oy);
        }
        let anchor = if ox > 0.35 {
            HPos::Left
        } else if ox < -0.35 {
            HPos::Right
        } else {
            HPos::Center
        };
        let spacing = length / positions.len().max(1) as f32;
        let every = (22.0 / spacing).ceil().max(1.0) as usize;
        for &value in positions.iter().step_by(every) {
            let p = at(value as f32);
            self.lines.push(Polygon::line(p, [p[0] + ox * 4.0, p[1] + oy * 4.0, p[2]], 1.2, theme.ink()));
            self.labels.push((tick(value), ((p[0] + ox * 8.0) as i32, (p[1] + oy * 11.0) as i32), anchor));
        }
        let out = if matches!(anchor, HPos::Center) { 26.0 } else { 34.0 };
        self.labels.push((
            name.to_owned(),
            ((half[0] + ox * out) as i32, (half[1] + oy * out.min(28.0)) as i32),
            anchor,
        ));
    }

    /// Writes the tick labels and axis names.
    pub fn write<DB: DrawingBackend>(&self, area: &DrawingArea<DB, Shift>, theme: Theme) -> Result<()> {
        for (text, position, anchor) in &self.labels {
            write_text(area, text, *position, *anchor, 13, theme)?;
        }
        Ok(())
    }
}

fn color([r, g, b]: [u8; 3]) -> RGBColor {
    RGBColor(r, g, b)
}

fn drawing_failed(error: impl std::fmt::Display) -> Error {
    Error::Argument {
        op: "plot",
        name: "drawing",
        got: format!("error: {error}"),
        expected: "a drawing without errors".into(),
    }
}

/// Text vertically centred on `position`, anchored left, right or in the middle.
pub(crate) fn write_text<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    text: &str,
    position: (i32, i32),
    anchor: HPos,
    size: i32,
    theme: Theme,
) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&color(theme.ink())).pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(text.to_owned(), position, style)).map_err(drawing_failed)
}

impl Scale {
    /// The place of a value on the scale, 0 to 1; NaN stays NaN.
    pub fn position(&self, value: f32) -> f32 {
        ((f64::from(value) - self.low) / (self.high - self.low)) as f32
    }

    #[inline(always)]
    pub fn color(&self, value: f32) -> [u8; 3] {
        self.map.color(self.position(value))
    }

    /// Draws the colour bar with its ticks into `x, y, height`; it takes about 70 pixels of width.
    pub fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        (x, y): (i32, i32),
        height: i32,
        theme: Theme,
    ) -> Result<()> {
        const WIDTH: i32 = 14;
        for row in 0..height {
            let t = 1.0 - row as f32 / (height - 1).max(1) as f32;
            let style = color(self.map.color(t)).filled();
            area.draw(&Rectangle::new([(x, y + row), (x + WIDTH, y + row + 1)], style)).map_err(drawing_failed)?;
        }
        let outline = color(theme.ink()).stroke_width(1);
        area.draw(&Rectangle::new([(x, y), (x + WIDTH, y + height)], outline)).map_err(drawing_failed)?;
        for value in ticks(self.low, self.high, 5) {
            let at = y + ((1.0 - self.position(value as f32)) * (height - 1) as f32).round() as i32;
            area.draw(&PathElement::new(vec![(x + WIDTH, at), (x + WIDTH + 4, at)], color(theme.ink())))
                .map_err(drawing_failed)?;
            write_text(area, &tick(value), (x + WIDTH + 7, at), HPos::Left, 13, theme)?;
        }
        write_text(area, &self.label, (x - 4, y - 12), HPos::Left, 13, theme)
    }
}
