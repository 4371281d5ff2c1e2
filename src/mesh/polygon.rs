//! Polygons and strips to triangles, for the formats whose faces may be more than triangles.

use super::geometry::vec3::{add, cross, dot, sub};

/// Above this number of corners a polygon that is not convex is fanned: clipping ears is cubic in the worst case.
const MOST_CORNERS_FOR_EARS: usize = 512;

/// Appends the triangles of one polygon; none for fewer than three corners. Convex polygons become a fan around their first
/// corner, others lose their ears one by one in the plane of their mean normal. The corners must be in range of `vertices`.
pub(super) fn triangulate(corners: &[u32], vertices: &[[f64; 3]], triangles: &mut Vec<[u32; 3]>) {
    if corners.len() <= 3 {
        return fan(corners, triangles);
    }
    let at = |corner: u32| vertices[corner as usize];
    let origin = at(corners[0]);
    let normal =
        corners.windows(2).map(|pair| cross(sub(at(pair[0]), origin), sub(at(pair[1]), origin))).fold([0.0; 3], add);
    // Positive when b is a corner that bulges outwards.
    let turn = |a: u32, b: u32, c: u32| dot(normal, cross(sub(at(b), at(a)), sub(at(c), at(b))));
    let n = corners.len();
    let convex = (0..n).all(|i| turn(corners[i], corners[(i + 1) % n], corners[(i + 2) % n]) >= 0.0);
    if convex || n > MOST_CORNERS_FOR_EARS {
        return fan(corners, triangles);
    }
    let mut left = corners.to_vec();
    while left.len() > 3 {
        let n = left.len();
        let ear = (0..n).find(|&i| {
            let (a, b, c) = (left[(i + n - 1) % n], left[i], left[(i + 1) % n]);
            let inside = |p: u32| turn(a, b, p) >= 0.0 && turn(b, c, p) >= 0.0 && turn(c, a, p) >= 0.0;
            turn(a, b, c) > 0.0 && !left.iter().any(|&p| p != a && p != b && p != c && inside(p))
        });
        // A polygon that crosses itself may have no ear left: any corner is then as good as another.
        let i = ear.unwrap_or(0);
        triangles.push([left[(i + n - 1) % n], left[i], left[(i + 1) % n]]);
        left.remove(i);
    }
    fan(&left, triangles);
}

/// Appends the triangles between the first corner and each pair of neighbours.
pub(super) fn fan(corners: &[u32], triangles: &mut Vec<[u32; 3]>) {
    triangles.extend(corners.windows(2).skip(1).map(|pair| [corners[0], pair[0], pair[1]]));
}

/// Appends the triangles of a strip: each three neighbours, every other turned around. Those that repeat a corner only lead
/// the strip to another place.
pub(super) fn strip(corners: &[u32], triangles: &mut Vec<[u32; 3]>) {
    for (i, t) in corners.windows(3).enumerate() {
        let triangle = if i % 2 == 0 { [t[0], t[1], t[2]] } else { [t[1], t[0], t[2]] };
        if t[0] != t[1] && t[1] != t[2] && t[2] != t[0] {
            triangles.push(triangle);
        }
    }
}
