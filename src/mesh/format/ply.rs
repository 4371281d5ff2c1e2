//! PLY, ASCII and binary of either byte order: positions, faces and triangle strips.
//!
//! This reader replaces the crate `ply-rs-bw` 4, which rejects numbers that C writes and reads (`.5`), blank lines, and several rows on one
//! line, and which stores every property of every row.

use std::io::Write;

use super::Raw;
use super::text::{self, counted, shown};
use crate::mesh::{Mesh, polygon};

#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    Ascii,
    LittleEndian,
    BigEndian,
}

#[derive(Clone, Copy)]
enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
}

impl Scalar {
    fn named(name: &[u8]) -> Result<Self, String> {
        Ok(match name {
            b"char" | b"int8" => Self::I8,
            b"uchar" | b"uint8" => Self::U8,
            b"short" | b"int16" => Self::I16,
            b"ushort" | b"uint16" => Self::U16,
            b"int" | b"int32" => Self::I32,
            b"uint" | b"uint32" => Self::U32,
            b"float" | b"float32" => Self::F32,
            b"double" | b"float64" => Self::F64,
            _ => return Err(format!("{} is not a type of PLY", shown(name))),
        })
    }

    fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Reads the number from as many bytes as the type has. All types fit in f64.
    fn decode(self, bytes: &[u8], encoding: Encoding) -> f64 {
        let mut little = [0; 8];
        let little = &mut little[..self.size()];
        little.copy_from_slice(&bytes[..self.size()]);
        if encoding == Encoding::BigEndian {
            little.reverse();
        }
        match (self, &*little) {
            (Self::I8, &[a]) => (a as i8).into(),
            (Self::U8, &[a]) => a.into(),
            (Self::I16, &[a, b]) => i16::from_le_bytes([a, b]).into(),
            (Self::U16, &[a, b]) => u16::from_le_bytes([a, b]).into(),
            (Self::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).into(),
            (Self::U32, &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]).into(),
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
            (Self::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => f64::NAN,
        }
    }
}

struct Property {
    name: String,
    /// The type of a list's length; `None` for a single number.
    length: Option<Scalar>,
    item: Scalar,
}

struct Element {
    name: String,
    count: usize,
    properties: Vec<Property>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    let marked = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]);
    let begins = |bytes: &[u8]| bytes.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"ply"));
    // A binary body must not change; only a file that is all text is normalized.
    let text = text::normalized(bytes);
    let bytes = if begins(&text) && !begins(bytes) && marked.is_none() { &*text } else { marked.unwrap_or(bytes) };
    let Header { encoding, elements, body, line } = read_header(bytes)?;
    let mut source = match encoding {
        Encoding::Ascii => Source::Ascii(Words { rest: body, line }),
        _ => Source::Binary { rest: body, encoding },
    };
    let mut raw = Raw::default();
    let mut faces = Faces::default();
    for element in &elements {
        source.check_count(element)?;
        match element.name.as_str() {
            "vertex" => read_vertices(element, &mut source, &mut raw)?,
            "face" | "tristrips" => faces.read(element, &mut source)?,
            _ => {
                for row in 0..element.count {
                    for property in &element.properties {
                        source.skip(property).map_err(|problem| source.place(element, row, problem))?;
                    }
                }
            }
        }
    }
    faces.triangulate(&mut raw)?;
    if raw.faces.is_empty() && elements.iter().any(|element| element.name == "range_grid") {
        return Err(
            "it is a range scan: a grid of points without faces; reconstruct its surface first (plyrange, MeshLab)"
                .into(),
        );
    }
    Ok(raw)
}

struct Header<'a> {
    encoding: Encoding,
    elements: Vec<Element>,
    /// The bytes after the header.
    body: &'a [u8],
    /// The number of the line on which the body begins.
    line: usize,
}

