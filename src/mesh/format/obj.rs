//! Wavefront OBJ. Only `v` and `f` lines matter; groups and materials neither split nor repeat vertices. So the mesh keeps the file's
//! vertex order, and is closed where the file's surface is closed.
//!
//! Faces may come before their vertices. Positive references count from the start of the file, negative ones back from the face.
//!
//! This reader replaces the crate `tobj` 4, which names no line in its errors, cuts the mesh at every object, group and material (so that a
//! closed surface becomes open), and makes fans of polygons that are not convex.

use std::io::Write;

use super::text::{self, counted, shown};
use super::{Raw, decimals};
use crate::mesh::Mesh;

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    let bytes = text::normalized(bytes);
    let mut raw = Raw::default();
    // The corners of all faces one after another, with the end and the line of each face.
    let (mut corners, mut ends): (Vec<u32>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
    let (mut short, mut curved) = (0, 0);
    let mut lines = bytes.split(|&b| b == b'\n').enumerate();
    let mut joined = Vec::new();
    while let Some((number, line)) = lines.next() {
        let place = |problem: String| format!("line {}: {problem}", number + 1);
        let mut line = line.trim_ascii();
        // A backslash at the end of a line continues it on the next.
        if line.ends_with(b"\\") {
            joined.clear();
            while let Some(head) = line.strip_suffix(b"\\") {
                joined.extend_from_slice(head);
                joined.push(b' ');
                line = lines.next().map_or(&b""[..], |(_, next)| next.trim_ascii_end());
            }
            joined.extend_from_slice(line);
            line = &joined;
        }
        let mut words = text::words(line);
        match words.next() {
            Some(b"v") => raw.vertices.push(text::vertex(&mut words).map_err(place)?),
            Some(b"f" | b"fo") => {
                let first = corners.len();
                for word in words.take_while(|word| !word.starts_with(b"#")) {
                    corners.push(corner(word, raw.vertices.len()).map_err(place)?);
                }
                if corners.len() < first + 3 {
                    corners.truncate(first);
                    short += 1;
                } else {
                    ends.push((corners.len(), number + 1));
                }
            }
            Some(b"surf" | b"curv") => curved += 1,
            _ => {}
        }
    }
    let mut first = 0;
    for (end, line) in ends {
        let face = &corners[first..end];
        if let Some(&v) = face.iter().find(|&&v| v as usize >= raw.vertices.len()) {
            let (number, count) = (u64::from(v) + 1, raw.vertices.len());
            return Err(format!("line {line}: vertex {number} does not exist; the file has {count} vertices"));
        }
        raw.polygon(face);
        first = end;
    }
    if short > 0 {
        raw.notes.push(format!("skipped {} with fewer than three corners", counted(short, "face")));
    }
    if curved > 0 {
        let what = counted(curved, "free-form shape");
        raw.notes.push(format!("skipped {what} (curv, surf); export them as polygons to keep them"));
    }
    Ok(raw)
}

/// One corner, `v`, `v/vt`, `v//vn` or `v/vt/vn`: counted from 1, or backwards from -1; `vertices` is the number of vertices above it.
fn corner(word: &[u8], vertices: usize) -> Result<u32, String> {
    let position = word.split(|&b| b == b'/').next().unwrap_or_default();
    let number: Option<i64> = std::str::from_utf8(position).ok().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| format!("{} is not a vertex reference", shown(word)))?;
    let index = if number < 0 { (vertices as i64).checked_add(number) } else { Some(number - 1) };
    index.and_then(|index| u32::try_from(index).ok()).ok_or_else(|| match number {
        0 => "vertex 0 does not exist; OBJ counts from 1".into(),
        _ => format!("vertex {number} does not exist; {vertices} vertices stand above"),
    })
}

pub(super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    if mesh.offset() == [0.0; 3] {
        for [x, y, z] in mesh.vertices() {
            writeln!(out, "v {x} {y} {z}")?;
        }
    } else {
        let digits = decimals(mesh);
        for [x, y, z] in mesh.positions() {
            writeln!(out, "v {x:.digits$} {y:.digits$} {z:.digits$}")?;
        }
    }
    for [a, b, c] in mesh.faces() {
        writeln!(out, "f {} {} {}", a + 1, b + 1, c + 1)?;
    }
    Ok(())
}
