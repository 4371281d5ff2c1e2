//! Binary glTF: the chunks of a file, and how one is written.

use crate::mesh::Mesh;

/// The JSON of a file and, in a binary one, its buffer.
pub(super) fn chunks(bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), String> {
    const HEADER: usize = 12;
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    if !bytes.starts_with(b"glTF") {
        return Ok((bytes, None));
    }
    match (word(4), word(8)) {
        (Some(2), Some(length)) if length < HEADER => {
            return Err(format!("byte 8: it announces {length} bytes, fewer than the {HEADER} of its header"));
        }
        (Some(2), Some(_)) => {}
        (Some(version), _) => return Err(format!("byte 4: binary glTF of version {version}; only 2 is read")),
        _ => return Err("it ends within its header".into()),
    }
    let (mut json, mut blob, mut at) = (None, None, HEADER);
    while let (Some(length), Some(kind)) = (word(at), bytes.get(at + 4..at + 8)) {
        let start = at + 8;
        let end = start.saturating_add(length).min(bytes.len());
        match kind {
            b"JSON" if json.is_none() => json = Some(&bytes[start..end]),
            b"BIN\0" if blob.is_none() => blob = Some(&bytes[start..end]),
            _ => {}
        }
        at = end;
    }
    Ok((json.ok_or("it has no JSON chunk")?, blob))
}

/// Writes binary glTF 2.0 (`.glb`): one mesh of one primitive, with unchanged coordinates; an [offset](Mesh::offset) becomes the
/// translation of its node.
pub(in super::super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut data: Vec<u8> = mesh.vertices().iter().flatten().flat_map(|c| c.to_le_bytes()).collect();
    let positions = data.len();
    data.extend(mesh.faces().iter().flatten().flat_map(|i| i.to_le_bytes()));
    let bound = |pick: fn(f32, f32) -> f32, start: f32| {
        mesh.vertices().iter().fold([start; 3], |m, v| std::array::from_fn(|axis| pick(m[axis], v[axis])))
    };
    let (low, high): ([f32; 3], [f32; 3]) = (bound(f32::min, f32::INFINITY), bound(f32::max, f32::NEG_INFINITY));
    let mut node = serde_json::json!({ "mesh": 0 });
    if mesh.offset() != [0.0; 3] {
        node["translation"] = serde_json::json!(mesh.offset());
    }
    let document = serde_json::json!({
        "asset": { "version": "2.0", "generator": "WaveMesh" },
        "scene": 0,
        "scenes": [{ "nodes": [0] }],
        "nodes": [node],
        "meshes": [{ "primitives": [{ "attributes": { "POSITION": 0 }, "indices": 1 }] }],
        "buffers": [{ "byteLength": data.len() }],
        "bufferViews": [
            { "buffer": 0, "byteOffset": 0, "byteLength": positions, "target": 34962 },
            { "buffer": 0, "byteOffset": positions, "byteLength": data.len() - positions, "target": 34963 },
        ],
        "accessors": [
            { "bufferView": 0, "componentType": 5126, "count": mesh.vertices().len(), "type": "VEC3", "min": low, "max": high },
            { "bufferView": 1, "componentType": 5125, "count": 3 * mesh.faces().len(), "type": "SCALAR" },
        ],
    });
    let mut text = document.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(4), b' ');
    let length = 12 + 8 + text.len() + 8 + data.len();
    out.extend(b"glTF");
    for word in [2, length as u32, text.len() as u32] {
        out.extend(word.to_le_bytes());
    }
    out.extend(b"JSON");
    out.extend(text);
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(b"BIN\0");
    out.extend(data);
    Ok(())
}
