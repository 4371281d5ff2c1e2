//! Converts polygons and strips to triangles, for formats with other faces than triangles.

use super::geometry::vec3::{add, cross, dot, scale, sub};

/// A convex polygon with up to this many corners becomes a fan, as in other programs. Larger fans are slivers that all meet in one corner,
/// which is bad for grids and pictures: such polygons are halved instead.
const MOST_CORNERS_OF_A_FAN: usize = 32;

/// How many comparisons clipping ears may take for each corner of a polygon. Polygons of real files take about ten.
const MOST_TESTS: usize = 512;

/// Appends the triangles of one polygon; none for fewer than three corners. A convex polygon becomes a fan around its first corner (or is
/// halved again and again if it has many corners). Other polygons are cut ear by ear in the plane of their mean normal. The corners must be
/// in range of `vertices`.
///
/// Returns false if the polygon crosses itself so often that clipping its ears took too long; its rest is then a fan.
pub(super) fn triangulate(corners: &[u32], vertices: &[[f64; 3]], triangles: &mut Vec<[u32; 3]>) -> bool {
    if corners.len() <= 3 {
        fan(corners, triangles);
        return true;
    }
    let outline = flat(corners, vertices);
    let n = corners.len();
    if (0..n).all(|i| turn(outline[i], outline[(i + 1) % n], outline[(i + 2) % n]) >= 0.0) {
        if n <= MOST_CORNERS_OF_A_FAN {
            fan(corners, triangles)
        } else {
            halve(corners, triangles)
        }
        return true;
    }
    Ears::new(&outline).clip(corners, triangles)
}

type Point = [f64; 2];

/// The corners in the plane of the polygon's mean normal, in which it turns counter-clockwise.
fn flat(corners: &[u32], vertices: &[[f64; 3]]) -> Vec<Point> {
    let at = |corner: u32| vertices[corner as usize];
    let origin = at(corners[0]);
    let normal =
        corners.windows(2).map(|pair| cross(sub(at(pair[0]), origin), sub(at(pair[1]), origin))).fold([0.0; 3], add);
    let unit = |v: [f64; 3]| {
        let length = dot(v, v).sqrt();
        if length > 0.0 { scale(v, 1.0 / length) } else { v }
    };
    let normal = unit(normal);
    // The axis farthest from the normal's direction gives the plane a direction.
    let least = (0..3).min_by(|&a, &b| normal[a].abs().total_cmp(&normal[b].abs())).unwrap_or(0);
    let x = unit(cross(std::array::from_fn(|axis| if axis == least { 1.0 } else { 0.0 }), normal));
    let y = cross(normal, x);
    corners.iter().map(|&corner| sub(at(corner), origin)).map(|p| [dot(p, x), dot(p, y)]).collect()
}

/// Twice the area of a triangle: positive when it turns left at b.
fn turn(a: Point, b: Point, c: Point) -> f64 {
    (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0])
}

/// Appends the triangles of a convex polygon: one between the ends and the middle of each part of its outline.
fn halve(corners: &[u32], triangles: &mut Vec<[u32; 3]>) {
    let mut open = vec![(0, corners.len() - 1)];
    while let Some((first, last)) = open.pop() {
        if last - first >= 2 {
            let middle = first.midpoint(last);
            triangles.push([corners[first], corners[middle], corners[last]]);
            open.extend([(middle, last), (first, middle)]);
        }
    }
}

/// A polygon that is being cut. Only a corner that turns right can lie in an ear (Meisters 1975), so only these corners are kept, in the
/// cells of a grid.
struct Ears<'a> {
    outline: &'a [Point],
    before: Vec<usize>,
    after: Vec<usize>,
    /// Corners that turn right, or not at all, and have not been cut.
    reflex: Vec<bool>,
    low: Point,
    /// Number of cells for each unit of length.
    density: Point,
    side: usize,
    /// Where the corners of each cell begin in `cells`; the last entry is the end.
    first: Vec<u32>,
    cells: Vec<u32>,
}

impl<'a> Ears<'a> {
    fn new(outline: &'a [Point]) -> Self {
        let n = outline.len();
        let before: Vec<usize> = (0..n).map(|i| (i + n - 1) % n).collect();
        let after: Vec<usize> = (0..n).map(|i| (i + 1) % n).collect();
        let is_reflex = |i: usize| turn(outline[before[i]], outline[i], outline[after[i]]) <= 0.0;
        let reflex: Vec<bool> = (0..n).map(is_reflex).collect();
        let side = (reflex.iter().filter(|&&r| r).count().isqrt() + 1).min(1024);
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for point in outline {
            for axis in 0..2 {
                (low[axis], high[axis]) = (low[axis].min(point[axis]), high[axis].max(point[axis]));
            }
        }
        let density = std::array::from_fn(|axis| side as f64 / (high[axis] - low[axis]).max(f64::MIN_POSITIVE));
        let mut ears =
            Self { outline, before, after, reflex, low, density, side, first: Vec::new(), cells: Vec::new() };
        let mut placed: Vec<(u32, u32)> = (0..n)
            .filter(|&i| ears.reflex[i])
            .map(|i| ((ears.cell(outline[i], 1) * side + ears.cell(outline[i], 0)) as u32, i as u32))
            .collect();
        placed.sort_unstable();
        ears.first =
            (0..=side * side).map(|cell| placed.partition_point(|&(c, _)| (c as usize) < cell) as u32).collect();
        ears.cells = placed.into_iter().map(|(_, corner)| corner).collect();
        ears
    }

