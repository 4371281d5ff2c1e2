//! A bounding volume hierarchy over a mesh's triangles: nearest-point queries, and the tree that the signed distance grid uses.
//!
//! Built from the top by the surface area heuristic with 16 bins (Wald, "On fast construction of SAH-based bounding volume hierarchies",
//! 2007). Large parts of the tree are built in parallel.
//!
//! No box can separate triangles with the same corners, so they become one triangle that counts for all of them.

use super::geometry::{closest_point_on_triangle, vec3};
use super::{Mesh, Share};

const BINS: usize = 16;
const LEAF: usize = 4;

/// From this depth on, every split halves the triangles, so that no tree is deeper than [`DEEPEST`].
const CHEAPEST_SPLITS: usize = 80;

/// The largest depth of a tree of up to 2^32 triangles. A walk keeps at most one box per level and one more.
pub(crate) const DEEPEST: usize = CHEAPEST_SPLITS + 32;

/// Parts with more triangles than this are built by another thread.
const ALONE: usize = 1 << 14;

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

/// The tree; node 0 is the root. Children always come after their parent.
pub(crate) struct Bvh {
    pub nodes: Vec<Node>,
    /// The corners of the triangles, in the order of the leaves. Some triangles are in no leaf: another one with the same corners counts
    /// for them.
    pub triangles: Vec<[[f32; 3]; 3]>,
    /// How often each of [`Bvh::triangles`] occurs, minus the ones that face the other way; 0 for one in no leaf.
    pub weights: Vec<f32>,
    /// The index in the mesh of each of [`Bvh::triangles`].
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
    /// Joining an empty box changes nothing.
    fn join(&mut self, other: &Self) {
        self.0 = std::array::from_fn(|axis| self.0[axis].min(other.0[axis]));
        self.1 = std::array::from_fn(|axis| self.1[axis].max(other.1[axis]));
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
    weight: f32,
}

type Triangle = [[f32; 3]; 3];

impl Bvh {
    pub fn new(mesh: &Mesh) -> Self {
        Self::of((0..mesh.faces().len()).map(|face| mesh.triangle(face)))
    }

    /// The tree over triangles given by their corners.
    pub fn of(triangles: impl Iterator<Item = [[f32; 3]; 3]>) -> Self {
        let triangles: Vec<[[f32; 3]; 3]> = triangles.collect();
        let item = |(face, triangle): (usize, &[[f32; 3]; 3])| {
            let mut bounds = Bounds::EMPTY;
            triangle.iter().for_each(|&p| bounds.grow(p));
            let middle = std::array::from_fn(|i| 0.5 * (bounds.0[i] + bounds.1[i]));
            Item { bounds, middle, face: face as u32, weight: 1.0 }
        };
        let mut items: Vec<Item> = triangles.iter().enumerate().map(item).collect();
        let mut nodes = Vec::new();
        build(&triangles, &mut items, 0, 0, &mut nodes);
        let faces: Vec<u32> = items.iter().map(|item| item.face).collect();
        let weights = items.iter().map(|item| item.weight).collect();
        Self { nodes, triangles: faces.iter().map(|&f| triangles[f as usize]).collect(), weights, faces }
    }

    /// The first triangle other than `own` that a ray meets within `reach` of its origin, and its distance. `direction` must have length
    /// one. `None` if `work` is over its limit.
    pub fn first_hit(
        &self,
        origin: [f32; 3],
        direction: [f32; 3],
        reach: f32,
        own: u32,
        work: &mut Share,
    ) -> Option<(f32, u32)> {
        let inverse = direction.map(|d| 1.0 / d);
        let enters = |node: &Node, reach: f32| {
            let (mut from, mut to) = (0.0f32, reach);
            for axis in 0..3 {
                let [a, b] = [node.min, node.max].map(|side| (side[axis] - origin[axis]) * inverse[axis]);
                // A ray in the plane of a side gives NaN, which min and max ignore.
                (from, to) = (from.max(a.min(b)), to.min(a.max(b)));
            }
            from <= to * 1.0001
        };
        let mut best = None;
        let mut reach = reach;
        let mut open = vec![0];
        while let Some(at) = open.pop().filter(|_| !work.is_over()) {
            work.spend(1);
            let node = &self.nodes[at];
            if !enters(node, reach) {
                continue;
            }
            let first = node.first as usize;
            for i in (first..first + node.count as usize).filter(|&i| self.faces[i] != own) {
                if let Some(t) = ray_meets(origin, direction, &self.triangles[i]).filter(|&t| t < reach) {
                    (reach, best) = (t, Some((t, self.faces[i])));
                }
            }
            if node.count == 0 {
                open.extend([first, first + 1]);
            }
        }
        best
    }

