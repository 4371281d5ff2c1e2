//! OFF, the Object File Format of Geomview, in ASCII, with or without the prefixes for colours and normals.
//!
//! Files from real programs are read too: with a keyword in lower case, without one, or with one glued to the counts (as in ModelNet), and
//! with several rows on one line.

use super::Raw;
use super::text::{self, counted, shown};

/// The words of a line without comments, and the line's number.
struct Line<'a> {
    number: usize,
    words: Vec<&'a [u8]>,
}

/// The part before the data.
struct Header {
    vertices: usize,
    faces: usize,
    /// Numbers in each vertex row, if all rows have as many as the keyword says.
    width: usize,
}

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    let bytes = text::normalized(bytes);
    let mut lines = Vec::new();
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let line = line.split(|&b| b == b'#').next().unwrap_or_default();
        let words: Vec<&[u8]> = text::words(line).collect();
        if !words.is_empty() {
            lines.push(Line { number: number + 1, words });
        }
    }
    let (header, rest) = read_header(&mut lines)?;
    // In most files each row has its own line, which may end in colours that no keyword announces. If reading by lines fails, only the
    // widths separate the rows.
    by_lines(&header, rest).or_else(|problem| by_words(&header, rest).map_err(|_| problem))
}

/// Removes the keyword and the counts from the lines.
fn read_header<'a, 'b>(lines: &'b mut [Line<'a>]) -> Result<(Header, &'b [Line<'a>]), String> {
    let first = lines.first_mut().ok_or("it is empty")?;
    let place = |problem: &str| format!("line {}: {problem}", first.number);
    let word = first.words[0];
    let width = match keyword(word) {
        Some((_, 4, _)) => return Err(place("OFF of four-dimensional points is not supported; save it as OFF")),
        Some((width, _, glued)) => {
            if glued.is_empty() {
                first.words.remove(0);
            } else {
                first.words[0] = glued;
            }
            width
        }
        None if word.iter().all(u8::is_ascii_digit) => 3,
        None => return Err(place(&format!("it begins with {}, expected `OFF`", shown(word)))),
    };
    if first.words.first().is_some_and(|word| word.eq_ignore_ascii_case(b"BINARY")) {
        return Err(place("binary OFF is not supported; save it as ASCII"));
    }
    // The counts are on the keyword's line or on the next.
    let at = usize::from(first.words.is_empty());
    let counts = lines.get_mut(at).ok_or("it ends before the counts")?;
    let mut numbers = counts.words.iter().map(|word| std::str::from_utf8(word).ok()?.parse::<usize>().ok());
    let (Some(Some(vertices)), Some(Some(faces))) = (numbers.next(), numbers.next()) else {
        return Err(format!("line {}: expected the numbers of vertices, faces and edges", counts.number));
    };
    // Everything after the three counts on their line is data.
    let after = counts.words.len().min(3);
    counts.words.drain(..after);
    let rest = at + usize::from(counts.words.is_empty());
    Ok((Header { vertices, faces, width }, &lines[rest..]))
}

/// For a keyword: the numbers in a vertex row, the number of dimensions of its points, and the text glued to the keyword. `None` for other
/// words.
fn keyword(word: &[u8]) -> Option<(usize, usize, &[u8])> {
    let upper = word.to_ascii_uppercase();
    let mut prefixes = upper.as_slice();
    let mut width = 3;
    let mut dimensions = 3;
    for (prefix, more) in [(&b"ST"[..], 2), (&b"C"[..], 4), (&b"N"[..], 3)] {
        if let Some(rest) = prefixes.strip_prefix(prefix) {
            prefixes = rest;
            width += more;
        }
    }
    if let Some(rest) = prefixes.strip_prefix(b"4") {
        (prefixes, dimensions) = (rest, 4);
    }
    let glued = prefixes.strip_prefix(b"OFF")?;
    let glued = &word[word.len() - glued.len()..];
    glued.iter().all(u8::is_ascii_digit).then_some((width, dimensions, glued))
}

fn by_lines(header: &Header, lines: &[Line]) -> Result<Raw, String> {
    let mut raw = Raw::default();
    let mut lines = lines.iter();
    let ends = |i: usize, n: usize, what: &str| format!("it ends after {i} of {n} {what}");
    for i in 0..header.vertices {
        let line = lines.next().ok_or_else(|| ends(i, header.vertices, "vertices"))?;
        let vertex = text::vertex(&mut line.words.iter().copied());
        raw.vertices.push(vertex.map_err(|problem| format!("line {}: {problem}", line.number))?);
    }
    let mut faces = Faces::default();
    for i in 0..header.faces {
        let line = lines.next().ok_or_else(|| ends(i, header.faces, "faces"))?;
        let mut words = line.words.iter().map(|&word| (line.number, word));
        faces.add(&mut words, &mut raw)?;
    }
    Ok(faces.finish(raw))
}

fn by_words(header: &Header, lines: &[Line]) -> Result<Raw, String> {
    let mut raw = Raw::default();
    let mut words = lines.iter().flat_map(|line| line.words.iter().map(|&word| (line.number, word)));
    for _ in 0..header.vertices {
        let row: Vec<&[u8]> = words.by_ref().take(header.width).map(|(_, word)| word).collect();
        raw.vertices.push(text::vertex(&mut row.into_iter())?);
    }
    let mut faces = Faces::default();
    for _ in 0..header.faces {
        faces.add(&mut words, &mut raw)?;
    }
    if words.next().is_some() {
        return Err("there is more text after the last face".into());
    }
    Ok(faces.finish(raw))
}

#[derive(Default)]
struct Faces {
    corners: Vec<u32>,
    short: usize,
}

impl Faces {
    /// Takes a face's number of corners, and then the corners, from the words.
    fn add<'a>(&mut self, words: &mut impl Iterator<Item = (usize, &'a [u8])>, raw: &mut Raw) -> Result<(), String> {
        let whole = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u32>().ok();
        let (number, word) = words.next().ok_or("it ends within its faces")?;
        let place = |problem: String| format!("line {number}: {problem}");
        let count = whole(word).ok_or_else(|| place(format!("{} is not a number of corners", shown(word))))?;
        self.corners.clear();
        for _ in 0..count {
            let corner = words.next().and_then(|(_, word)| whole(word));
            let corner =
                corner.ok_or_else(|| place(format!("a face of {count} corners needs as many vertex numbers")))?;
            if corner as usize >= raw.vertices.len() {
                return Err(place(format!("vertex {corner} does not exist; there are {}", raw.vertices.len())));
            }
            self.corners.push(corner);
        }
        // OFF allows faces with one or two corners: points and edges.
        self.short += usize::from(count < 3);
        raw.polygon(&self.corners);
        Ok(())
    }

    fn finish(self, mut raw: Raw) -> Raw {
        if self.short > 0 {
            raw.notes.push(format!("skipped {} with fewer than three corners", counted(self.short, "face")));
        }
        raw
    }
}
