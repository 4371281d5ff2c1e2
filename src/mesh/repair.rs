//! Finds what is wrong with a mesh, and mends it.
//!
//! [`Mesh::check`] counts faults that harm grids, volumes and winding numbers. [`Mesh::repair`] mends every fault with only one right
//! answer, and reports what it did. Holes are left open: only the owner knows what belongs there.

use std::collections::HashSet;
use std::fmt;

use super::geometry::are_closed;
use super::geometry::vec3::{cross, dot, sub};
use super::{Mesh, weld};
use crate::{Error, Result};

/// What is wrong with a mesh, as [`Mesh::check`] finds it. For topology (edges, direction), vertices at equal positions count as one, and
/// superfluous triangles do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshReport {
    /// Vertices that no triangle uses.
    pub unused_vertices: usize,
    /// Vertices at the position of an earlier vertex.
    pub repeated_vertices: usize,
    /// Triangles with two corners at one position.
    pub degenerate_faces: usize,
    /// Triangles with the corners of an earlier triangle, in either direction.
    pub duplicate_faces: usize,
    /// Edges of only one triangle: the rims of holes and sheets.
    pub boundary_edges: usize,
    /// Edges of more than two triangles.
    pub crowded_edges: usize,
    /// Edges along which two triangles run in the same direction: one of them is turned over.
    pub turned_edges: usize,
    /// Whether the surface is closed but faces inwards, so that its volume is negative.
    pub inside_out: bool,
}

impl MeshReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// A description of each fault, with the call that mends it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |count: usize, one: &str, many: &str, call: &str| {
            if count > 0 {
                faults.push(format!("{count} {}: {call}", if count == 1 { one } else { many }));
            }
        };
        fault(self.unused_vertices, "unused vertex", "unused vertices", "drop_unused()");
        fault(self.repeated_vertices, "repeated vertex", "repeated vertices", "weld(0.0)");
        fault(self.degenerate_faces, "degenerate triangle", "degenerate triangles", "drop_degenerate()");
        fault(self.duplicate_faces, "duplicate triangle", "duplicate triangles", "drop_duplicates()");
        fault(self.turned_edges, "edge between opposite sides", "edges between opposite sides", "repair()");
        fault(usize::from(self.inside_out), "surface inside out", "", "repair()");
        let open = "the surface is open; a grid of it may be Unsigned or Thickened (SdfConfig::sign)";
        fault(self.boundary_edges, "edge of one triangle", "edges of one triangle", open);
        let crowded = "sheets meet there; components() separates parts that only touch";
        fault(self.crowded_edges, "edge of three triangles or more", "edges of three triangles or more", crowded);
        faults
    }
}

impl fmt::Display for MeshReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() { f.write_str("nothing is wrong") } else { f.write_str(&self.faults().join("; ")) }
    }
}

/// What [`Mesh::repair`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Vertices that were joined with an earlier vertex at the same position.
    pub welded: usize,
    /// Triangles that were removed because two of their corners are at one position.
    pub degenerate: usize,
    /// Triangles that were removed because an earlier triangle has the same corners.
    pub duplicates: usize,
    /// Triangles that were turned over.
    pub turned: usize,
    /// Vertices that were removed because no triangle uses them.
    pub unused: usize,
    /// The remaining faults: only holes, and edges of more than two triangles.
    pub left: MeshReport,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = [
            (self.welded, "vertices welded"),
            (self.degenerate, "degenerate triangles dropped"),
            (self.duplicates, "duplicate triangles dropped"),
            (self.turned, "triangles turned over"),
            (self.unused, "unused vertices dropped"),
        ];
        let done: Vec<String> = steps.iter().filter(|step| step.0 > 0).map(|(n, what)| format!("{n} {what}")).collect();
        f.write_str(if done.is_empty() { "nothing to repair" } else { "" })?;
        f.write_str(&done.join(", "))?;
        if self.left.is_clean() { Ok(()) } else { write!(f, "; left: {}", self.left) }
    }
}