    /// The point of the surface nearest to `p`; any point if `work` is over its limit.
    pub fn nearest(&self, p: [f32; 3], work: &mut Share) -> Nearest {
        let mut best = Nearest { distance2: f32::INFINITY, face: 0 };
        let mut open = vec![(self.nodes[0].distance2(p), 0)];
        while let Some((distance2, at)) = open.pop().filter(|_| !work.is_over()) {
            work.spend(1);
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
                // The nearer child is visited first.
                open.extend(if a.0 < b.0 { [b, a] } else { [a, b] });
            }
        }
        best
    }
}

/// How far along a ray it meets a triangle, at least zero (Moeller and Trumbore, 1997).
fn ray_meets(origin: [f32; 3], direction: [f32; 3], &[a, b, c]: &[[f32; 3]; 3]) -> Option<f32> {
    let (ab, ac) = (vec3::sub(b, a), vec3::sub(c, a));
    let across = vec3::cross(direction, ac);
    let inverse = 1.0 / vec3::dot(ab, across);
    let from = vec3::sub(origin, a);
    let u = vec3::dot(from, across) * inverse;
    let along = vec3::cross(from, ab);
    let v = vec3::dot(direction, along) * inverse;
    let t = vec3::dot(ac, along) * inverse;
    (inverse.is_finite() && u >= 0.0 && v >= 0.0 && u + v <= 1.0 && t >= 0.0).then_some(t)
}

/// Appends the tree over `items` to `nodes`: its root first, then everything else. The first item is triangle `first` in the order of the
/// leaves.
fn build(triangles: &[Triangle], items: &mut [Item], first: usize, depth: usize, nodes: &mut Vec<Node>) {
    let root = nodes.len();
    nodes.push(leaf(items, first));
    build_below(triangles, items, first, depth, root, nodes);
}

/// Splits the leaf at `at` of `nodes`, which holds `items`, as long as this pays.
fn build_below(
    triangles: &[Triangle],
    items: &mut [Item],
    first: usize,
    depth: usize,
    at: usize,
    nodes: &mut Vec<Node>,
) {
    if items.len() <= LEAF {
        return;
    }
    let cheapest = if depth < CHEAPEST_SPLITS { split(items) } else { None };
    let items = match cheapest {
        Some(_) => items,
        None => {
            // All triangles are at one place, or nearly. If their corners differ, they may still be halved.
            let different = merge(triangles, items);
            nodes[at].count = different as u32;
            &mut items[..different]
        }
    };
    if items.len() <= LEAF {
        return;
    }
    let alone = items.len() > ALONE;
    let middle = cheapest.unwrap_or(items.len() / 2);
    let (left, right) = items.split_at_mut(middle);
    let children = nodes.len();
    nodes[at] = Node { first: children as u32, count: 0, ..nodes[at] };
    nodes.extend([leaf(left, first), leaf(right, first + middle)]);
    if alone {
        let part = |items: &mut [Item], first: usize| {
            let mut nodes = Vec::new();
            build(triangles, items, first, depth + 1, &mut nodes);
            nodes
        };
        let parts: (Vec<Node>, Vec<Node>) = rayon::join(|| part(left, first), || part(right, first + middle));
        for (child, part) in [(children, parts.0), (children + 1, parts.1)] {
            // The part's root replaces the child, so the other nodes move by one less than the number of nodes before them.
            let shift = nodes.len() as u32 - 1;
            let moved =
                |node: Node| Node { first: if node.count == 0 { node.first + shift } else { node.first }, ..node };
            let mut part = part.into_iter().map(moved);
            nodes[child] = part.next().unwrap_or(nodes[child]);
            nodes.extend(part);
        }
    } else {
        build_below(triangles, left, first, depth + 1, children, nodes);
        build_below(triangles, right, first + middle, depth + 1, children + 1, nodes);
    }
}

