//! Measures of a mesh: normals, bounds, area, volume, and how its triangles are connected.

use super::Mesh;

/// The operations on 3-vectors that meshes need.
pub(crate) mod vec3 {
    use std::ops::{Add, Mul, Sub};

    /// `f32` or `f64`.
    pub trait Scalar: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {}
    impl Scalar for f32 {}
    impl Scalar for f64 {}

    pub fn sub<T: Scalar>(a: [T; 3], b: [T; 3]) -> [T; 3] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    pub fn add<T: Scalar>(a: [T; 3], b: [T; 3]) -> [T; 3] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    pub fn scale<T: Scalar>(a: [T; 3], s: T) -> [T; 3] {
        a.map(|c| c * s)
    }
    pub fn dot<T: Scalar>(a: [T; 3], b: [T; 3]) -> T {
        a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    }
    pub fn cross<T: Scalar>(a: [T; 3], b: [T; 3]) -> [T; 3] {
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    }
    pub fn norm(a: [f32; 3]) -> f32 {
        dot(a, a).sqrt()
    }
    /// `a` scaled to length one; the zero vector stays zero.
    pub fn normalized(a: [f32; 3]) -> [f32; 3] {
        let length = norm(a);
        if length > 0.0 { scale(a, 1.0 / length) } else { [0.0; 3] }
    }
}
use vec3::{add, cross, dot, normalized, sub};

impl Mesh {
    /// The smallest and largest corner of the axis-aligned box around all vertices that belong to a triangle.
    pub fn bounds(&self) -> [[f32; 3]; 2] {
        let mut bounds = [[f32::INFINITY; 3], [f32::NEG_INFINITY; 3]];
        for v in self.faces.iter().flatten().map(|&v| self.vertices[v as usize]) {
            for axis in 0..3 {
                bounds[0][axis] = bounds[0][axis].min(v[axis]);
                bounds[1][axis] = bounds[1][axis].max(v[axis]);
            }
        }
        bounds
    }

    /// Total area of the triangles, in squared mesh units.
    pub fn area(&self) -> f32 {
        let doubled: f64 = (0..self.faces.len()).map(|f| f64::from(vec3::norm(self.scaled_normal(f)))).sum();
        (doubled / 2.0) as f32
    }

    /// Signed volume enclosed by the triangles, in cubed mesh units: positive if they face outwards. It is meaningful only for a
    /// [watertight](Mesh::is_watertight) mesh.
    pub fn volume(&self) -> f32 {
        self.signed_volume() as f32
    }

    /// Unit normal of each triangle, (faces, 3). It is zero for a triangle without area.
    pub fn face_normals(&self) -> Vec<[f32; 3]> {
        (0..self.faces.len()).map(|f| normalized(self.scaled_normal(f))).collect()
    }

    /// Unit normal at each vertex, (vertices, 3): the mean of the normals of its triangles, weighted by their areas.
    pub fn vertex_normals(&self) -> Vec<[f32; 3]> {
        let mut normals = vec![[0.0; 3]; self.vertices.len()];
        for (f, face) in self.faces.iter().enumerate() {
            let normal = self.scaled_normal(f);
            for &v in face {
                normals[v as usize] = add(normals[v as usize], normal);
            }
        }
        normals.into_iter().map(normalized).collect()
    }

    /// The triangle's normal, with twice the triangle's area as its length.
    pub(crate) fn scaled_normal(&self, face: usize) -> [f32; 3] {
        let [a, b, c] = self.triangle(face);
        cross(sub(b, a), sub(c, a))
    }

    /// Whether every edge belongs to exactly two triangles that run along it in opposite directions. Triangles that use a vertex twice do
    /// not count.
    pub fn is_watertight(&self) -> bool {
        self.edge_uses().all(|(_, forward, backward)| forward == 1 && backward == 1)
    }

    /// Whether the triangles close up: each edge is run along equally often in both directions. Exactly then the winding number is a whole
    /// number everywhere off the surface. This is weaker than [`Mesh::is_watertight`]: two cubes that share an edge qualify. Triangles that
    /// use a vertex twice do not count.
    pub fn is_closed(&self) -> bool {
        are_closed(&self.faces)
    }

    /// The edges that bound the surface (holes, rims): those of exactly one triangle, in ascending order.
    pub fn boundary_edges(&self) -> Vec<[u32; 2]> {
        self.edge_uses().filter(|&(_, forward, backward)| forward + backward == 1).map(|(edge, ..)| edge).collect()
    }

    /// The [`edge_uses`] of all triangles.
    pub(super) fn edge_uses(&self) -> impl Iterator<Item = ([u32; 2], usize, usize)> + use<> {
        edge_uses(&self.faces)
    }

