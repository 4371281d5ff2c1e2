//! 3MF: reads the triangles of all items of the build, with their transforms. A 3MF file is a ZIP archive of XML.
//!
//! This reader needs no crate: only five XML elements and the archive's directory matter, while the crates also bring an archive writer, an
//! XML writer and every extension.

use std::cell::Cell;
use std::collections::HashMap;

use super::text::{self, shown};
use super::{Raw, inflated};

/// Components nested deeper than this are taken for a cycle.
const DEEPEST: usize = 64;

/// The most objects that a build may place, counting each placement: components of components multiply.
const MOST_PLACED: usize = 1 << 20;

/// Four rows of three numbers, as in 3MF: a position is a row to its left.
type Matrix = [[f64; 3]; 4];

const IDENTITY: Matrix = [[1., 0., 0.], [0., 1., 0.], [0., 0., 1.], [0., 0., 0.]];

#[derive(Default)]
struct Object {
    vertices: Vec<[f64; 3]>,
    faces: Vec<[u32; 3]>,
    components: Vec<Placed>,
}

/// A placed object. Objects are identified by their file within the archive and their id in it.
struct Placed {
    object: (String, String),
    transform: Matrix,
}

#[derive(Default)]
struct Model {
    objects: HashMap<(String, String), Object>,
    build: Vec<Placed>,
    /// Number of objects placed so far.
    placed: Cell<usize>,
}

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    let mut model = Model::default();
    let entries = entries(bytes)?;
    // Entries that share their content could repeat it any number of times.
    if entries.iter().map(|entry| entry.packed).sum::<usize>() > bytes.len() {
        return Err("the files of its archive overlap".into());
    }
    for entry in entries {
        if entry.name.to_ascii_lowercase().ends_with(".model") {
            let text = entry.content(bytes).map_err(|problem| format!("{}: {problem}", entry.name))?;
            model.parse(&entry.name, &text).map_err(|problem| format!("{}: {problem}", entry.name))?;
        }
    }
    let mut raw = Raw::default();
    // 3MF requires a build; without one, all objects that are not components could be used.
    for item in &model.build {
        model.add(item, &IDENTITY, DEEPEST, &mut raw)?;
    }
    Ok(raw)
}

impl Model {
    fn parse(&mut self, file: &str, text: &[u8]) -> Result<(), String> {
        let text = text::normalized(text);
        let mut current = None;
        for tag in tags(&text) {
            let place = |problem: String| format!("line {}: {problem}", tag.line(&text));
            let key = |id: &[u8], path: Option<&[u8]>| {
                let path =
                    path.map_or(file.to_string(), |path| String::from_utf8_lossy(path).trim_start_matches('/').into());
                (path, String::from_utf8_lossy(id).into_owned())
            };
            let needed =
                |name: &str| tag.attribute(name).ok_or_else(|| place(format!("<{}> has no {name}", tag.shown())));
            match tag.name {
                b"object" => current = Some(key(needed("id")?, None)),
                b"/object" => current = None,
                b"vertex" | b"triangle" | b"component" => {
                    let Some(name) = &current else { continue };
                    let object = self.objects.entry(name.clone()).or_default();
                    match tag.name {
                        b"vertex" => {
                            let words = [needed("x")?, needed("y")?, needed("z")?];
                            object.vertices.push(text::vertex(&mut words.into_iter()).map_err(place)?);
                        }
                        b"triangle" => {
                            let mut face = [0; 3];
                            for (corner, name) in face.iter_mut().zip(["v1", "v2", "v3"]) {
                                let word = needed(name)?;
                                let number = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
                                *corner =
                                    number.ok_or_else(|| place(format!("{} is not a vertex number", shown(word))))?;
                            }
                            object.faces.push(face);
                        }
                        _ => {
                            let object_key = key(needed("objectid")?, tag.attribute("path"));
                            object
                                .components
                                .push(Placed { object: object_key, transform: tag.transform().map_err(place)? });
                        }
                    }
                }
                b"item" => {
                    let object = key(needed("objectid")?, tag.attribute("path"));
                    self.build.push(Placed { object, transform: tag.transform().map_err(place)? });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&self, placed: &Placed, outer: &Matrix, depth: usize, raw: &mut Raw) -> Result<(), String> {
        let (file, id) = &placed.object;
        let object = self.objects.get(&placed.object).ok_or_else(|| format!("object {id} of {file} does not exist"))?;
        self.placed.set(self.placed.get() + 1);
        if depth == 0 || self.placed.get() > MOST_PLACED {
            return Err(format!("object {id} of {file} is nested too deep, or in itself"));
        }
        let own = product(&placed.transform, outer);
        let first = raw.vertices.len();
        let count = object.vertices.len();
        raw.reserve(count, object.faces.len())?;
        raw.vertices.extend(object.vertices.iter().map(|p| apply(&own, p)));
        let mirrored = determinant(&own) < 0.0;
        for (number, &[a, b, c]) in object.faces.iter().enumerate() {
            if let Some(v) = [a, b, c].into_iter().find(|&v| v as usize >= count) {
                return Err(format!(
                    "object {id} of {file}, triangle {number}: vertex {v} does not exist; there are {count}"
                ));
            }
            let face = if mirrored { [a, c, b] } else { [a, b, c] };
            raw.faces.push(face.map(|v| v + first as u32));
        }
        object.components.iter().try_for_each(|component| self.add(component, &own, depth - 1, raw))
    }
}

fn apply(m: &Matrix, p: &[f64; 3]) -> [f64; 3] {
    std::array::from_fn(|c| (0..3).map(|r| p[r] * m[r][c]).sum::<f64>() + m[3][c])
}

/// The transform that applies `a`, then `b`.
fn product(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|r| {
        std::array::from_fn(|c| (0..3).map(|k| a[r][k] * b[k][c]).sum::<f64>() + if r == 3 { b[3][c] } else { 0.0 })
    })
}

fn determinant([a, b, c, _]: &Matrix) -> f64 {
    a[0] * (b[1] * c[2] - b[2] * c[1]) - b[0] * (a[1] * c[2] - a[2] * c[1]) + c[0] * (a[1] * b[2] - a[2] * b[1])
}

/// A start tag (or an end tag, whose name begins with `/`), without its namespace.
struct Tag<'a> {
    name: &'a [u8],
    attributes: &'a [u8],
    at: usize,
}

fn tags(text: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += text[at..].iter().position(|&b| b == b'<')?;
            if text[at..].starts_with(b"<!--") {
                at += text[at..].windows(3).position(|end| end == b"-->")?;
                continue;
            }
            let end = at + text[at..].iter().position(|&b| b == b'>')?;
            let inside = &text[at + 1..end];
            let start = at;
            at = end;
            let len = inside.iter().position(|b| b.is_ascii_whitespace()).unwrap_or(inside.len());
            let (name, attributes) = inside.split_at(len);
            let name = name.strip_suffix(b"/").unwrap_or(name);
            // The namespace can be ignored: the five names here suffice.
            let name = name.rsplit(|&b| b == b':').next().unwrap_or(name);
            return Some(Tag { name, attributes, at: start });
        }
    })
}

