//! STL, binary and ASCII. The format repeats every corner; equal positions become one vertex. Normals are ignored, as
//! they follow from the corners (and are often wrong).
//!
//! Read here and not by a crate: `stl_io` 0.11 takes every file that begins with `solid ` for ASCII, which many binary files
//! do, names no line in its errors, and lets a binary file that is longer than it announces pass.

use super::Raw;
use crate::mesh::Mesh;
use crate::mesh::geometry::vec3;

const HEADER: usize = 80;
const TRIANGLE: usize = 50;

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    // Many binary files begin with `solid`, as ASCII ones do. Only a binary file has exactly the length it announces.
    let announced = bytes.get(HEADER..HEADER + 4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]) as usize);
    let needed = announced.map(|n| HEADER + 4 + n * TRIANGLE);
    let corners = if needed == Some(bytes.len()) {
        read_binary(&bytes[HEADER + 4..])
    } else if bytes.trim_ascii_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"solid")) {
        read_ascii(bytes)?
    } else {
        return Err(match (announced, needed) {
            (Some(n), Some(needed)) => {
                format!("it announces {n} triangles, which take {needed} bytes, but has {} bytes", bytes.len())
            }
            _ => format!("{} bytes are too few for a header, and it does not begin with `solid`", bytes.len()),
        });
    };
    let count = u32::try_from(corners.len()).map_err(|_| "it has more than 2^32 corners".to_string())?;
    let faces = (0..count / 3).map(|t| [3 * t, 3 * t + 1, 3 * t + 2]).collect();
    let welded = Mesh { vertices: corners, faces }.weld();
    Ok(Raw { vertices: welded.vertices, faces: welded.faces })
}

fn read_binary(triangles: &[u8]) -> Vec<[f32; 3]> {
    let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    triangles
        .chunks_exact(TRIANGLE)
        // A normal, three corners, two bytes of attributes.
        .flat_map(|t| t[12..48].chunks_exact(12).map(|v| [float(v), float(&v[4..]), float(&v[8..])]))
        .collect()
}

fn read_ascii(bytes: &[u8]) -> Result<Vec<[f32; 3]>, String> {
    let mut corners = Vec::new();
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let place = |problem: String| format!("line {}: {problem}", number + 1);
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_ascii_whitespace();
        let keyword = words.next().unwrap_or_default();
        if keyword.eq_ignore_ascii_case("vertex") {
            let mut corner = [0.0f32; 3];
            for coordinate in &mut corner {
                let word = words.next().ok_or_else(|| place("a vertex needs three coordinates".into()))?;
                *coordinate = word.parse().map_err(|_| place(format!("`{word}` is not a number")))?;
            }
            if !corner.iter().all(|c| c.is_finite()) {
                return Err(place(format!("the vertex {corner:?} is not finite")));
            }
            corners.push(corner);
        } else if keyword.eq_ignore_ascii_case("endfacet") && corners.len() % 3 != 0 {
            return Err(place("the facet that ends here does not have three vertices".into()));
        }
    }
    if corners.len() % 3 != 0 {
        return Err(format!("the file ends within a facet: {} vertices do not make whole triangles", corners.len()));
    }
    Ok(corners)
}

pub(super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    let count = u32::try_from(mesh.faces().len()).map_err(std::io::Error::other)?;
    out.extend([b' '; HEADER]);
    out.extend(count.to_le_bytes());
    for f in 0..mesh.faces().len() {
        let normal = vec3::normalized(mesh.scaled_normal(f));
        for point in std::iter::once(normal).chain(mesh.triangle(f)) {
            out.extend(point.into_iter().flat_map(f32::to_le_bytes));
        }
        out.extend([0; 2]);
    }
    Ok(())
}