/// Moves one triangle of each set with equal corners to the front, the first one of the mesh, and gives it the weight of all of them; the
/// others get weight 0. Returns how many are at the front.
fn merge(triangles: &[Triangle], items: &mut [Item]) -> usize {
    // The corners in a fixed order, and whether that order turns the triangle over.
    let sorted = |item: &Item| {
        let mut corners = triangles[item.face as usize].map(|corner| corner.map(|c| (c + 0.0).to_bits()));
        let mut turned = false;
        for (a, b) in [(0, 1), (1, 2), (0, 1)] {
            if corners[a] > corners[b] {
                corners.swap(a, b);
                turned = !turned;
            }
        }
        (corners, turned)
    };
    items.sort_by_cached_key(|item| (sorted(item).0, item.face));
    let mut different = 0usize;
    for i in 0..items.len() {
        let (corners, turned) = sorted(&items[i]);
        match different.checked_sub(1).map(|last| (last, sorted(&items[last]))) {
            Some((last, (same, facing))) if same == corners => {
                items[last].weight += if facing == turned { items[i].weight } else { -items[i].weight };
                items[i].weight = 0.0;
            }
            _ => {
                items.swap(different, i);
                different += 1;
            }
        }
    }
    different
}

/// One leaf of all items.
fn leaf(items: &[Item], first: usize) -> Node {
    let mut bounds = Bounds::EMPTY;
    items.iter().for_each(|item| bounds.join(&item.bounds));
    Node { min: bounds.0, max: bounds.1, first: first as u32, count: items.len() as u32 }
}