impl<'a> Tag<'a> {
    fn attribute(&self, wanted: &str) -> Option<&'a [u8]> {
        let mut rest = self.attributes;
        loop {
            rest = rest.trim_ascii_start();
            let equals = rest.iter().position(|&b| b == b'=')?;
            let name = rest[..equals].trim_ascii();
            let value = rest[equals + 1..].trim_ascii_start();
            let (&quote, value) = value.split_first()?;
            let end = value.iter().position(|&b| b == quote)?;
            if name.rsplit(|&b| b == b':').next() == Some(wanted.as_bytes()) {
                return Some(value[..end].trim_ascii());
            }
            rest = &value[end + 1..];
        }
    }

    fn transform(&self) -> Result<Matrix, String> {
        let Some(value) = self.attribute("transform") else { return Ok(IDENTITY) };
        let numbers: Vec<f64> = text::words(value).map(text::number).collect::<Result<_, _>>()?;
        match numbers.as_chunks::<3>().0 {
            &[x, y, z, origin] if numbers.len() == 12 => Ok([x, y, z, origin]),
            _ => Err(format!("a transform has {} numbers, expected 12", numbers.len())),
        }
    }

    fn line(&self, text: &[u8]) -> usize {
        1 + text[..self.at].iter().filter(|&&b| b == b'\n').count()
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }
}

/// A file of the archive.
struct Entry {
    name: String,
    deflated: bool,
    packed: usize,
    header: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]).into())
}

/// The directory at the archive's end (APPNOTE.TXT of PKWARE, sections 4.3.12 and 4.3.16).
fn entries(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    const END: usize = 22;
    let broken = || "its archive has no directory; was it cut off?".to_string();
    let last = bytes.len().checked_sub(END).ok_or_else(broken)?;
    let end = (0..=last).rev().take(1 << 16).find(|&at| bytes[at..].starts_with(b"PK\x05\x06")).ok_or_else(broken)?;
    let read = || -> Option<Vec<Entry>> {
        let count = half(bytes, end + 10)?;
        let mut at = word(bytes, end + 16)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            bytes.get(at..)?.starts_with(b"PK\x01\x02").then_some(())?;
            let (name_len, extra, comment) = (half(bytes, at + 28)?, half(bytes, at + 30)?, half(bytes, at + 32)?);
            entries.push(Entry {
                name: String::from_utf8_lossy(bytes.get(at + 46..at + 46 + name_len)?).trim_start_matches('/').into(),
                deflated: match half(bytes, at + 10)? {
                    0 => false,
                    8 => true,
                    _ => return None,
                },
                packed: word(bytes, at + 20)?,
                header: word(bytes, at + 42)?,
            });
            at += 46 + name_len + extra + comment;
        }
        Some(entries)
    };
    read().ok_or_else(|| "its archive's directory is broken, or of a kind that is not read".into())
}

impl Entry {
    fn content(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let start = || Some(self.header + 30 + half(bytes, self.header + 26)? + half(bytes, self.header + 28)?);
        let packed = start().and_then(|start| bytes.get(start..start.checked_add(self.packed)?));
        let packed = packed.ok_or("it reaches outside the archive")?;
        if self.deflated {
            inflated(flate2::read::DeflateDecoder::new(packed), packed.len())
        } else {
            Ok(packed.to_vec())
        }
    }
}
