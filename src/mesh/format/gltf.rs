//! glTF 2.0, binary and JSON, by the crate `gltf`: the triangles of every node of the default scene (of all scenes,
//! when none is the default), moved to world coordinates.

use std::path::Path;

use gltf::Semantic;
use gltf::accessor::{DataType, Dimensions};
use gltf::buffer::Source;
use gltf::mesh::Mode;

use super::Raw;
use crate::mesh::Mesh;

/// Nested deeper than this, a node is taken for part of a cycle.
const DEEPEST_NODE: usize = 256;

type Matrix = [[f32; 4]; 4];

pub(super) fn read(bytes: &[u8], folder: Option<&Path>) -> Result<Raw, String> {
    check_header(bytes)?;
    let gltf::Gltf { document, blob } = gltf::Gltf::from_slice_without_validation(bytes).map_err(|e| e.to_string())?;
    check_attributes(document.as_json())?;
    let gltf = gltf::Document::from_json(document.into_json()).map_err(|e| e.to_string())?;
    let blob = blob.as_deref();
    let mut buffers = Vec::new();
    for buffer in gltf.buffers() {
        let data = match buffer.source() {
            Source::Bin => blob.ok_or("it has no binary chunk, but a buffer refers to it")?.to_vec(),
            Source::Uri(uri) => external(uri, folder)?,
        };
        if data.len() < buffer.length() {
            let (index, has, wants) = (buffer.index(), data.len(), buffer.length());
            return Err(format!("buffer {index} announces {wants} bytes and has {has}"));
        }
        buffers.push(data);
    }
    let mut raw = Raw::default();
    // Nodes form a tree by the format's rule; a file that breaks it could repeat its meshes without bound.
    let mut budget = gltf.nodes().len();
    let mut roots: Vec<gltf::Node> = Vec::new();
    match gltf.default_scene() {
        Some(scene) => roots.extend(scene.nodes()),
        None => roots.extend(gltf.scenes().flat_map(|scene| scene.nodes().collect::<Vec<_>>())),
    }
    for node in roots {
        add_node(&node, &IDENTITY, &buffers, DEEPEST_NODE, &mut budget, &mut raw)?;
    }
    Ok(raw)
}

/// The crate takes the header's size off the announced length unchecked, so a length without room for it is refused here.
fn check_header(bytes: &[u8]) -> Result<(), String> {
    const HEADER: u32 = 12;
    match *bytes {
        [b'g', b'l', b'T', b'F', _, _, _, _, a, b, c, d, ..] if u32::from_le_bytes([a, b, c, d]) < HEADER => {
            let announced = u32::from_le_bytes([a, b, c, d]);
            Err(format!("byte 8: it announces {announced} bytes, fewer than the {HEADER} of its header"))
        }
        _ => Ok(()),
    }
}

/// The crate's validation looks attributes up before it knows that they exist, so an index out of range is refused here.
fn check_attributes(root: &gltf::json::Root) -> Result<(), String> {
    for (number, mesh) in root.meshes.iter().enumerate() {
        let mut accessors = mesh.primitives.iter().flat_map(|primitive| primitive.attributes.values());
        if let Some(missing) = accessors.find(|index| index.value() >= root.accessors.len()) {
            let count = root.accessors.len();
            return Err(format!("mesh {number}: accessor {} does not exist; there are {count}", missing.value()));
        }
    }
    Ok(())
}

const IDENTITY: Matrix = [[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]];

fn add_node(
    node: &gltf::Node,
    parent: &Matrix,
    buffers: &[Vec<u8>],
    depth: usize,
    budget: &mut usize,
    raw: &mut Raw,
) -> Result<(), String> {
    let place = |problem: String| format!("node {}: {problem}", node.index());
    if depth == 0 || *budget == 0 {
        return Err(place("the nodes do not form a tree".into()));
    }
    *budget -= 1;
    let local = node.transform().matrix();
    // Column-major, as glTF has it: m[column][row].
    let world: Matrix =
        std::array::from_fn(|c| std::array::from_fn(|r| (0..4).map(|k| parent[k][r] * local[c][k]).sum()));
    if let Some(mesh) = node.mesh() {
        for primitive in mesh.primitives() {
            add_primitive(&primitive, &world, buffers, raw)
                .map_err(|problem| format!("mesh {}, primitive {}: {problem}", mesh.index(), primitive.index()))?;
        }
    }
    for child in node.children() {
        add_node(&child, &world, buffers, depth - 1, budget, raw)?;
    }
    Ok(())
}

