//! A bounding volume hierarchy over a mesh's triangles: nearest-point queries, and the tree that the signed distance
//! grid walks.
//!
//! Built top-down by the surface area heuristic over 16 bins (Wald, "On fast construction of SAH-based bounding volume
//! hierarchies", 2007).

use super::Mesh;
use super::geometry::{closest_point_on_triangle, vec3};

const BINS: usize = 16;
const LEAF: usize = 4;

/// A box of the tree. A leaf has `count` triangles from `first` on; an inner node has `count` 0 and its children at
/// `first` and `first + 1`.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub min: [f32; 3],
    pub max: [f32; 3],
    pub first: u32,
    pub count: u32,
}

impl Node {
    /// Squared distance from `p` to the box, zero inside.
    fn distance2(&self, p: [f32; 3]) -> f32 {
        (0..3).map(|i| (self.min[i] - p[i]).max(p[i] - self.max[i]).max(0.0)).map(|d| d * d).sum()
    }
}

/// The tree; node 0 is the root. Children always stand behind their parent.
pub(crate) struct Bvh {
    pub nodes: Vec<Node>,
    /// Corners of the triangles, in the order of the leaves.
    pub triangles: Vec<[[f32; 3]; 3]>,
    /// Which triangle of the mesh each of [`Bvh::triangles`] is.
    pub faces: Vec<u32>,
}

/// The nearest point of a mesh's surface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nearest {
    pub distance2: f32,
    pub face: u32,
}

#[derive(Clone, Copy)]
struct Bounds([f32; 3], [f32; 3]);

impl Bounds {
    const EMPTY: Self = Self([f32::INFINITY; 3], [f32::NEG_INFINITY; 3]);
    fn grow(&mut self, p: [f32; 3]) {
        for ((lo, hi), c) in self.0.iter_mut().zip(&mut self.1).zip(p) {
            *lo = lo.min(c);
            *hi = hi.max(c);
        }
    }
    fn join(&mut self, other: &Self) {
        self.grow(other.0);
        self.grow(other.1);
    }
    fn half_area(&self) -> f32 {
        let [x, y, z] = vec3::sub(self.1, self.0).map(|d| d.max(0.0));
        x * y + y * z + z * x
    }
}

struct Item {
    bounds: Bounds,
    middle: [f32; 3],
    face: u32,
}

impl Bvh {
    pub fn new(mesh: &Mesh) -> Self {
        let mut items: Vec<Item> = (0..mesh.faces().len())
            .map(|face| {
                let mut bounds = Bounds::EMPTY;
                mesh.triangle(face).into_iter().for_each(|p| bounds.grow(p));
                let middle = std::array::from_fn(|i| 0.5 * (bounds.0[i] + bounds.1[i]));
                Item { bounds, middle, face: face as u32 }
            })
            .collect();
        let root = Node { min: [0.0; 3], max: [0.0; 3], first: 0, count: items.len() as u32 };
        let mut nodes = vec![root];
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            let (first, count) = (nodes[at].first as usize, nodes[at].count as usize);
            let own = &mut items[first..first + count];
            let mut bounds = Bounds::EMPTY;
            own.iter().for_each(|item| bounds.join(&item.bounds));
            (nodes[at].min, nodes[at].max) = (bounds.0, bounds.1);
            if count <= LEAF {
                continue;
            }
            let left = split(own);
            let child = |first, count| Node { first: first as u32, count: count as u32, ..root };
            nodes[at] = Node { first: nodes.len() as u32, count: 0, ..nodes[at] };
            open.extend([nodes.len(), nodes.len() + 1]);
            nodes.extend([child(first, left), child(first + left, count - left)]);
        }
        let faces: Vec<u32> = items.iter().map(|item| item.face).collect();
        Self { nodes, triangles: faces.iter().map(|&f| mesh.triangle(f as usize)).collect(), faces }
    }

    /// The point of the surface nearest to `p`.
    pub fn nearest(&self, p: [f32; 3]) -> Nearest {
        let mut best = Nearest { distance2: f32::INFINITY, face: 0 };
        let mut open = vec![(self.nodes[0].distance2(p), 0)];
        while let Some((distance2, at)) = open.pop() {
            if distance2 >= best.distance2 {
                continue;
            }
            let node = self.nodes[at];
            let first = node.first as usize;
            for i in first..first + node.count as usize {
                let away = vec3::sub(closest_point_on_triangle(p, self.triangles[i]), p);
                let distance2 = vec3::dot(away, away);
                if distance2 < best.distance2 {
                    best = Nearest { distance2, face: self.faces[i] };
                }
            }
            if node.count == 0 {
                let [a, b] = [first, first + 1].map(|child| (self.nodes[child].distance2(p), child));
                // The nearer child is looked at first.
                open.extend(if a.0 < b.0 { [b, a] } else { [a, b] });
            }
        }
        best
    }
}

/// Orders the items so that the cheapest split found is at the returned position, which is never an end.
fn split(items: &mut [Item]) -> usize {
    let mut middles = Bounds::EMPTY;
    items.iter().for_each(|item| middles.grow(item.middle));
    let extent = vec3::sub(middles.1, middles.0);
    let bin_of = |item: &Item, axis: usize| {
        (((item.middle[axis] - middles.0[axis]) / extent[axis] * BINS as f32) as usize).min(BINS - 1)
    };
    let mut best = (f32::INFINITY, 0, 0);
    for axis in (0..3).filter(|&axis| extent[axis] > 0.0) {
        let mut bins = [(Bounds::EMPTY, 0usize); BINS];
        for item in items.iter() {
            let bin = &mut bins[bin_of(item, axis)];
            bin.0.join(&item.bounds);
            bin.1 += 1;
        }
        let mut right_cost = [0.0; BINS];
        let mut side = (Bounds::EMPTY, 0usize);
        for i in (1..BINS).rev() {
            side = {
                side.0.join(&bins[i].0);
                (side.0, side.1 + bins[i].1)
            };
            right_cost[i] = side.0.half_area() * side.1 as f32;
        }
        side = (Bounds::EMPTY, 0);
        for i in 1..BINS {
            side = {
                side.0.join(&bins[i - 1].0);
                (side.0, side.1 + bins[i - 1].1)
            };
            let cost = side.0.half_area() * side.1 as f32 + right_cost[i];
            if side.1 > 0 && side.1 < items.len() && cost < best.0 {
                best = (cost, axis, i);
            }
        }
    }
    let (cost, axis, bin) = best;
    if cost.is_finite() {
        items.sort_unstable_by_key(|item| bin_of(item, axis) >= bin);
        items.partition_point(|item| bin_of(item, axis) < bin)
    } else {
        items.len() / 2 // all at one place: any halves will do
    }
}
