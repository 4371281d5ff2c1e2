//! Exact distances, with signs, from the samples of a grid to the nearest triangle.
//!
//! Eight samples (2 × 2 × 2 neighbours) walk the tree together, so that one SIMD step compares a box or triangle with all of them. The leaf
//! that was nearest to the last eight is visited first.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::frame::Frame;
use super::winding::WindingTree;
use crate::mesh::vec3::{cross, dot, sub};
use crate::mesh::{Bvh, BvhNode, DEEPEST, Share, Work};
use crate::task::Task;
use crate::{Error, Result, allocator, memory};

const LANES: usize = 8;
type Lanes = [f32; LANES];

/// A winding number this close to one half says little about the side.
const DOUBT: f32 = 0.25;

/// A sample of an open mesh this near to a triangle has no side; in the grid's units, where its longest side is 2.
const ON_THE_SURFACE: f32 = 1e-6;

/// How the side of a sample is determined.
#[derive(Clone, Copy)]
pub(super) enum Signs<'a> {
    /// All samples are outside.
    None,
    /// The mesh bounds a volume: the side can only change at the surface, and few samples need a winding number.
    Closed(&'a WindingTree),
    /// Each sample needs its winding number.
    Open(&'a WindingTree),
}

/// The distances, with signs, of every sample in some slices of `frame` along x to the triangles of the tree; and how many signs were
/// guesses.
///
/// # Errors
/// If a distance overflows, or the triangles cost more than [`Work`] allows; [`Error::Interrupted`] after a stop.
pub(super) fn distances(
    bvh: &Bvh,
    facets: &[Facet],
    signs: Signs,
    frame: &Frame,
    slices: Range<usize>,
) -> Result<(Vec<f32>, usize)> {
    const OP: &str = "SdfGrid::from_mesh";
    let [_, ny, nz] = frame.shape;
    let mut values = allocator::zeros(memory::elements::<f32>(OP, "a grid", &[slices.len(), ny, nz], 0)?);
    let guessed = AtomicUsize::new(0);
    let task = Task::new("signed distance", slices.len());
    let work = Work::new(values.len(), bvh.nodes.len());
    values.par_chunks_mut(2 * ny * nz).enumerate().try_for_each(|(slab, values)| {
        let first = slices.start + 2 * slab;
        let share = &mut work.share();
        unsigned(bvh, facets, frame, first, values, share);
        match signs {
            Signs::None => {}
            Signs::Closed(winding) => sign_closed(winding, frame, first, values, share),
            Signs::Open(winding) => {
                guessed.fetch_add(sign_open(winding, frame, first, values, share), Ordering::Relaxed);
            }
        }
        work.check(OP, "the mesh")?;
        task.advance(values.len() / (ny * nz))
    })?;
    work.check(OP, "the mesh")?;
    if values.iter().any(|v| !v.is_finite()) {
        let (got, expected) = ("a distance that overflows".into(), "a mesh of moderate extent".into());
        return Err(Error::Argument { op: OP, name: "the mesh", got, expected });
    }
    Ok((values, guessed.into_inner()))
}

/// A triangle with everything needed for its distance: corners, edges, inward edge normals, unit normal.
pub(super) struct Facet {
    corner: [[f32; 3]; 3],
    edge: [[f32; 3]; 3],
    /// 1 / squared length of each edge; 0 for an edge without length.
    edge_scale: [f32; 3],
    inward: [[f32; 3]; 3],
    normal: [f32; 3],
}

impl Facet {
    /// The facets of a tree's triangles, in its order.
    pub fn all(bvh: &Bvh) -> Vec<Facet> {
        bvh.triangles.par_iter().map(Facet::new).collect()
    }

    fn new(corner: &[[f32; 3]; 3]) -> Self {
        let wide = corner.map(|c| c.map(f64::from));
        let edge: [[f64; 3]; 3] = std::array::from_fn(|i| sub(wide[(i + 1) % 3], wide[i]));
        let normal = cross(edge[0], edge[1]);
        let length = dot(normal, normal).sqrt();
        // Without a normal, no point counts as above the inside, and only the edges decide.
        let normal = normal.map(|n| if length > 0.0 { n / length } else { 0.0 });
        let narrow = |v: [f64; 3]| v.map(|c| c as f32);
        Self {
            corner: *corner,
            edge: edge.map(narrow),
            edge_scale: edge.map(|e| if dot(e, e) > 0.0 { (1.0 / dot(e, e)) as f32 } else { 0.0 }),
            inward: edge.map(|e| narrow(cross(normal, e))),
            normal: narrow(normal),
        }
    }

    /// Squared distances from eight points to the triangle, without a branch: to the plane for points above the inside, otherwise to the
    /// nearest edge.
    #[inline(always)]
    fn distance2(&self, p: &[Lanes; 3]) -> Lanes {
        let mut inside = [true; LANES];
        let mut to_edges = [f32::INFINITY; LANES];
        let mut above = [0.0; LANES];
        for i in 0..3 {
            let ([cx, cy, cz], [ex, ey, ez], [mx, my, mz]) = (self.corner[i], self.edge[i], self.inward[i]);
            for l in 0..LANES {
                let (x, y, z) = (p[0][l] - cx, p[1][l] - cy, p[2][l] - cz);
                let t = ((x * ex + y * ey + z * ez) * self.edge_scale[i]).clamp(0.0, 1.0);
                let (dx, dy, dz) = (x - t * ex, y - t * ey, z - t * ez);
                to_edges[l] = to_edges[l].min(dx * dx + dy * dy + dz * dz);
                inside[l] &= x * mx + y * my + z * mz > 0.0;
                above[l] = x * self.normal[0] + y * self.normal[1] + z * self.normal[2];
            }
        }
        let mut distance2 = to_edges;
        for l in 0..LANES {
            distance2[l] = if inside[l] { above[l] * above[l] } else { to_edges[l] };
        }
        distance2
    }
}

/// The distance of each point to the nearest triangle. Points near each other walk the tree together.
pub(super) fn distances_of(bvh: &Bvh, facets: &[Facet], points: &[[f32; 3]]) -> Result<Vec<f32>> {
    let mut order: Vec<u32> = (0..points.len() as u32).collect();
    order.par_sort_by_cached_key(|&i| along_a_curve(points[i as usize], &bvh.nodes[0]));
    let mut sorted = vec![0.0; points.len()];
    let task = Task::new("distance", points.len());
    let work = Work::new(points.len(), bvh.nodes.len());
    sorted.par_chunks_mut(1 << 12).zip(order.par_chunks(1 << 12)).try_for_each(|(distances, order)| {
        of_points(bvh, facets, points, order, distances, &mut work.share());
        work.check("DistanceQuery", "the mesh")?;
        task.advance(order.len())
    })?;
    let mut distances = vec![0.0; points.len()];
    order.iter().zip(sorted).for_each(|(&i, distance)| distances[i as usize] = distance);
    Ok(distances)
}

/// The place of a point along a space-filling curve (Morton 1966). Points outside the box are placed at its border.
fn along_a_curve(point: [f32; 3], node: &BvhNode) -> u32 {
    let spread = |axis: usize| {
        let share = (point[axis] - node.min[axis]) / (node.max[axis] - node.min[axis]);
        // Ten bits, spread to every third place.
        let bits = (share.clamp(0.0, 1.0) * 1023.0) as u32;
        (0..10).fold(0, |spread, bit| spread | (bits >> bit & 1) << (3 * bit))
    };
    spread(0) << 2 | spread(1) << 1 | spread(2)
}

/// Distances of the points, taken in this order.
fn of_points(bvh: &Bvh, facets: &[Facet], points: &[[f32; 3]], order: &[u32], distances: &mut [f32], work: &mut Share) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn wide(
            bvh: &Bvh,
            facets: &[Facet],
            points: &[[f32; 3]],
            order: &[u32],
            distances: &mut [f32],
            work: &mut Share,
        ) {
            of_points_body(bvh, facets, points, order, distances, work);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            return unsafe { wide(bvh, facets, points, order, distances, work) };
        }
    }
    of_points_body(bvh, facets, points, order, distances, work);
}