fn add_primitive(
    primitive: &gltf::Primitive,
    world: &Matrix,
    buffers: &[Vec<u8>],
    raw: &mut Raw,
) -> Result<(), String> {
    if !matches!(primitive.mode(), Mode::Triangles | Mode::TriangleStrip | Mode::TriangleFan) {
        return Ok(()); // points and lines have no surface
    }
    let reader = primitive.reader(|buffer| buffers.get(buffer.index()).map(Vec::as_slice));
    if let Some(accessor) = primitive.get(&Semantic::Positions) {
        check_accessor(&accessor, Dimensions::Vec3, &[DataType::F32], buffers)?;
    }
    if let Some(accessor) = primitive.indices() {
        check_accessor(&accessor, Dimensions::Scalar, &[DataType::U8, DataType::U16, DataType::U32], buffers)?;
    }
    let first = raw.vertices.len();
    for [x, y, z] in reader.read_positions().ok_or("it has no readable positions")? {
        raw.vertices.push(std::array::from_fn(|r| world[0][r] * x + world[1][r] * y + world[2][r] * z + world[3][r]));
    }
    let count = raw.vertices.len() - first;
    let indices: Vec<u32> = match reader.read_indices() {
        Some(indices) => indices.into_u32().collect(),
        None => (0..count as u32).collect(),
    };
    if let Some(v) = indices.iter().find(|&&v| v as usize >= count) {
        return Err(format!("vertex {v} does not exist; there are {count}"));
    }
    let moved = |v: u32| v + first as u32;
    let mirrored = determinant(world) < 0.0;
    let mut add = |a: u32, b: u32, c: u32| {
        let [b, c] = if mirrored { [c, b] } else { [b, c] };
        raw.faces.push([a, b, c].map(moved));
    };
    match primitive.mode() {
        Mode::TriangleStrip => {
            for (i, t) in indices.windows(3).enumerate() {
                if i % 2 == 0 { add(t[0], t[1], t[2]) } else { add(t[1], t[0], t[2]) }
            }
        }
        Mode::TriangleFan => indices.windows(2).skip(1).for_each(|t| add(indices[0], t[0], t[1])),
        _ => indices.chunks_exact(3).for_each(|t| add(t[0], t[1], t[2])),
    }
    Ok(())
}

fn determinant(m: &Matrix) -> f32 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[1][0] * (m[0][1] * m[2][2] - m[0][2] * m[2][1])
        + m[2][0] * (m[0][1] * m[1][2] - m[0][2] * m[1][1])
}

/// The crate's readers take the type and the place in the buffer for granted, so an accessor of another type, or one that
/// reaches outside, is refused here.
fn check_accessor(
    accessor: &gltf::Accessor,
    dimensions: Dimensions,
    types: &[DataType],
    buffers: &[Vec<u8>],
) -> Result<(), String> {
    let index = accessor.index();
    let (found, data_type) = (accessor.dimensions(), accessor.data_type());
    if found != dimensions || !types.contains(&data_type) {
        return Err(format!("accessor {index} is {found:?} of {data_type:?}, expected {dimensions:?} of {types:?}"));
    }
    if accessor.sparse().is_some() {
        return Err(format!("accessor {index} is sparse, which is not supported"));
    }
    let view = accessor.view().ok_or_else(|| format!("accessor {index} has no data"))?;
    let (size, stride) = (accessor.size(), view.stride().unwrap_or(accessor.size()));
    let within_view = accessor
        .count()
        .checked_sub(1)
        .and_then(|last| last.checked_mul(stride))
        .and_then(|n| n.checked_add(size)?.checked_add(accessor.offset()))
        .is_some_and(|end| end <= view.length());
    let buffer = buffers.get(view.buffer().index()).map_or(0, Vec::len);
    let within_buffer = view.offset().checked_add(view.length()).is_some_and(|end| end <= buffer);
    if within_view && within_buffer && stride >= size {
        Ok(())
    } else {
        Err(format!("accessor {index} ({} items) reaches outside its buffer", accessor.count()))
    }
}

/// A buffer given as a `data:` URI or as a file beside the glTF.
fn external(uri: &str, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    use base64::Engine;
    if let Some(data) = uri.strip_prefix("data:") {
        let (_, encoded) = data.split_once(";base64,").ok_or("a data URI is not in base64")?;
        return base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|e| format!("a data URI: {e}"));
    }
    let folder = folder.ok_or_else(|| format!("its buffer `{uri}` is another file"))?;
    // Only names below the file's own folder: a mesh must not make us read anything else.
    let inside = Path::new(uri).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !inside || uri.contains("://") {
        return Err(format!("its buffer `{uri}` does not lie beside it"));
    }
    std::fs::read(folder.join(uri)).map_err(|e| format!("its buffer `{uri}`: {e}"))
}

/// Writes binary glTF 2.0 (`.glb`): one mesh of one primitive, coordinates as they are.
pub(super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut data: Vec<u8> = mesh.vertices().iter().flatten().flat_map(|c| c.to_le_bytes()).collect();
    let positions = data.len();
    data.extend(mesh.faces().iter().flatten().flat_map(|i| i.to_le_bytes()));
    let bound = |pick: fn(f32, f32) -> f32, start: f32| {
        mesh.vertices().iter().fold([start; 3], |m, v| std::array::from_fn(|axis| pick(m[axis], v[axis])))
    };
    let (low, high): ([f32; 3], [f32; 3]) = (bound(f32::min, f32::INFINITY), bound(f32::max, f32::NEG_INFINITY));
    let document = serde_json::json!({
        "asset": { "version": "2.0", "generator": "WaveMesh" },
        "scene": 0,
        "scenes": [{ "nodes": [0] }],
        "nodes": [{ "mesh": 0 }],
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