fn read_header(bytes: &[u8]) -> Result<Header<'_>, String> {
    let mut rest = bytes;
    let mut number = 0;
    let (mut encoding, mut elements): (_, Vec<Element>) = (None, Vec::new());
    loop {
        number += 1;
        let place = |problem: String| format!("line {number}: {problem}");
        let end = rest.iter().position(|&b| b == b'\n' || b == b'\r');
        let end = end.ok_or_else(|| place("the header has no `end_header`".into()))?;
        let line = &rest[..end];
        // One line end, of any kind, before a binary body.
        rest = match &rest[end..] {
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
            [] => &[],
        };
        let words: Vec<&[u8]> = text::words(line).collect();
        match words.as_slice() {
            [word, ..] if number == 1 && word.eq_ignore_ascii_case(b"ply") => {}
            [word, ..] if number == 1 => return Err(place(format!("it begins with {}, expected `ply`", shown(word)))),
            [] | [b"comment" | b"obj_info", ..] => {}
            [b"format", name, ..] => {
                encoding = Some(match *name {
                    b"ascii" => Encoding::Ascii,
                    b"binary_little_endian" => Encoding::LittleEndian,
                    b"binary_big_endian" => Encoding::BigEndian,
                    other => return Err(place(format!("{} is not a format of PLY", shown(other)))),
                });
            }
            [b"element", name, count, ..] => {
                let count = std::str::from_utf8(count).ok().and_then(|text| text.parse().ok());
                let count = count.ok_or_else(|| place(format!("{} has no number of rows", shown(line))))?;
                elements.push(Element { name: String::from_utf8_lossy(name).into(), count, properties: Vec::new() });
            }
            [b"property", kind @ .., name] => {
                let (length, item) = match kind {
                    [b"list", length, item] => (Some(Scalar::named(length).map_err(place)?), item),
                    [item] => (None, item),
                    _ => return Err(place(format!("{} is not a property", shown(line)))),
                };
                let item = Scalar::named(item).map_err(place)?;
                let element = elements.last_mut().ok_or_else(|| place("a property before any element".into()))?;
                element.properties.push(Property { name: String::from_utf8_lossy(name).into(), length, item });
            }
            [b"end_header", ..] => break,
            _ => return Err(place(format!("{} is not a line that a header has", shown(line)))),
        }
    }
    let encoding = encoding.ok_or("the header names no format")?;
    Ok(Header { encoding, elements, body: rest, line: number + 1 })
}

/// Words, with the line of the last one.
struct Words<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a [u8], String> {
        let start = self.rest.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(self.rest.len());
        let (space, word) = self.rest.split_at(start);
        self.line += space.iter().filter(|&&b| b == b'\n').count();
        let end = word.iter().position(u8::is_ascii_whitespace).unwrap_or(word.len());
        let (word, rest) = word.split_at(end);
        self.rest = rest;
        if word.is_empty() { Err("the file ends here".into()) } else { Ok(word) }
    }
}

/// The body, number by number.
enum Source<'a> {
    Ascii(Words<'a>),
    Binary { rest: &'a [u8], encoding: Encoding },
}

impl Source<'_> {
    fn take(&mut self, scalar: Scalar) -> Result<f64, String> {
        match self {
            Self::Ascii(words) => text::number(words.next()?),
            Self::Binary { rest, encoding } => {
                let (bytes, behind) = rest.split_at_checked(scalar.size()).ok_or("the file ends here")?;
                *rest = behind;
                Ok(scalar.decode(bytes, *encoding))
            }
        }
    }

    /// The length of a list. All of its items must still be in the file.
    fn length(&mut self, length: Scalar, item: Scalar) -> Result<usize, String> {
        let length = self.take(length)?;
        let room = match self {
            Self::Ascii(words) => words.rest.len(),
            Self::Binary { rest, .. } => rest.len() / item.size(),
        };
        if (0.0..=room as f64).contains(&length) && length.fract() == 0.0 {
            return Ok(length as usize);
        }
        Err(format!("a list of {length} items does not fit in what is left of the file"))
    }

    fn skip(&mut self, property: &Property) -> Result<(), String> {
        let count = match property.length {
            Some(length) => self.length(length, property.item)?,
            None => 1,
        };
        match self {
            Self::Ascii(words) => (0..count).try_for_each(|_| words.next().map(drop)),
            Self::Binary { rest, .. } => {
                *rest = rest.get(count * property.item.size()..).ok_or("the file ends here")?;
                Ok(())
            }
        }
    }

    /// A message with its place: the line of an ASCII file, and the element's row in any file.
    fn place(&self, element: &Element, row: usize, problem: String) -> String {
        let row = format!("row {row} of {} of element `{}`: {problem}", element.count, element.name);
        match self {
            Self::Ascii(words) => format!("line {}: {row}", words.line),
            Self::Binary { .. } => row,
        }
    }

    /// Rejects an element whose rows cannot fit in the rest of the file, before any work is done for it.
    fn check_count(&self, element: &Element) -> Result<(), String> {
        let smallest = |p: &Property| p.length.unwrap_or(p.item).size();
        let (left, smallest_row) = match self {
            // Each property needs a digit and a separator; the last may lack its separator.
            Self::Ascii(words) => (words.rest.len() + 1, 2 * element.properties.len()),
            Self::Binary { rest, .. } => (rest.len(), element.properties.iter().map(smallest).sum()),
        };
        if element.count > 0 && (smallest_row == 0 || element.count > left / smallest_row) {
            let (name, count) = (&element.name, element.count);
            return Err(format!(
                "element `{name}`: {count} rows are announced, but {left} bytes are left; was it cut off?"
            ));
        }
        Ok(())
    }
}

