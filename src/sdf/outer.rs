//! The outer surface of overlapping parts: their triangles without those inside another part.
//!
//! A triangle is inside if the winding numbers on both of its sides say inside. A triangle that is partly inside is cut in four until its
//! pieces are small.

use super::winding::WindingTree;
use crate::mesh::{Mesh, Work, vec3};
use crate::task::check_interrupt;
use crate::{Error, Result};

/// The deepest cut of one triangle, which gives at most 4^8 pieces.
const DEEPEST_CUT: usize = 8;

/// The triangles of `mesh` that bound the union of its parts; partly hidden ones are cut into pieces no longer than `piece`. `winding`
/// belongs to the whole mesh; `work` limits the cost of the pieces.
pub(super) fn outer_surface(mesh: &Mesh, winding: &WindingTree, piece: f32, work: &Work) -> Result<Mesh> {
    let mut vertices: Vec<[f32; 3]> = Vec::new();
    let share = &mut work.share();
    let mut inside = |p: [f32; 3]| winding.winding_number(p, share).abs() > 0.5;
    for face in 0..mesh.faces().len() {
        let corners = mesh.triangle(face);
        let step = vec3::scale(vec3::normalized(mesh.scaled_normal(face)), 1e-3 * piece);
        let mut hidden = |p: [f32; 3]| inside(vec3::add(p, step)) && inside(vec3::sub(p, step));
        let mut open = vec![(corners, 0)];
        work.check("SdfGrid::from_mesh", "the mesh")?;
        check_interrupt()?;
        while let Some((corners, depth)) = open.pop() {
            let middle = mean(&corners);
            // Corners and edges also belong to other triangles, so the samples are moved inwards.
            let samples = corners.map(|c| vec3::add(vec3::scale(c, 0.9), vec3::scale(middle, 0.1)));
            let count = samples.iter().chain([&middle]).filter(|&&p| hidden(p)).count();
            let [a, b, c] = corners;
            let longest =
                [[a, b], [b, c], [c, a]].map(|[p, q]| vec3::norm(vec3::sub(p, q))).into_iter().fold(0.0, f32::max);
            if count == 4 && longest <= 4.0 * piece {
                continue;
            }
            let small = longest <= piece || depth == DEEPEST_CUT;
            let whole = count == 0 && longest <= 4.0 * piece;
            if whole || (small && !hidden(middle)) {
                vertices.extend(corners);
            } else if !small {
                let [ab, bc, ca] = [mean(&[a, b]), mean(&[b, c]), mean(&[c, a])];
                open.extend([[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]].map(|part| (part, depth + 1)));
            }
        }
    }
    let count = u32::try_from(vertices.len()).unwrap_or(u32::MAX);
    Mesh::new(vertices, (0..count / 3).map(|t| [3 * t, 3 * t + 1, 3 * t + 2]).collect()).map_err(|_| Error::Argument {
        op: "SdfGrid::from_mesh",
        name: "the mesh",
        got: "one whose parts enclose nothing".into(),
        expected: "closed parts, whose union has an outer surface".into(),
    })
}

fn mean(points: &[[f32; 3]]) -> [f32; 3] {
    let sum = points.iter().fold([0.0; 3], |sum, &p| vec3::add(sum, p));
    vec3::scale(sum, 1.0 / points.len() as f32)
}