#[inline(always)]
fn of_points_body(
    bvh: &Bvh,
    facets: &[Facet],
    points: &[[f32; 3]],
    order: &[u32],
    distances: &mut [f32],
    work: &mut Share,
) {
    let mut seed = None;
    for (order, distances) in order.chunks(LANES).zip(distances.chunks_mut(LANES)) {
        // The last point replaces missing ones.
        let point = |lane: usize| points[order[lane.min(order.len() - 1)] as usize];
        let packet = std::array::from_fn(|axis| std::array::from_fn(|lane| point(lane)[axis]));
        let mut best = [f32::INFINITY; LANES];
        nearest(bvh, facets, &packet, &mut seed, &mut best, work);
        distances.iter_mut().zip(best).for_each(|(distance, best)| *distance = best.sqrt());
    }
}

/// Fills a slab (up to two x-slices from `first_x` on) with distances to the nearest triangle.
fn unsigned(bvh: &Bvh, facets: &[Facet], frame: &Frame, first_x: usize, values: &mut [f32], work: &mut Share) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn wide(bvh: &Bvh, facets: &[Facet], frame: &Frame, first_x: usize, values: &mut [f32], work: &mut Share) {
            unsigned_body(bvh, facets, frame, first_x, values, work);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            return unsafe { wide(bvh, facets, frame, first_x, values, work) };
        }
    }
    unsigned_body(bvh, facets, frame, first_x, values, work);
}