fn read_vertices(element: &Element, source: &mut Source, raw: &mut Raw) -> Result<(), String> {
    let axis = |p: &Property| ["x", "y", "z"].iter().position(|name| p.length.is_none() && p.name == *name);
    let axes: Vec<Option<usize>> = element.properties.iter().map(axis).collect();
    for (axis, name) in ["x", "y", "z"].iter().enumerate() {
        if !axes.contains(&Some(axis)) {
            return Err(format!("element `vertex` has no property `{name}`"));
        }
    }
    raw.vertices.reserve(element.count);
    for row in 0..element.count {
        let mut vertex = [0.0; 3];
        for (property, axis) in element.properties.iter().zip(&axes) {
            let taken = match axis {
                Some(axis) => source.take(property.item).map(|c| vertex[*axis] = c),
                None => source.skip(property),
            };
            taken.map_err(|problem| source.place(element, row, problem))?;
        }
        raw.vertices.push(vertex);
    }
    Ok(())
}

/// The corners of all faces and strips, one after another. An index that does not fit in `u32` becomes `u32::MAX`, which no vertex has.
#[derive(Default)]
struct Faces {
    corners: Vec<u32>,
    /// The end of each face in `corners`.
    ends: Vec<usize>,
    /// The corners of strips; `u32::MAX` ends each strip.
    strips: Vec<u32>,
}

impl Faces {
    fn read(&mut self, element: &Element, source: &mut Source) -> Result<(), String> {
        let strips = element.name == "tristrips";
        let is_corners =
            |p: &Property| matches!(p.name.as_str(), "vertex_indices" | "vertex_index") && p.length.is_some();
        if element.count > 0 && !element.properties.iter().any(is_corners) {
            return Err(format!("element `{}` has no list `vertex_indices`", element.name));
        }
        for row in 0..element.count {
            for property in &element.properties {
                let corners = if strips { &mut self.strips } else { &mut self.corners };
                let taken = match property.length {
                    Some(length) if is_corners(property) => source.length(length, property.item).and_then(|count| {
                        for _ in 0..count {
                            let corner = source.take(property.item)?;
                            let fits = corner.fract() == 0.0 && (0.0..f64::from(u32::MAX)).contains(&corner);
                            corners.push(if fits { corner as u32 } else { u32::MAX });
                        }
                        Ok(())
                    }),
                    _ => source.skip(property),
                };
                taken.map_err(|problem| source.place(element, row, problem))?;
            }
            if strips {
                self.strips.push(u32::MAX);
            } else {
                self.ends.push(self.corners.len());
            }
        }
        Ok(())
    }

    fn triangulate(self, raw: &mut Raw) -> Result<(), String> {
        let count = raw.vertices.len();
        let missing = |corners: &[u32]| corners.iter().copied().find(|&v| v as usize >= count);
        let absent = |v: u32| {
            format!(
                "vertex {} does not exist; there are {count}",
                if v == u32::MAX { "-1".into() } else { v.to_string() }
            )
        };
        let mut first = 0;
        let mut short = 0;
        for (row, &end) in self.ends.iter().enumerate() {
            let face = &self.corners[first..end];
            if let Some(v) = missing(face) {
                return Err(format!("face {row}: {}", absent(v)));
            }
            short += usize::from(face.len() < 3);
            raw.polygon(face);
            first = end;
        }
        for strip in self.strips.split(|&v| v == u32::MAX) {
            if let Some(v) = missing(strip) {
                return Err(format!("a triangle strip: {}", absent(v)));
            }
            polygon::strip(strip, &mut raw.faces);
        }
        if short > 0 {
            raw.notes.push(format!("skipped {} with fewer than three corners", counted(short, "face")));
        }
        Ok(())
    }
}

/// Writes binary little-endian; coordinates are doubles if the mesh has an [offset](Mesh::offset).
pub(super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    let far = mesh.offset() != [0.0; 3];
    let scalar = if far { "double" } else { "float" };
    write!(
        out,
        "ply\nformat binary_little_endian 1.0\nelement vertex {}\nproperty {scalar} x\nproperty {scalar} y\nproperty {scalar} z\n\
         element face {}\nproperty list uchar int vertex_indices\nend_header\n",
        mesh.vertices().len(),
        mesh.faces().len()
    )?;
    if far {
        out.extend(mesh.positions().flatten().flat_map(f64::to_le_bytes));
    } else {
        out.extend(mesh.vertices().iter().flatten().flat_map(|c| c.to_le_bytes()));
    }
    for face in mesh.faces() {
        out.push(3);
        out.extend(face.iter().flat_map(|v| v.to_le_bytes()));
    }
    Ok(())
}
