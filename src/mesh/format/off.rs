//! OFF, the Object File Format of Geomview, in ASCII, with or without the prefixes for colours and normals.

use super::Raw;
use crate::mesh::polygon;

/// The words of the file line by line, comments and blank lines left out, each with its line number.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, String)> {
    bytes.split(|&b| b == b'\n').enumerate().filter_map(|(number, line)| {
        let line = line.split(|&b| b == b'#').next().unwrap_or_default().trim_ascii();
        (!line.is_empty()).then(|| (number + 1, String::from_utf8_lossy(line).into_owned()))
    })
}

pub(super) fn read(bytes: &[u8]) -> Result<Raw, String> {
    let mut lines = lines(bytes).peekable();
    let (number, header) = lines.next().ok_or("it is empty")?;
    let (keyword, rest) = header.split_once(char::is_whitespace).unwrap_or((&header, ""));
    if !matches!(keyword, "OFF" | "COFF" | "NOFF" | "CNOFF" | "STOFF" | "STCOFF" | "STNOFF" | "STCNOFF") {
        return Err(format!("line {number}: it begins with `{keyword}`, expected `OFF`"));
    }
    if rest.trim() == "BINARY" {
        return Err(format!("line {number}: binary OFF is not supported; save it as ASCII"));
    }
    // The counts stand on the keyword's line or on the next.
    let (number, counts) = if rest.trim().is_empty() {
        lines.next().ok_or("it ends before the counts")?
    } else {
        (number, rest.to_string())
    };
    let mut counts = counts.split_ascii_whitespace().map(str::parse::<usize>);
    let (Some(Ok(vertices)), Some(Ok(faces))) = (counts.next(), counts.next()) else {
        return Err(format!("line {number}: expected the numbers of vertices, faces and edges"));
    };

    let mut raw = Raw::default();
    for i in 0..vertices {
        let (number, line) = lines.next().ok_or_else(|| format!("it ends after {i} of {vertices} vertices"))?;
        let mut words = line.split_ascii_whitespace().map(str::parse::<f32>);
        let mut coordinate = || words.next().and_then(Result::ok).filter(|c| c.is_finite());
        match (coordinate(), coordinate(), coordinate()) {
            (Some(x), Some(y), Some(z)) => raw.vertices.push([x, y, z]),
            _ => return Err(format!("line {number}: `{line}` is not a vertex of three finite numbers")),
        }
    }
    let mut corners = Vec::new();
    for i in 0..faces {
        let (number, line) = lines.next().ok_or_else(|| format!("it ends after {i} of {faces} faces"))?;
        let mut words = line.split_ascii_whitespace().map(str::parse::<u32>);
        let Some(Ok(count)) = words.next() else {
            return Err(format!("line {number}: `{line}` does not begin with a number of corners"));
        };
        corners.clear();
        for _ in 0..count {
            match words.next() {
                Some(Ok(v)) if (v as usize) < vertices => corners.push(v),
                Some(Ok(v)) => return Err(format!("line {number}: vertex {v} does not exist; there are {vertices}")),
                _ => return Err(format!("line {number}: a face of {count} corners needs as many vertex numbers")),
            }
        }
        // Faces of one or two corners are points and edges, which OFF allows.
        polygon::triangulate(&corners, &raw.vertices, &mut raw.faces);
    }
    Ok(raw)
}