#[inline(always)]
fn unsigned_body(bvh: &Bvh, facets: &[Facet], frame: &Frame, first_x: usize, values: &mut [f32], work: &mut Share) {
    let [_, ny, nz] = frame.shape;
    let nx = values.len() / (ny * nz);
    let mut seed = None;
    for (turn, j) in (0..ny).step_by(2).enumerate() {
        for step in 0..nz.div_ceil(2) {
            // Alternating directions, so that neighbours in time are neighbours in space.
            let k = 2 * if turn % 2 == 0 { step } else { nz.div_ceil(2) - 1 - step };
            let mut points = [[0.0; LANES]; 3];
            let mut places = [0; LANES];
            for l in 0..LANES {
                // At an odd end, the last samples replace those that do not exist.
                let (di, j, k) = ((l >> 2).min(nx - 1), (j + (l >> 1 & 1)).min(ny - 1), (k + (l & 1)).min(nz - 1));
                for (axis, index) in [first_x + di, j, k].into_iter().enumerate() {
                    points[axis][l] = frame.origin[axis] + index as f32 * frame.spacing[axis];
                }
                places[l] = (di * ny + j) * nz + k;
            }
            let mut best = [f32::INFINITY; LANES];
            nearest(bvh, facets, &points, &mut seed, &mut best, work);
            for l in 0..LANES {
                values[places[l]] = best[l].sqrt();
            }
        }
    }
}

/// Lowers `best` to the squared distance of the nearest triangle. If `work` is over its limit, `best` does not change.
#[inline(always)]
fn nearest(
    bvh: &Bvh,
    facets: &[Facet],
    points: &[Lanes; 3],
    seed: &mut Option<usize>,
    best: &mut Lanes,
    work: &mut Share,
) {
    if work.is_over() {
        return;
    }
    let mut boxes = 0;
    if let Some(leaf) = *seed {
        visit_leaf(bvh, facets, points, leaf, best);
    }
    let mut worst = max(best);
    let mut open = [(0u32, 0.0f32); DEEPEST + 1];
    let mut depth = 1; // the root is open
    while depth > 0 {
        depth -= 1;
        boxes += 1;
        let (at, at_least) = open[depth];
        if at_least >= worst {
            continue;
        }
        let node = &bvh.nodes[at as usize];
        if node.count > 0 {
            if visit_leaf(bvh, facets, points, at as usize, best) {
                worst = max(best);
                *seed = Some(at as usize);
            }
            continue;
        }
        let [a, b] = [node.first, node.first + 1].map(|child| {
            let (useful, least) = box_distance2(&bvh.nodes[child as usize], points, best);
            (child, least, useful)
        });
        let [near, far] = if a.1 <= b.1 { [a, b] } else { [b, a] };
        for (child, least, useful) in [far, near] {
            if useful {
                open[depth] = (child, least);
                depth += 1;
            }
        }
    }
    work.spend(boxes);
}