impl Mesh {
    /// The same surface with vertices at most `tolerance` (mesh units) apart joined, each at the position of the first. Zero joins only
    /// equal positions. Triangles that lose their area stay: see [`Mesh::drop_degenerate`].
    ///
    /// # Errors
    /// If the tolerance is negative or not finite.
    ///
    /// ```
    /// use wavemesh::mesh::Mesh;
    /// let corners = vec![[0., 0., 0.], [1., 0., 0.], [0., 1., 0.], [1., 0., 0.], [1., 1., 0.], [0.0, 1.0, 1e-6]];
    /// let two = Mesh::new(corners, vec![[0, 1, 2], [3, 4, 5]])?;
    /// assert_eq!(two.weld(0.0)?.vertices().len(), 5);
    /// assert_eq!(two.weld(1e-4)?.boundary_edges().len(), 4);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn weld(&self, tolerance: f32) -> Result<Mesh> {
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            let expected = "a distance of zero or more".into();
            return Err(Error::Argument { op: "Mesh::weld", name: "tolerance", got: tolerance.to_string(), expected });
        }
        let largest = self.vertices.iter().flatten().fold(0.0f32, |largest, c| largest.max(c.abs()));
        // Such a small tolerance joins only equal positions, and its cells would be too many to number.
        let exact = f64::from(tolerance) < f64::from(largest) * 1e-15;
        let (vertices, index) =
            if exact || tolerance == 0.0 { weld::equal(&self.vertices) } else { weld::near(&self.vertices, tolerance) };
        let faces = self.faces.iter().map(|f| f.map(|v| index[v as usize])).collect();
        Ok(Mesh { vertices, faces, ..self.clone_frame() })
    }

    fn welded(&self) -> Mesh {
        let (vertices, index) = weld::equal(&self.vertices);
        let faces = self.faces.iter().map(|f| f.map(|v| index[v as usize])).collect();
        Mesh { vertices, faces, ..self.clone_frame() }
    }

    /// The mesh without triangles that have two corners at one position. Triangles with three corners in a line stay: they often close the
    /// surface between their neighbours.
    pub fn drop_degenerate(&self) -> Mesh {
        let distinct = |&face: &usize| {
            let [a, b, c] = self.triangle(face);
            a != b && b != c && c != a
        };
        self.with_faces((0..self.faces.len()).filter(distinct).map(|face| self.faces[face]).collect())
    }

    /// The mesh without triangles that have the corners of an earlier triangle, in either direction. Corners are compared by index, so call
    /// [`Mesh::weld`] first. If every triangle of a surface occurs twice, front and back, one of each stays.
    pub fn drop_duplicates(&self) -> Mesh {
        let mut seen = HashSet::with_capacity(self.faces.len());
        let first = |face: &&[u32; 3]| {
            let mut corners = **face;
            corners.sort_unstable();
            seen.insert(corners)
        };
        self.with_faces(self.faces.iter().filter(first).copied().collect())
    }

    /// The mesh without vertices that no triangle uses; the others keep their order.
    pub fn drop_unused(&self) -> Mesh {
        let mut index = vec![u32::MAX; self.vertices.len()];
        self.faces.iter().flatten().for_each(|&v| index[v as usize] = 0);
        let mut vertices = Vec::new();
        for (slot, &position) in index.iter_mut().zip(&self.vertices).filter(|(slot, _)| **slot == 0) {
            *slot = vertices.len() as u32;
            vertices.push(position);
        }
        let faces = self.faces.iter().map(|f| f.map(|v| index[v as usize])).collect();
        Mesh { vertices, faces, ..self.clone_frame() }
    }

    /// Counts the faults of the mesh.
    ///
    /// ```
    /// use wavemesh::mesh::Mesh;
    /// let corners = vec![[0., 0., 0.], [1., 0., 0.], [0., 1., 0.], [9., 9., 9.]];
    /// let report = Mesh::new(corners, vec![[0, 1, 2], [0, 0, 1]])?.check();
    /// assert_eq!((report.unused_vertices, report.degenerate_faces, report.boundary_edges), (1, 1, 3));
    /// assert!(report.to_string().contains("drop_degenerate()"));
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn check(&self) -> MeshReport {
        let used = self.drop_unused();
        let welded = self.welded();
        let proper = welded.drop_degenerate();
        let single = proper.drop_duplicates();
        let mut report = MeshReport {
            unused_vertices: self.vertices.len() - used.vertices.len(),
            repeated_vertices: self.vertices.len() - welded.vertices.len(),
            degenerate_faces: self.faces.len() - proper.faces.len(),
            duplicate_faces: proper.faces.len() - single.faces.len(),
            ..Default::default()
        };
        for (_, forward, backward) in single.edge_uses() {
            report.boundary_edges += usize::from(forward + backward == 1);
            report.crowded_edges += usize::from(forward + backward > 2);
            report.turned_edges += usize::from(forward + backward == 2 && forward != backward);
        }
        report.inside_out = !single.faces.is_empty() && single.is_closed() && single.volume() < 0.0;
        report
    }

    /// The mesh with equal positions joined, without degenerate and duplicate triangles and unused vertices, and with neighbours facing the
    /// same way: outwards if the surface is closed. The report says what was done and what is left.
    ///
    /// Parts whose triangles already agree keep their direction, so that a hollow stays hollow. Only a mesh with a negative total volume is
    /// turned over.
    ///
    /// # Errors
    /// If no triangle is left.
    ///
    /// ```
    /// use wavemesh::mesh::Mesh;
    /// let corners = vec![[0., 0., 0.], [1., 0., 0.], [0., 1., 0.], [0., 0., 1.]];
    /// let faces = vec![[0, 2, 1], [0, 1, 3], [3, 2, 1], [0, 3, 2], [0, 3, 2]]; // the third is turned, the last is double
    /// let (mended, report) = Mesh::new(corners, faces)?.repair()?;
    /// assert!(mended.is_watertight() && mended.volume() > 0.0);
    /// assert_eq!((report.duplicates, report.turned), (1, 1));
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn repair(&self) -> Result<(Mesh, Repair)> {
        let found = self.check();
        let single = self.welded().drop_degenerate().drop_duplicates();
        if single.faces.is_empty() {
            return Err(Error::Argument {
                op: "Mesh::repair",
                name: "the mesh",
                got: format!("{} triangles without area", self.faces.len()),
                expected: "at least one triangle of three different corners".into(),
            });
        }
        let turned = single.facing_alike();
        let count = turned.faces.iter().zip(&single.faces).filter(|(after, before)| after != before).count();
        let mended = turned.drop_unused();
        let unused = turned.vertices.len() - mended.vertices.len();
        let report = Repair {
            welded: found.repeated_vertices,
            degenerate: found.degenerate_faces,
            duplicates: found.duplicate_faces,
            turned: count,
            unused,
            left: mended.check(),
        };
        Ok((mended, report))
    }

    /// Turns triangles over so that the two at an edge run along it in opposite directions.
    fn facing_alike(&self) -> Mesh {
        let mut half_edges: Vec<([u32; 2], u32, bool)> = Vec::with_capacity(3 * self.faces.len());
        for (face, &[a, b, c]) in self.faces.iter().enumerate() {
            for [from, to] in [[a, b], [b, c], [c, a]] {
                half_edges.push(([from.min(to), from.max(to)], face as u32, from < to));
            }
        }
        half_edges.sort_unstable();
        // For each triangle, its neighbours across edges of two triangles, and whether both run in the same direction.
        let mut neighbours: Vec<Vec<(u32, bool)>> = vec![Vec::new(); self.faces.len()];
        for pair in half_edges.chunk_by(|a, b| a.0 == b.0) {
            if let &[(_, one, up), (_, other, also_up)] = pair {
                neighbours[one as usize].push((other, up == also_up));
                neighbours[other as usize].push((one, up == also_up));
            }
        }
        let mut turned = vec![None; self.faces.len()];
        let mut faces = self.faces.clone();
        for start in 0..self.faces.len() {
            if turned[start].is_some() {
                continue;
            }
            turned[start] = Some(false);
            let mut part = vec![start];
            let mut at = 0;
            while let Some(&face) = part.get(at) {
                at += 1;
                for &(other, alike) in &neighbours[face] {
                    if turned[other as usize].is_none() {
                        turned[other as usize] = turned[face].map(|own: bool| own ^ alike);
                        part.push(other as usize);
                    }
                }
            }
            let count = part.iter().filter(|&&face| turned[face] == Some(true)).count();
            if count == 0 {
                continue;
            }
            // The majority decides the direction, unless that would turn a closed part inside out.
            let mut invert = 2 * count > part.len();
            let oriented = |face: usize, invert: bool| {
                let [a, b, c] = self.faces[face];
                if (turned[face] == Some(true)) ^ invert { [a, c, b] } else { [a, b, c] }
            };
            let own: Vec<[u32; 3]> = part.iter().map(|&face| oriented(face, invert)).collect();
            invert ^= are_closed(&own) && self.signed_volume_of(&own) < 0.0;
            part.iter().for_each(|&face| faces[face] = oriented(face, invert));
        }
        let alike = self.with_faces(faces);
        if alike.is_closed() && alike.volume() < 0.0 {
            return alike.with_faces(alike.faces.iter().map(|&[a, b, c]| [a, c, b]).collect());
        }
        alike
    }

    /// The sum of the signed volumes between the origin and each triangle, in f64: [`Mesh::volume`] for surfaces that need not be closed.
    pub(crate) fn signed_volume(&self) -> f64 {
        self.signed_volume_of(&self.faces)
    }

    /// The [`signed_volume`](Self::signed_volume) of some triangles with this mesh's vertices.
    fn signed_volume_of(&self, faces: &[[u32; 3]]) -> f64 {
        let Some(&[first, ..]) = faces.first() else { return 0.0 };
        // Relative to a vertex, so that a mesh far from the origin loses no digits.
        let position = |v: u32| self.vertices[v as usize].map(f64::from);
        let origin = position(first);
        let six = |face: &[u32; 3]| {
            let [a, b, c] = face.map(|v| sub(position(v), origin));
            dot(a, cross(b, c))
        };
        faces.iter().map(six).sum::<f64>() / 6.0
    }

    fn with_faces(&self, faces: Vec<[u32; 3]>) -> Mesh {
        Mesh { vertices: self.vertices.clone(), faces, ..self.clone_frame() }
    }
}
