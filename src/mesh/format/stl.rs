//! STL, binary and ASCII. The format repeats every corner; equal positions become one vertex. Normals are ignored, since they follow from
//! the corners (and are often wrong).
//!
//! This reader replaces the crate `stl_io` 0.11, which takes every file that begins with `solid ` for ASCII, although many binary files do,
//! and names no line in its errors.

use std::io::Write;

use super::text::{self, counted};
use super::{Raw, decimals};
use crate::mesh::Mesh;
use crate::mesh::geometry::vec3;
use crate::mesh::weld;

const HEADER: usize = 80;
const TRIANGLE: usize = 50;

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    let mut raw = Raw::default();
    // Many binary files begin with `solid` as ASCII files do, but only ASCII files contain no zero bytes.
    let corners = match bytes.get(HEADER..HEADER + 4) {
        Some(count) if !is_ascii(bytes) => {
            let announced = u32::from_le_bytes([count[0], count[1], count[2], count[3]]) as usize;
            read_binary(announced, &bytes[HEADER + 4..], &mut raw.notes)?
        }
        None if !is_ascii(bytes) => {
            let len = bytes.len();
            return Err(format!("{len} bytes are too few for a header, and it does not begin with `solid`"));
        }
        _ => read_ascii(&text::normalized(bytes))?,
    };
    if u32::try_from(corners.len()).is_err() {
        return Err("it has more than 2^32 corners".into());
    }
    let (vertices, index) = weld::equal(&corners);
    raw.vertices = vertices;
    raw.faces = index.as_chunks::<3>().0.to_vec();
    Ok(raw)
}

/// The first thousand bytes of a binary file contain zeros: in its count, and in its attributes, which are usually zero.
fn is_ascii(bytes: &[u8]) -> bool {
    let head = text::normalized(&bytes[..bytes.len().min(1024)]);
    let first = head.trim_ascii_start().get(..5);
    first.is_some_and(|word| [&b"solid"[..], b"facet"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword)))
        && !head.contains(&0)
}

fn read_binary(announced: usize, rows: &[u8], notes: &mut Vec<String>) -> Result<Vec<[f64; 3]>, String> {
    let room = rows.len() / TRIANGLE;
    let count = if announced <= room && announced > 0 {
        announced
    } else if room > 0 && (announced == 0 || announced == u32::MAX as usize) {
        // A program that streams its triangles does not go back to fill in the count.
        notes.push(format!("read {}; the header announces {announced}", counted(room, "triangle")));
        room
    } else if announced == 0 {
        0
    } else {
        let (needed, has) = (HEADER + 4 + announced * TRIANGLE, HEADER + 4 + rows.len());
        return Err(format!(
            "it announces {announced} triangles, which take {needed} bytes, but has {has} bytes; was it cut off?"
        ));
    };
    let (triangles, behind) = rows.split_at(count * TRIANGLE);
    if !behind.is_empty() {
        notes.push(format!("left out {} behind the last triangle", counted(behind.len(), "byte")));
    }
    let float = |b: &[u8]| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    // A normal, three corners, two bytes of attributes.
    let corners = |t: &[u8; TRIANGLE]| [12, 24, 36].map(|at| [0, 4, 8].map(|axis| float(&t[at + axis..])));
    Ok(triangles.as_chunks::<TRIANGLE>().0.iter().flat_map(corners).collect())
}

/// Reads words, not lines, since all words may be on one line.
fn read_ascii(text: &[u8]) -> Result<Vec<[f64; 3]>, String> {
    let mut corners: Vec<[f64; 3]> = Vec::new();
    let mut words = text::words_by_line(text);
    // A solid's name may contain any word, so nothing counts before the first facet.
    let mut named = true;
    while let Some((line, word)) = words.next() {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        let place = |problem: String| format!("line {line}: {problem}");
        if is("facet") {
            named = false;
        } else if is("endsolid") {
            named = true;
        } else if is("vertex") && !named {
            let mut coordinates = words.by_ref().map(|(_, word)| word);
            corners.push(text::vertex(&mut coordinates).map_err(place)?);
        } else if is("endfacet") && !corners.len().is_multiple_of(3) {
            return Err(place("the facet that ends here does not have three vertices".into()));
        }
    }
    if !corners.len().is_multiple_of(3) {
        let count = corners.len();
        return Err(format!(
            "the file ends within a facet: {count} vertices do not make whole triangles; was it cut off?"
        ));
    }
    Ok(corners)
}

/// Writes binary. A mesh with an [offset](Mesh::offset) is written in ASCII, because single precision would lose its shape.
pub(super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    if mesh.offset() != [0.0; 3] {
        return write_ascii(mesh, out);
    }
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

fn write_ascii(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    let digits = decimals(mesh);
    let positions: Vec<[f64; 3]> = mesh.positions().collect();
    writeln!(out, "solid")?;
    for (f, face) in mesh.faces().iter().enumerate() {
        let [x, y, z] = vec3::normalized(mesh.scaled_normal(f));
        writeln!(out, "facet normal {x} {y} {z}\nouter loop")?;
        for [x, y, z] in face.map(|v| positions[v as usize]) {
            writeln!(out, "vertex {x:.digits$} {y:.digits$} {z:.digits$}")?;
        }
        writeln!(out, "endloop\nendfacet")?;
    }
    writeln!(out, "endsolid")
}