/// Reorders the items for the cheapest split found, and returns its position, which is never at an end. `None` if all items are at one
/// place.
fn split(items: &mut [Item]) -> Option<usize> {
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
    if !cost.is_finite() {
        return None;
    }
    let (mut left, mut right) = (0, items.len());
    while left < right {
        if bin_of(&items[left], axis) < bin {
            left += 1;
        } else {
            right -= 1;
            items.swap(left, right);
        }
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::mesh::Work;
    use rand::{Rng, SeedableRng};

    /// The cost of a random ray in this tree (MacDonald and Booth 1990): boxes entered plus triangles met.
    fn sah_cost(tree: &Bvh) -> f64 {
        let area = |node: &Node| f64::from(Bounds(node.min, node.max).half_area());
        let own = |node: &Node| area(node) * f64::from(node.count.max(1));
        tree.nodes.iter().map(own).sum::<f64>() / area(&tree.nodes[0])
    }

    /// The cost of the tree in which each split is the cheapest of all splits along the three axes.
    fn sah_cost_of_all_splits(mesh: &Mesh) -> f64 {
        let mut boxes: Vec<Bounds> = (0..mesh.faces().len())
            .map(|f| {
                let mut bounds = Bounds::EMPTY;
                mesh.triangle(f).into_iter().for_each(|p| bounds.grow(p));
                bounds
            })
            .collect();
        let around = |boxes: &[Bounds]| {
            boxes.iter().fold(Bounds::EMPTY, |mut all, one| {
                all.join(one);
                all
            })
        };
        let root = f64::from(around(&boxes).half_area());
        let mut cost = 0.0;
        let mut open: Vec<&mut [Bounds]> = vec![&mut boxes];
        while let Some(boxes) = open.pop() {
            let area = f64::from(around(boxes).half_area());
            if boxes.len() <= LEAF {
                cost += area * boxes.len() as f64;
                continue;
            }
            cost += area;
            let order = |axis: usize| move |b: &Bounds| b.0[axis] + b.1[axis];
            let mut best = (f32::INFINITY, 0, 1);
            for axis in 0..3 {
                boxes.sort_by(|a, b| order(axis)(a).total_cmp(&order(axis)(b)));
                let mut right: Vec<f32> = Vec::with_capacity(boxes.len());
                let mut side = Bounds::EMPTY;
                for b in boxes.iter().rev() {
                    side.join(b);
                    right.push(side.half_area());
                }
                side = Bounds::EMPTY;
                for i in 1..boxes.len() {
                    side.join(&boxes[i - 1]);
                    let rest = boxes.len() - i;
                    let price = side.half_area() * i as f32 + right[rest - 1] * rest as f32;
                    if price < best.0 {
                        best = (price, axis, i);
                    }
                }
            }
            boxes.sort_by(|a, b| order(best.1)(a).total_cmp(&order(best.1)(b)));
            let (left, right) = boxes.split_at_mut(best.2);
            open.extend([left, right]);
        }
        cost / root
    }

    fn ball(centre: [f32; 3], radius: f32) -> Mesh {
        let ball = crate::sdf::shapes::sphere(0.8).to_mesh(20).unwrap();
        ball.map_vertices(|p| std::array::from_fn(|i| centre[i] + radius * p[i])).unwrap()
    }

    fn joined(parts: &[Mesh]) -> Mesh {
        let (mut vertices, mut faces) = (Vec::new(), Vec::new());
        for part in parts {
            let first = vertices.len() as u32;
            vertices.extend_from_slice(part.vertices());
            faces.extend(part.faces().iter().map(|f| f.map(|v| v + first)));
        }
        Mesh::new(vertices, faces).unwrap()
    }

    /// Very long and thin triangles in all directions, which cross each other.
    fn needles(count: usize) -> Mesh {
        let mut rng = rand::rngs::StdRng::seed_from_u64(5);
        let mut vertices: Vec<[f32; 3]> = Vec::new();
        for _ in 0..count {
            let [a, b]: [[f32; 3]; 2] = std::array::from_fn(|_| std::array::from_fn(|_| rng.random::<f32>()));
            vertices.extend([a, b, b.map(|c| c + 1e-3)]);
        }
        Mesh::new(vertices, (0..count as u32).map(|i| [3 * i, 3 * i + 1, 3 * i + 2]).collect()).unwrap()
    }

    /// Meshes with gaps, outliers, clusters of all sizes, and slivers.
    fn meshes() -> Vec<(&'static str, Mesh)> {
        let near = ball([0.0; 3], 0.05);
        let clusters: Vec<Mesh> = (0..12).map(|i| ball([3f32.powi(i), 0.0, 0.0], 0.3 * 3f32.powi(i))).collect();
        vec![
            ("one ball", ball([0.0; 3], 1.0)),
            ("two balls and a gap", joined(&[near.clone(), ball([1.0, 0.0, 0.0], 0.05)])),
            ("a ball and an outlier", joined(&[near, ball([1e4, -1e4, 2.0], 1e-3)])),
            ("balls of all sizes", joined(&clusters)),
            ("needles", needles(2000)),
        ]
    }

    #[test]
    fn a_tree_costs_little_more_than_one_made_of_the_cheapest_splits() {
        for (name, mesh) in meshes() {
            let (got, best) = (sah_cost(&Bvh::new(&mesh)), sah_cost_of_all_splits(&mesh));
            assert!(got <= 1.15 * best, "{name}: {got:.2}, but {best:.2} is possible");
        }
    }

    #[test]
    fn a_query_looks_at_few_boxes() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(6);
        for (name, mesh) in meshes() {
            let (tree, [low, high]) = (Bvh::new(&mesh), mesh.bounds());
            let work = Work::new(1000, tree.nodes.len());
            let mut share = work.share();
            for _ in 0..1000 {
                let within = |axis: usize| low[axis] + (1.2 * rng.random::<f32>() - 0.1) * (high[axis] - low[axis]);
                tree.nearest(std::array::from_fn(within), &mut share);
            }
            drop(share);
            assert!(work.check("test", "mesh").is_ok() && work.spent() < 400 * 1000, "{name}: {}", work.spent());
        }
    }

    #[test]
    fn every_box_holds_its_triangles_and_every_triangle_stands_once() {
        let mut all = meshes();
        all.push(("a large ball", crate::sdf::shapes::sphere(0.8).to_mesh(96).unwrap()));
        for (name, mesh) in all {
            assert!(name != "a large ball" || mesh.faces().len() > 2 * ALONE, "not large enough to be built in parts");
            let tree = Bvh::new(&mesh);
            let mut faces = tree.faces.clone();
            faces.sort_unstable();
            assert!(faces.into_iter().eq(0..mesh.faces().len() as u32), "{name}");
            let mut seen = vec![0; tree.triangles.len()];
            let mut open = vec![(0, 1)];
            while let Some((at, depth)) = open.pop() {
                assert!(depth <= DEEPEST, "{name}");
                let node = tree.nodes[at];
                let (first, count) = (node.first as usize, node.count as usize);
                if count == 0 {
                    assert!(first > at, "{name}: children stand behind their parent");
                    for child in [first, first + 1] {
                        let inner = tree.nodes[child];
                        let within = (0..3).all(|i| inner.min[i] >= node.min[i] && inner.max[i] <= node.max[i]);
                        assert!(within, "{name}: node {child} leaves its parent");
                        open.push((child, depth + 1));
                    }
                }
                for (i, seen) in seen.iter_mut().enumerate().skip(first).take(count) {
                    *seen += 1;
                    let within = |p: [f32; 3]| (0..3).all(|i| p[i] >= node.min[i] && p[i] <= node.max[i]);
                    assert!(tree.triangles[i].into_iter().all(within), "{name}");
                }
            }
            // Triangles with equal corners, as rounding makes far from the origin, count as the same.
            let corners = |i: usize| {
                let mut corners = tree.triangles[i].map(|corner| corner.map(f32::to_bits));
                corners.sort_unstable();
                corners
            };
            let found: HashSet<_> = (0..seen.len()).filter(|&i| seen[i] == 1).map(corners).collect();
            assert!(seen.iter().all(|&n| n <= 1) && (0..seen.len()).all(|i| found.contains(&corners(i))), "{name}");
            assert!((0..seen.len()).all(|i| seen[i] == 1 || tree.weights[i] == 0.0), "{name}");
        }
    }

    #[test]
    fn triangles_with_the_same_corners_are_one_leaf_that_counts_for_all() {
        let [a, b, c] = [[2., 0., 0.], [0., 2., 0.], [0., 0., 2.]];
        let [d, e, f] = [[0., 0., 0.], [2., 2., 2.], [2., 0., 1.]];
        // Two sets with the same middle; one of them has a triangle turned over.
        let triangles: Vec<Triangle> =
            (0..30_000).map(|i| if i % 3 == 0 { [a, b, c] } else { [d, e, f] }).chain([[a, c, b], [f, e, d]]).collect();
        let tree = Bvh::of(triangles.into_iter());
        let leaves: Vec<&Node> = tree.nodes.iter().filter(|node| node.count > 0).collect();
        let mut found: Vec<(u32, f32)> = leaves
            .iter()
            .flat_map(|leaf| (leaf.first..leaf.first + leaf.count).map(|i| i as usize))
            .map(|i| (tree.faces[i], tree.weights[i]))
            .collect();
        found.sort_by_key(|&(face, _)| face);
        assert_eq!(found, [(0, 9_999.0), (1, 19_999.0)]);
        assert!(tree.nodes.len() <= 3, "{} boxes", tree.nodes.len());
        let work = Work::new(1, tree.nodes.len());
        tree.nearest([5.0; 3], &mut work.share());
        assert!(work.spent() <= 3, "{} boxes for a query", work.spent());
    }

    #[test]
    fn a_tree_of_triangles_that_shrink_without_end_stays_shallow() {
        // Each split by bins of equal width separates one triangle from the rest.
        let scale = |i: usize| 2f32.powf(-(i as f32) / 8.0);
        let vertices = (0..1500).flat_map(|i| {
            [[0., 0., 0.], [1., 0., 0.], [0., 1., 0.]].map(|p: [f32; 3]| p.map(|c| (1.0 + c) * scale(i)))
        });
        let faces = (0..1500).map(|i| [3 * i, 3 * i + 1, 3 * i + 2]).collect();
        let tree = Bvh::new(&Mesh::new(vertices.collect(), faces).unwrap());
        let mut depth = vec![1; tree.nodes.len()];
        for at in 0..tree.nodes.len() {
            if tree.nodes[at].count == 0 {
                let first = tree.nodes[at].first as usize;
                (depth[first], depth[first + 1]) = (depth[at] + 1, depth[at] + 1);
            }
        }
        assert!(depth.iter().max().is_some_and(|&deepest| deepest <= DEEPEST));
    }
}
