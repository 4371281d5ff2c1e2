//! The generalized winding number of a triangle mesh, computed fast: 1 inside, 0 outside, in between near holes.
//!
//! Triangles that are far away compared with their extent count together, by a second-order expansion of their solid angle around their
//! common middle (Barill et al., "Fast winding numbers for soups and clouds", 2018).

use std::sync::Arc;

use rayon::prelude::*;

use crate::mesh::{Bvh, DEEPEST, Share};

/// A cluster is far if its distance exceeds this multiple of its radius. Larger values are slower and more exact; with the paper's default
/// of 2 the error is below 0.01.
const FAR: f32 = 2.0;
const INV_4PI: f32 = 0.25 * std::f32::consts::FRAC_1_PI;

/// The expansion of a node of the tree, seen from far away.
#[derive(Clone, Copy, Default)]
struct Cluster {
    middle: [f32; 3],
    /// The square of the distance from which the expansion is valid.
    far2: f32,
    /// Sum of the area-weighted normals.
    normal: [f32; 3],
    /// Sum of (centroid - middle) times area-weighted normal, `moment[i][j]` for offset i and normal j.
    moment: [[f32; 3]; 3],
}

/// The tree of a [`Bvh`] with an expansion at every node.
pub(super) struct WindingTree {
    bvh: Arc<Bvh>,
    clusters: Vec<Cluster>,
}

impl WindingTree {
    pub fn new(bvh: Arc<Bvh>) -> Self {
        // The triangles below each node are consecutive. Children come after their parent, so this goes from back to front.
        let mut range = vec![(0usize, 0usize); bvh.nodes.len()];
        for (at, node) in bvh.nodes.iter().enumerate().rev() {
            let first = node.first as usize;
            range[at] = match node.count as usize {
                0 => (range[first].0.min(range[first + 1].0), range[first].1.max(range[first + 1].1)),
                count => (first, first + count),
            };
        }
        let clusters = range.par_iter().map(|&(from, to)| cluster(&bvh.triangles[from..to], &bvh.weights[from..to]));
        let clusters = clusters.collect();
        Self { bvh, clusters }
    }

    /// The winding number around `p`, to within about 0.01; any number if `work` is over its limit.
    pub fn winding_number(&self, p: [f32; 3], work: &mut Share) -> f32 {
        let mut sum = 0.0;
        let mut boxes = 0;
        let mut open = [0u32; DEEPEST + 1];
        let mut depth = 1; // the root is open
        while depth > 0 && !work.is_over() {
            depth -= 1;
            boxes += 1;
            let at = open[depth] as usize;
            let cluster = &self.clusters[at];
            let r: [f32; 3] = std::array::from_fn(|i| cluster.middle[i] - p[i]);
            let r2 = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
            let node = &self.bvh.nodes[at];
            if r2 > cluster.far2 {
                sum += expansion(cluster, r, r2);
            } else if node.count > 0 {
                let (first, count) = (node.first as usize, node.count as usize);
                let triangles = &self.bvh.triangles[first..first + count];
                let weights = &self.bvh.weights[first..first + count];
                sum +=
                    triangles.iter().zip(weights).map(|(t, weight)| weight * solid_angle(t, p)).sum::<f32>() * INV_4PI;
            } else {
                open[depth] = node.first;
                open[depth + 1] = node.first + 1;
                depth += 2;
            }
        }
        work.spend(boxes);
        sum
    }
}

fn cluster(triangles: &[[[f32; 3]; 3]], weights: &[f32]) -> Cluster {
    let normal = |[a, b, c]: &[[f32; 3]; 3]| {
        let (u, v): ([f32; 3], [f32; 3]) = (std::array::from_fn(|i| b[i] - a[i]), std::array::from_fn(|i| c[i] - a[i]));
        [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]].map(|n| 0.5 * n)
    };
    let centroid = |[a, b, c]: &[[f32; 3]; 3]| -> [f32; 3] { std::array::from_fn(|i| (a[i] + b[i] + c[i]) / 3.0) };
    let mut sums = Cluster::default();
    let mut weight = 0.0;
    for (t, &times) in triangles.iter().zip(weights) {
        let n = normal(t);
        // A triangle without area still has a place.
        let area = (n[0] * n[0] + n[1] * n[1] + n[2] * n[2]).sqrt().max(f32::MIN_POSITIVE);
        weight += area;
        let c = centroid(t);
        for i in 0..3 {
            sums.middle[i] += area * c[i];
            sums.normal[i] += times * n[i];
        }
    }
    sums.middle = sums.middle.map(|m| m / weight);
    let mut radius2 = 0.0f32;
    for (t, &times) in triangles.iter().zip(weights) {
        let (n, c) = (normal(t).map(|n| times * n), centroid(t));
        for (i, row) in sums.moment.iter_mut().enumerate() {
            for (m, n) in row.iter_mut().zip(n) {
                *m += (c[i] - sums.middle[i]) * n;
            }
        }
        for corner in t {
            radius2 = radius2.max((0..3).map(|i| (corner[i] - sums.middle[i]).powi(2)).sum());
        }
    }
    sums.far2 = FAR * FAR * radius2;
    sums
}

/// The winding number contributed by a far cluster; `r` points from the query to its middle.
fn expansion(cluster: &Cluster, r: [f32; 3], r2: f32) -> f32 {
    let inv = 1.0 / r2.sqrt();
    let inv3 = inv * inv * inv;
    let dot = r[0] * cluster.normal[0] + r[1] * cluster.normal[1] + r[2] * cluster.normal[2];
    let trace = cluster.moment[0][0] + cluster.moment[1][1] + cluster.moment[2][2];
    let quadratic: f32 = (0..3).map(|i| r[i] * (0..3).map(|j| cluster.moment[i][j] * r[j]).sum::<f32>()).sum::<f32>();
    INV_4PI * inv3 * (dot + trace - 3.0 * quadratic * inv * inv)
}

/// The signed solid angle of a triangle seen from `p` (Van Oosterom and Strackee, 1983), in steradians.
fn solid_angle(triangle: &[[f32; 3]; 3], p: [f32; 3]) -> f32 {
    let [a, b, c]: [[f32; 3]; 3] = triangle.map(|v| std::array::from_fn(|i| v[i] - p[i]));
    let dot = |u: [f32; 3], v: [f32; 3]| u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    let (la, lb, lc) = (dot(a, a).sqrt(), dot(b, b).sqrt(), dot(c, c).sqrt());
    let det =
        a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
    2.0 * det.atan2(la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb)
}