/// Returns whether a triangle of the leaf is nearer to one of the points than `best`, and updates `best`.
#[inline(always)]
fn visit_leaf(bvh: &Bvh, facets: &[Facet], points: &[Lanes; 3], leaf: usize, best: &mut Lanes) -> bool {
    let node = &bvh.nodes[leaf];
    let mut nearer = false;
    for facet in &facets[node.first as usize..(node.first + node.count) as usize] {
        let distance2 = facet.distance2(points);
        for l in 0..LANES {
            nearer |= distance2[l] < best[l];
            best[l] = best[l].min(distance2[l]);
        }
    }
    nearer
}

/// Whether the box is nearer to one of the points than `best`; and the smallest squared distance of all points to it.
#[inline(always)]
fn box_distance2(node: &BvhNode, p: &[Lanes; 3], best: &Lanes) -> (bool, f32) {
    let mut distance2 = [0.0; LANES];
    for ((p, &min), &max) in p.iter().zip(&node.min).zip(&node.max) {
        for l in 0..LANES {
            let d = (min - p[l]).max(p[l] - max).max(0.0);
            distance2[l] += d * d;
        }
    }
    let mut useful = false;
    for l in 0..LANES {
        useful |= distance2[l] < best[l];
    }
    (useful, distance2.into_iter().fold(f32::INFINITY, f32::min))
}

#[inline(always)]
fn max(lanes: &Lanes) -> f32 {
    lanes.iter().copied().fold(0.0, f32::max)
}

fn position(frame: &Frame, [i, j, k]: [usize; 3]) -> [f32; 3] {
    let index = [i, j, k];
    std::array::from_fn(|a| frame.origin[a] + index[a] as f32 * frame.spacing[a])
}

/// Signs for a mesh that bounds a volume. Two neighbours whose distances add up to more than the distance between them are on the same
/// side, because no surface can lie between them; the others need their winding number.
fn sign_closed(winding: &WindingTree, frame: &Frame, first_x: usize, values: &mut [f32], work: &mut Share) {
    let [_, ny, nz] = frame.shape;
    // Distances are rounded; a little slack prevents a pair that just touches from being trusted.
    let gap = frame.spacing.map(|h| h * 1.001);
    for place in 0..values.len() {
        let (i, j, k) = (place / (ny * nz), place / nz % ny, place % nz);
        let known = [(k, 1, gap[2]), (j, nz, gap[1]), (i, ny * nz, gap[0])]
            .into_iter()
            .find(|&(index, back, gap)| index > 0 && values[place - back].abs() + values[place] > gap)
            .map(|(_, back, _)| values[place - back] < 0.0);
        // A mesh that is inside out (winding number -1) encloses the same volume.
        let mut encloses = |p: [f32; 3]| winding.winding_number(p, work).abs() > 0.5;
        let inside = known.unwrap_or_else(|| encloses(position(frame, [first_x + i, j, k])));
        if inside {
            values[place] = -values[place];
        }
    }
}

/// Signs for a mesh with holes, by the winding number of every sample. Returns how many were doubtful.
fn sign_open(winding: &WindingTree, frame: &Frame, first_x: usize, values: &mut [f32], work: &mut Share) -> usize {
    let [_, ny, nz] = frame.shape;
    let mut doubtful = 0;
    for (place, value) in values.iter_mut().enumerate() {
        let index = [first_x + place / (ny * nz), place / nz % ny, place % nz];
        let number = winding.winding_number(position(frame, index), work).abs();
        doubtful += usize::from((number - 0.5).abs() < DOUBT);
        // On a sheet the winding number is one half, and rounding would decide.
        if number > 0.5 && *value > ON_THE_SURFACE {
            *value = -*value;
        }
    }
    doubtful
}