    /// The connected parts of the mesh (triangles that share a vertex belong together), in order of first appearance.
    pub fn components(&self) -> Vec<Mesh> {
        let mut parent: Vec<u32> = (0..self.vertices.len() as u32).collect();
        fn root(parent: &mut [u32], mut v: u32) -> u32 {
            while parent[v as usize] != v {
                parent[v as usize] = parent[parent[v as usize] as usize];
                v = parent[v as usize];
            }
            v
        }
        for &[a, b, c] in &self.faces {
            let r = root(&mut parent, a);
            for v in [b, c] {
                let other = root(&mut parent, v);
                parent[other as usize] = r;
            }
        }
        const NONE: u32 = u32::MAX;
        let mut part_of_root = vec![NONE; self.vertices.len()];
        let mut new_index = vec![NONE; self.vertices.len()];
        let mut parts: Vec<Mesh> = Vec::new();
        for face in &self.faces {
            let r = root(&mut parent, face[0]) as usize;
            if part_of_root[r] == NONE {
                part_of_root[r] = parts.len() as u32;
                parts.push(Mesh { notes: Vec::new(), ..self.clone_frame() });
            }
            let part = &mut parts[part_of_root[r] as usize];
            let moved = face.map(|v| {
                let slot = &mut new_index[v as usize];
                if *slot == NONE {
                    *slot = part.vertices.len() as u32;
                    part.vertices.push(self.vertices[v as usize]);
                }
                *slot
            });
            part.faces.push(moved);
        }
        parts
    }
}

/// Every edge, in ascending order, with the numbers of triangles that run along it upwards and downwards. Triangles that use a vertex twice
/// do not count.
fn edge_uses(faces: &[[u32; 3]]) -> impl Iterator<Item = ([u32; 2], usize, usize)> + use<> {
    let mut half_edges: Vec<([u32; 2], bool)> = faces
        .iter()
        .filter(|&&[a, b, c]| a != b && b != c && c != a)
        .flat_map(|&[a, b, c]| [[a, b], [b, c], [c, a]])
        .map(|[a, b]| if a < b { ([a, b], true) } else { ([b, a], false) })
        .collect();
    half_edges.sort_unstable();
    let mut at = 0;
    std::iter::from_fn(move || {
        let edge = half_edges.get(at)?.0;
        let (mut forward, mut backward) = (0, 0);
        while let Some(&(same, upwards)) = half_edges.get(at).filter(|h| h.0 == edge) {
            debug_assert_eq!(same, edge);
            if upwards {
                forward += 1
            } else {
                backward += 1
            }
            at += 1;
        }
        Some((edge, forward, backward))
    })
}

/// Whether the triangles close up: each edge is run along equally often in both directions.
pub(super) fn are_closed(faces: &[[u32; 3]]) -> bool {
    edge_uses(faces).all(|(_, forward, backward)| forward == backward)
}

/// The point of the triangle nearest to `p` (Ericson, Real-Time Collision Detection, 5.1.5).
pub(crate) fn closest_point_on_triangle(p: [f32; 3], [a, b, c]: [[f32; 3]; 3]) -> [f32; 3] {
    let along = |from: [f32; 3], direction: [f32; 3], t: f32| add(from, vec3::scale(direction, t));
    let (ab, ac, ap) = (sub(b, a), sub(c, a), sub(p, a));
    let (d1, d2) = (dot(ab, ap), dot(ac, ap));
    if d1 <= 0.0 && d2 <= 0.0 {
        return a;
    }
    let bp = sub(p, b);
    let (d3, d4) = (dot(ab, bp), dot(ac, bp));
    if d3 >= 0.0 && d4 <= d3 {
        return b;
    }
    let vc = d1 * d4 - d3 * d2;
    if vc <= 0.0 && d1 >= 0.0 && d3 <= 0.0 {
        return along(a, ab, d1 / (d1 - d3));
    }
    let cp = sub(p, c);
    let (d5, d6) = (dot(ab, cp), dot(ac, cp));
    if d6 >= 0.0 && d5 <= d6 {
        return c;
    }
    let vb = d5 * d2 - d1 * d6;
    if vb <= 0.0 && d2 >= 0.0 && d6 <= 0.0 {
        return along(a, ac, d2 / (d2 - d6));
    }
    let va = d3 * d6 - d5 * d4;
    if va <= 0.0 && d4 - d3 >= 0.0 && d5 - d6 >= 0.0 {
        return along(b, sub(c, b), (d4 - d3) / ((d4 - d3) + (d5 - d6)));
    }
    let scale = 1.0 / (va + vb + vc);
    add(along(a, ab, vb * scale), vec3::scale(ac, vc * scale))
}
