//! Wavefront OBJ. Only `v` and `f` lines matter here; groups and materials neither split nor repeat vertices, so the
//! mesh keeps the file's vertex order and stays closed where the file's surface is.
//!
//! Read here and not by a crate: `tobj` 4 names no line in its errors, cuts the mesh at every object, group and material
//! (so that a closed surface comes out open), and fans polygons that are not convex.

use std::io::Write;

use super::Raw;
use crate::mesh::{Mesh, polygon};

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    let mut raw = Raw::default();
    let mut corners = Vec::new();
    let mut lines = bytes.split(|&b| b == b'\n').enumerate();
    let mut joined = Vec::new();
    while let Some((number, line)) = lines.next() {
        let place = |problem: String| format!("line {}: {problem}", number + 1);
        let mut line = line.trim_ascii_end();
        // A backslash at its end continues a line.
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
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_ascii_whitespace();
        match words.next() {
            Some("v") => raw.vertices.push(vertex(&mut words).map_err(place)?),
            Some("f") => {
                corners.clear();
                for word in words.take_while(|word| !word.starts_with('#')) {
                    corners.push(corner(word, raw.vertices.len()).map_err(place)?);
                }
                if corners.len() < 3 {
                    return Err(place(format!("a face needs three corners, found {}", corners.len())));
                }
                polygon::triangulate(&corners, &raw.vertices, &mut raw.faces);
            }
            _ => {}
        }
    }
    Ok(raw)
}

fn vertex<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<[f32; 3], String> {
    let mut vertex = [0.0f32; 3];
    for coordinate in &mut vertex {
        let word = words.next().ok_or("a vertex needs three coordinates")?;
        *coordinate = word.parse().map_err(|_| format!("`{word}` is not a number"))?;
    }
    if vertex.iter().all(|c| c.is_finite()) { Ok(vertex) } else { Err(format!("the vertex {vertex:?} is not finite")) }
}

/// One corner, `v`, `v/vt`, `v//vn` or `v/vt/vn`: counted from 1, or backwards from -1.
fn corner(word: &str, vertices: usize) -> Result<u32, String> {
    let position = word.split('/').next().unwrap_or_default();
    let number: i64 = position.parse().map_err(|_| format!("`{word}` is not a vertex reference"))?;
    let index = if number < 0 { vertices as i64 + number } else { number - 1 };
    if (0..vertices as i64).contains(&index) && index <= i64::from(u32::MAX) {
        Ok(index as u32)
    } else {
        Err(format!("vertex {number} does not exist; {vertices} vertices stand above"))
    }
}

pub(super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    for [x, y, z] in mesh.vertices() {
        writeln!(out, "v {x} {y} {z}")?;
    }
    for [a, b, c] in mesh.faces() {
        writeln!(out, "f {} {} {}", a + 1, b + 1, c + 1)?;
    }
    Ok(())
}