    /// The cell of a point along an axis. A point that is not finite also gets a cell.
    fn cell(&self, point: Point, axis: usize) -> usize {
        (((point[axis] - self.low[axis]) * self.density[axis]) as usize).min(self.side - 1)
    }

    /// A corner inside the triangle of corner `i`, which turns left. `tests` counts comparisons.
    fn obstacle(&self, i: usize, tests: &mut usize) -> Option<usize> {
        let [a, b, c] = [self.before[i], i, self.after[i]].map(|corner| self.outline[corner]);
        let inside = |p: Point| {
            p != a && p != b && p != c && turn(a, b, p) >= 0.0 && turn(b, c, p) >= 0.0 && turn(c, a, p) >= 0.0
        };
        let range = |axis: usize| {
            let cells = [a, b, c].map(|p| self.cell(p, axis));
            cells.into_iter().fold(usize::MAX, usize::min)..=cells.into_iter().fold(0, usize::max)
        };
        for row in range(1) {
            let cells = range(0);
            let corners = self.first[row * self.side + cells.start()]..self.first[row * self.side + cells.end() + 1];
            let corners = &self.cells[corners.start as usize..corners.end as usize];
            *tests += 1 + corners.len();
            let mut corners = corners.iter().map(|&corner| corner as usize);
            if let Some(j) = corners.find(|&j| self.reflex[j] && inside(self.outline[j])) {
                return Some(j);
            }
        }
        None
    }

    /// Removes corner `i` from the outline.
    fn cut(&mut self, i: usize) {
        let (a, c) = (self.before[i], self.after[i]);
        (self.after[a], self.before[c]) = (c, a);
        self.reflex[i] = false;
        for corner in [a, c] {
            // A corner that turns left once always does, unless the polygon crosses itself.
            let [before, after] = [self.before[corner], self.after[corner]].map(|other| self.outline[other]);
            self.reflex[corner] &= turn(before, self.outline[corner], after) <= 0.0;
        }
    }

    /// Appends the triangles; returns false if the comparisons are used up.
    fn clip(mut self, corners: &[u32], triangles: &mut Vec<[u32; 3]>) -> bool {
        let n = corners.len();
        let (mut is_open, mut is_left) = (vec![true; n], vec![true; n]);
        // Corners that are neither cut nor open wait until the corner in their triangle, or a neighbour, is cut.
        let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); n];
        // Neighbours are cut in different rounds: one after the other, they would become a fan of slivers.
        let (mut open, mut round, mut touched): (Vec<usize>, _, _) = ((0..n).collect(), 1, vec![0; n]);
        let (mut home, mut left, mut tests) = (0, n, 0); // `home` is a corner that has not been cut
        while left > 3 && tests <= MOST_TESTS * n {
            // A polygon that crosses itself may have no ear left; then any corner is as good as another.
            let forced = open.is_empty();
            let mut next = Vec::new();
            for at in if forced { vec![home] } else { std::mem::take(&mut open) } {
                is_open[at] = false;
                if left == 3 || !is_left[at] || (self.reflex[at] && !forced) {
                    continue;
                }
                if touched[at] == round {
                    is_open[at] = true;
                    next.push(at);
                    continue;
                }
                if let Some(obstacle) = self.obstacle(at, &mut tests).filter(|_| !forced) {
                    waiting[obstacle].push(at);
                    continue;
                }
                let [a, c] = [self.before[at], self.after[at]];
                triangles.push([a, at, c].map(|corner| corners[corner]));
                let obstacles = [a, at, c].map(|corner| (corner, self.reflex[corner]));
                self.cut(at);
                (is_left[at], left, home) = (false, left - 1, a);
                let mut again = vec![a, c];
                for (corner, _) in obstacles.into_iter().filter(|&(corner, was)| was && !self.reflex[corner]) {
                    again.append(&mut waiting[corner]);
                }
                again.retain(|&corner| is_left[corner] && !std::mem::replace(&mut is_open[corner], true));
                next.append(&mut again);
                (touched[a], touched[c]) = (round, round);
            }
            (open, round) = (next, round + 1);
        }
        let rest: Vec<u32> =
            std::iter::successors(Some(home), |&i| Some(self.after[i])).take(left).map(|i| corners[i]).collect();
        fan(&rest, triangles);
        left == 3
    }
}

/// Appends the triangles between the first corner and each pair of neighbours.
pub(super) fn fan(corners: &[u32], triangles: &mut Vec<[u32; 3]>) {
    triangles.extend(corners.windows(2).skip(1).map(|pair| [corners[0], pair[0], pair[1]]));
}

/// Appends the triangles of a strip: each three neighbours, with every other triangle turned over. Triangles that repeat a corner only lead
/// the strip to another place.
pub(super) fn strip(corners: &[u32], triangles: &mut Vec<[u32; 3]>) {
    for (i, t) in corners.windows(3).enumerate() {
        let triangle = if i % 2 == 0 { [t[0], t[1], t[2]] } else { [t[1], t[0], t[2]] };
        if t[0] != t[1] && t[1] != t[2] && t[2] != t[0] {
            triangles.push(triangle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(triangles: &[[u32; 3]], vertices: &[[f64; 3]]) -> (f64, f64) {
        let normal = |t: &[u32; 3]| {
            let [a, b, c] = t.map(|v| vertices[v as usize]);
            scale(cross(sub(b, a), sub(c, a)), 0.5)
        };
        let sum = triangles.iter().map(normal).fold([0.0; 3], add);
        (triangles.iter().map(normal).map(|n| dot(n, n).sqrt()).sum(), dot(sum, sum).sqrt())
    }

    /// The polygon around the origin whose corner `i` of `n` has distance `radius(i)`, in a plane that contains no axis.
    fn around(n: usize, radius: impl Fn(usize) -> f64) -> Vec<[f64; 3]> {
        let corner = |i: usize| {
            let (sin, cos) = (std::f64::consts::TAU * i as f64 / n as f64).sin_cos();
            let (x, y) = (radius(i) * cos, radius(i) * sin);
            [x, 0.6 * y, 0.8 * y]
        };
        (0..n).map(corner).collect()
    }

    fn whole(vertices: &[[f64; 3]]) -> Vec<[u32; 3]> {
        let corners: Vec<u32> = (0..vertices.len() as u32).collect();
        let mut triangles = Vec::new();
        assert!(triangulate(&corners, vertices, &mut triangles), "out of comparisons");
        assert_eq!(triangles.len(), vertices.len() - 2);
        triangles
    }

    #[test]
    fn polygons_of_many_corners_keep_their_area_and_none_of_their_triangles_is_turned() {
        let n = 20_000;
        let wave = |i: usize| 1.0 + 0.3 * (40.0 * std::f64::consts::TAU * i as f64 / n as f64).sin();
        let star = |i: usize| if i.is_multiple_of(2) { 1.0 } else { 0.3 };
        let shapes: [(&str, Vec<[f64; 3]>); 3] =
            [("a disk", around(n, |_| 1.0)), ("a flower", around(n, wave)), ("a star", around(n, star))];
        for (name, vertices) in shapes {
            // The shoelace formula in the polygon's plane.
            let next = |i: usize| vertices[(i + 1) % n];
            let twice = (0..n).map(|i| cross(vertices[i], next(i))).fold([0.0; 3], add);
            let exact = 0.5 * dot(twice, twice).sqrt();
            let (absolute, signed) = area(&whole(&vertices), &vertices);
            assert!((absolute / exact - 1.0).abs() < 1e-9 && (signed / exact - 1.0).abs() < 1e-9, "{name}: {absolute}");
        }
    }

    #[test]
    fn a_disk_of_many_corners_is_no_fan() {
        let vertices = around(20_000, |_| 1.0);
        let mut uses = vec![0; vertices.len()];
        whole(&vertices).as_flattened().iter().for_each(|&v| uses[v as usize] += 1);
        assert!(uses.iter().all(|&uses| uses <= 32), "a corner of {:?} triangles", uses.iter().max());
    }

    #[test]
    fn ears_of_a_spiral_are_found_in_few_comparisons() {
        // A band that winds around the origin thirty times, so every long diagonal crosses it.
        let n = 30_000;
        let radius = |i: usize| 1.0 + 30.0 * i as f64 / n as f64;
        let point = |i: usize, inset: f64| {
            let (sin, cos) = (30.0 * std::f64::consts::TAU * i as f64 / n as f64).sin_cos();
            [(radius(i) - inset) * cos, (radius(i) - inset) * sin, 0.0]
        };
        let vertices: Vec<[f64; 3]> =
            (0..n).map(|i| point(i, 0.0)).chain((0..n).rev().map(|i| point(i, 0.4))).collect();
        let (absolute, signed) = area(&whole(&vertices), &vertices);
        assert!((absolute / signed - 1.0).abs() < 1e-9, "{absolute} {signed}");
    }

    #[test]
    fn a_polygon_without_ears_costs_a_bounded_number_of_comparisons() {
        // Corners jump back and forth across a circle.
        let round = around(4001, |_| 1.0);
        let corners: Vec<u32> = (0..4001u32).map(|i| i * 1999 % 4001).collect();
        let outline = flat(&corners, &round);
        let mut triangles = Vec::new();
        Ears::new(&outline).clip(&corners, &mut triangles);
        assert_eq!(triangles.len(), corners.len() - 2);
        // All corners at one place, and positions that are not numbers.
        for place in [[1.0; 3], [f64::NAN; 3], [f64::INFINITY; 3], [1e300, -1e300, 1e300]] {
            let mut triangles = Vec::new();
            triangulate(&corners, &vec![place; 4001], &mut triangles);
            assert_eq!(triangles.len(), corners.len() - 2);
        }
    }
}
