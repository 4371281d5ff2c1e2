//! glTF 2.0, binary and JSON: the triangles of every node of the default scene (of all scenes when none is the default, of
//! all nodes when there is none), moved to world coordinates in double precision.
//!
//! Only what touches geometry is read, so that nothing else can be wrong: materials, textures, animations, custom
//! attributes and extensions of these are never looked at. Sparse accessors, quantized positions (`KHR_mesh_quantization`)
//! and instances (`EXT_mesh_gpu_instancing`) are read; compressed geometry is named in an error.
//!
//! Read here and not by a crate: `gltf` 1.4 refuses files for their textures, attributes and extensions, and has transforms
//! in single precision only.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;

use super::Raw;
use super::text::{self, counted};
use crate::mesh::{Mesh, polygon};

/// Nested deeper than this, a node is taken for part of a cycle.
const DEEPEST_NODE: usize = 256;

/// Numbers that may be read for each byte of the buffers, and in any file: primitives share their numbers, but not without end.
const MOST_READ: (usize, usize) = (64, 1 << 26);

/// How to get at geometry that is compressed.
const UNPACK: &str = "open the file in Blender and export it without compression";

/// Extensions that change where triangles are, and are read or refused by name below.
const GEOMETRY: [&str; 5] = [
    "KHR_mesh_quantization",
    "EXT_mesh_gpu_instancing",
    "KHR_draco_mesh_compression",
    "EXT_meshopt_compression",
    "KHR_meshopt_compression",
];

/// Beginnings of the names of extensions that say nothing of geometry.
const ELSEWHERE: [&str; 9] = [
    "KHR_materials_",
    "KHR_texture_",
    "KHR_lights_",
    "KHR_animation_",
    "KHR_xmp",
    "EXT_texture_",
    "EXT_lights_",
    "EXT_structural_metadata",
    "MSFT_texture_",
];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Root {
    asset: Asset,
    scene: Option<usize>,
    scenes: Vec<Scene>,
    nodes: Vec<Node>,
    meshes: Vec<MeshOf>,
    accessors: Vec<Accessor>,
    buffer_views: Vec<View>,
    buffers: Vec<Buffer>,
    extensions_required: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Asset {
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Scene {
    nodes: Vec<usize>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Node {
    children: Vec<usize>,
    mesh: Option<usize>,
    matrix: Option<[f64; 16]>,
    translation: Option<[f64; 3]>,
    rotation: Option<[f64; 4]>,
    scale: Option<[f64; 3]>,
    extensions: NodeExtensions,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeExtensions {
    #[serde(rename = "EXT_mesh_gpu_instancing")]
    instancing: Option<Instancing>,
}

#[derive(Deserialize)]
struct Instancing {
    attributes: BTreeMap<String, usize>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MeshOf {
    primitives: Vec<Primitive>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Primitive {
    attributes: BTreeMap<String, usize>,
    indices: Option<usize>,
    mode: Option<u32>,
    extensions: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accessor {
    buffer_view: Option<usize>,
    #[serde(default)]
    byte_offset: usize,
    component_type: u32,
    #[serde(default)]
    normalized: bool,
    count: usize,
    #[serde(rename = "type")]
    kind: String,
    sparse: Option<Sparse>,
}

#[derive(Deserialize)]
struct Sparse {
    count: usize,
    indices: SparsePart,
    values: SparsePart,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SparsePart {
    buffer_view: usize,
    #[serde(default)]
    byte_offset: usize,
    /// Of indices alone.
    component_type: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    buffer: usize,
    #[serde(default)]
    byte_offset: usize,
    byte_length: usize,
    byte_stride: Option<usize>,
    #[serde(default)]
    extensions: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Buffer {
    byte_length: usize,
    uri: Option<String>,
}

/// Column-major, as glTF has it: `m[column][row]`, without the last row.
type Matrix = [[f64; 3]; 4];

const IDENTITY: Matrix = [[1., 0., 0.], [0., 1., 0.], [0., 0., 1.], [0., 0., 0.]];

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|c| {
        std::array::from_fn(|r| {
            let own = if c == 3 { a[3][r] } else { 0.0 };
            (0..3).map(|k| a[k][r] * b[c][k]).sum::<f64>() + own
        })
    })
}

fn transform(translation: [f64; 3], [x, y, z, w]: [f64; 4], scale: [f64; 3]) -> Matrix {
    let rotation = [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + z * w), 2.0 * (x * z - y * w)],
        [2.0 * (x * y - z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + x * w)],
        [2.0 * (x * z + y * w), 2.0 * (y * z - x * w), 1.0 - 2.0 * (x * x + y * y)],
    ];
    std::array::from_fn(|c| if c < 3 { rotation[c].map(|r| r * scale[c]) } else { translation })
}

fn determinant([a, b, c, _]: &Matrix) -> f64 {
    a[0] * (b[1] * c[2] - b[2] * c[1]) - b[0] * (a[1] * c[2] - a[2] * c[1]) + c[0] * (a[1] * b[2] - a[2] * b[1])
}

const NO_ROTATION: [f64; 4] = [0.0, 0.0, 0.0, 1.0];

impl Node {
    fn matrix(&self) -> Matrix {
        match &self.matrix {
            Some(m) => std::array::from_fn(|c| std::array::from_fn(|r| m[4 * c + r])),
            None => transform(
                self.translation.unwrap_or_default(),
                self.rotation.unwrap_or(NO_ROTATION),
                self.scale.unwrap_or([1.0; 3]),
            ),
        }
    }
}

pub(super) fn read(bytes: &[u8], folder: Option<&Path>) -> Result<Raw, String> {
    let (json, blob) = chunks(bytes)?;
    let json = text::normalized(json);
    let json = json.trim_ascii_end();
    let json = json.iter().rposition(|&b| b != 0).map_or(json, |end| &json[..=end]);
    let root: Root = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    if !root.asset.version.is_empty() && !root.asset.version.starts_with("2.") {
        return Err(format!(
            "it is of version {}; only 2.0 is read: convert it with gltf-pipeline",
            root.asset.version
        ));
    }
    let mut raw = Raw::default();
    for name in &root.extensions_required {
        if !GEOMETRY.contains(&name.as_str()) && !ELSEWHERE.iter().any(|beginning| name.starts_with(beginning)) {
            raw.notes.push(format!("left aside the required extension {name}"));
        }
    }
    let buffers = (0..root.buffers.len()).map(|_| OnceCell::new()).collect();
    let budget = root.nodes.len();
    let announced = root.buffers.iter().fold(0usize, |sum, buffer| sum.saturating_add(buffer.byte_length.min(1 << 40)));
    let to_read = Cell::new(announced.saturating_mul(MOST_READ.0).saturating_add(MOST_READ.1));
    let meshes = vec![None; root.meshes.len()];
    let mut reader = Reader { root: &root, blob, folder, buffers, budget, to_read, meshes, lines: 0, raw };
    for node in reader.roots()? {
        reader.add_node(node, &IDENTITY, DEEPEST_NODE)?;
    }
    if root.nodes.is_empty() {
        (0..root.meshes.len()).try_for_each(|mesh| reader.add_mesh(mesh, &[IDENTITY]))?;
    }
    let Reader { lines, mut raw, .. } = reader;
    if lines > 0 {
        raw.notes.push(format!("left out {} of points or lines", counted(lines, "primitive")));
    }
    Ok(raw)
}

/// The JSON of a file and, in a binary one, its buffer.
fn chunks(bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), String> {
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

/// The triangles of a primitive, where their mesh has them.
struct Part {
    positions: Vec<[f64; 3]>,
    triangles: Vec<[u32; 3]>,
}

struct Reader<'a> {
    root: &'a Root,
    blob: Option<&'a [u8]>,
    folder: Option<&'a Path>,
    /// Each buffer, read when something of the geometry lies in it.
    buffers: Vec<OnceCell<Vec<u8>>>,
    /// Nodes form a tree by the format's rule; a file that breaks it could repeat its meshes without bound.
    budget: usize,
    /// Numbers and primitives that may still be read.
    to_read: Cell<usize>,
    /// What was read of each mesh, which nodes may name any number of times.
    meshes: Vec<Option<Rc<[Part]>>>,
    /// Primitives without triangles.
    lines: usize,
    raw: Raw,
}

fn get<'a, T>(all: &'a [T], index: usize, what: &str) -> Result<&'a T, String> {
    all.get(index).ok_or_else(|| format!("{what} {index} does not exist; there are {}", all.len()))
}

impl<'a> Reader<'a> {
    /// The nodes of the default scene, else of all scenes, else all that are nobody's children.
    fn roots(&self) -> Result<Vec<usize>, String> {
        let root = self.root;
        if let Some(scene) = root.scene {
            return Ok(get(&root.scenes, scene, "scene")?.nodes.clone());
        }
        if !root.scenes.is_empty() {
            return Ok(root.scenes.iter().flat_map(|scene| scene.nodes.iter().copied()).collect());
        }
        let mut is_child = vec![false; root.nodes.len()];
        for &child in root.nodes.iter().flat_map(|node| &node.children) {
            if let Some(child) = is_child.get_mut(child) {
                *child = true;
            }
        }
        Ok((0..root.nodes.len()).filter(|&node| !is_child[node]).collect())
    }

    fn add_node(&mut self, index: usize, parent: &Matrix, depth: usize) -> Result<(), String> {
        let root = self.root;
        let node = get(&root.nodes, index, "node")?;
        if depth == 0 || self.budget == 0 {
            return Err(format!("node {index}: the nodes do not form a tree"));
        }
        self.budget -= 1;
        let world = product(parent, &node.matrix());
        if let Some(mesh) = node.mesh {
            match &node.extensions.instancing {
                None => self.add_mesh(mesh, &[world])?,
                Some(instancing) => {
                    let instances = self.instances(instancing).map_err(|problem| format!("node {index}: {problem}"))?;
                    let worlds: Vec<Matrix> = instances.iter().map(|instance| product(&world, instance)).collect();
                    self.add_mesh(mesh, &worlds)?;
                }
            }
        }
        node.children.iter().try_for_each(|&child| self.add_node(child, &world, depth - 1))
    }

    /// The transforms of `EXT_mesh_gpu_instancing`.
    fn instances(&self, instancing: &Instancing) -> Result<Vec<Matrix>, String> {
        let attribute = |name: &str, kind: &str| {
            instancing.attributes.get(name).map(|&accessor| self.numbers(accessor, kind)).transpose()
        };
        let (translations, scales) = (attribute("TRANSLATION", "VEC3")?, attribute("SCALE", "VEC3")?);
        let rotations = attribute("ROTATION", "VEC4")?;
        let vectors = [&translations, &scales].map(|v| v.as_ref().map(|v| v.as_chunks::<3>().0));
        let turns = rotations.as_ref().map(|v| v.as_chunks::<4>().0);
        let counts = [vectors[0].map(<[_]>::len), vectors[1].map(<[_]>::len), turns.map(<[_]>::len)];
        let count = counts.iter().flatten().copied().min().unwrap_or(0);
        let instance = |i: usize| {
            transform(
                vectors[0].map_or([0.0; 3], |v| v[i]),
                turns.map_or(NO_ROTATION, |v| v[i]),
                vectors[1].map_or([1.0; 3], |v| v[i]),
            )
        };
        Ok((0..count).map(instance).collect())
    }

    /// Adds a mesh wherever one of `worlds` moves it.
    fn add_mesh(&mut self, index: usize, worlds: &[Matrix]) -> Result<(), String> {
        let parts = match self.meshes.get(index) {
            Some(Some(parts)) => parts.clone(),
            _ => self.read_mesh(index)?,
        };
        for (part, world) in parts.iter().flat_map(|part| worlds.iter().map(move |world| (part, world))) {
            self.raw.reserve(part.positions.len(), part.triangles.len())?;
            let first = self.raw.vertices.len() as u32;
            let moved = |[x, y, z]: &[f64; 3]| {
                std::array::from_fn(|r| world[0][r] * x + world[1][r] * y + world[2][r] * z + world[3][r])
            };
            self.raw.vertices.extend(part.positions.iter().map(moved));
            let mirrored = determinant(world) < 0.0;
            self.raw.faces.extend(part.triangles.iter().map(|face| {
                let [a, b, c] = face.map(|v| v + first);
                if mirrored { [a, c, b] } else { [a, b, c] }
            }));
        }
        Ok(())
    }

    /// The primitives of a mesh that have triangles.
    fn read_mesh(&mut self, index: usize) -> Result<Rc<[Part]>, String> {
        let root = self.root;
        let mut parts = Vec::new();
        for (number, primitive) in get(&root.meshes, index, "mesh")?.primitives.iter().enumerate() {
            let place = |problem: String| format!("mesh {index}, primitive {number}: {problem}");
            let part = self.part(primitive).map_err(place)?;
            parts.extend(part.filter(|part| !part.triangles.is_empty()));
        }
        let parts: Rc<[Part]> = parts.into();
        self.meshes[index] = Some(parts.clone());
        Ok(parts)
    }

    /// Counts what is about to be read.
    fn spend(&self, count: usize) -> Result<(), String> {
        self.to_read.set(self.to_read.get().checked_sub(count).ok_or("primitives name the same numbers too often")?);
        Ok(())
    }

    /// What a primitive has; `None` for points and lines, which have no surface.
    fn part(&mut self, primitive: &Primitive) -> Result<Option<Part>, String> {
        const TRIANGLES: u32 = 4;
        const STRIP: u32 = 5;
        const FAN: u32 = 6;
        let mode = primitive.mode.unwrap_or(TRIANGLES);
        if ![TRIANGLES, STRIP, FAN].contains(&mode) {
            self.lines += 1;
            return Ok(None);
        }
        let &positions = primitive.attributes.get("POSITION").ok_or("it has no positions")?;
        const DRACO: &str = "KHR_draco_mesh_compression";
        if primitive.extensions.contains_key(DRACO)
            && get(&self.root.accessors, positions, "accessor")?.buffer_view.is_none()
        {
            return Err(format!("its triangles are compressed by {DRACO}; {UNPACK}"));
        }
        let positions = self.numbers(positions, "VEC3")?.as_chunks::<3>().0.to_vec();
        let indices: Vec<u32> = match primitive.indices {
            Some(accessor) => self.numbers(accessor, "SCALAR")?.into_iter().map(|v| v as u32).collect(),
            None => (0..positions.len() as u32).collect(),
        };
        if let Some(v) = indices.iter().find(|&&v| v as usize >= positions.len()) {
            return Err(format!("vertex {v} does not exist; there are {}", positions.len()));
        }
        let mut triangles = Vec::new();
        match mode {
            STRIP => polygon::strip(&indices, &mut triangles),
            FAN => polygon::fan(&indices, &mut triangles),
            _ => triangles.extend_from_slice(indices.as_chunks::<3>().0),
        }
        Ok(Some(Part { positions, triangles }))
    }

    /// All numbers of an accessor of the given kind, one item behind the other; normalized integers as fractions.
    fn numbers(&self, index: usize, kind: &str) -> Result<Vec<f64>, String> {
        let accessor = get(&self.root.accessors, index, "accessor")?;
        if accessor.kind != kind {
            return Err(format!("accessor {index} is {}, expected {kind}", accessor.kind));
        }
        let component = Scalar::from_code(accessor.component_type)
            .ok_or_else(|| format!("accessor {index} has the unknown component type {}", accessor.component_type))?;
        let width = match kind {
            "VEC4" => 4,
            "VEC3" => 3,
            _ => 1,
        };
        let place = |problem: String| format!("accessor {index} ({} items) {problem}", accessor.count);
        let sparse = accessor.sparse.as_ref().map_or(0, |sparse| sparse.count);
        if sparse > accessor.count {
            return Err(place(format!("has {sparse} sparse values")));
        }
        let mut numbers = match accessor.buffer_view {
            Some(view) => {
                let items = Items { view, offset: accessor.byte_offset, count: accessor.count };
                self.items(items, component, width).map_err(place)?
            }
            // Without a view all is zero, which only a sparse accessor makes use of.
            None => {
                let given: usize = self.root.buffers.iter().map(|buffer| buffer.byte_length.min(1 << 40)).sum();
                if accessor.sparse.is_none() || accessor.count > given.saturating_mul(64) {
                    return Err(place("has no data".into()));
                }
                let bytes = accessor.count.saturating_mul(8 * width);
                crate::memory::check("Mesh::load", || format!("accessor {index}"), bytes).map_err(|e| e.to_string())?;
                self.spend(accessor.count.saturating_mul(width))?;
                vec![0.0; accessor.count * width]
            }
        };
        if let Some(Sparse { count, indices, values }) = &accessor.sparse {
            let items = |part: &SparsePart| Items { view: part.buffer_view, offset: part.byte_offset, count: *count };
            let code = indices
                .component_type
                .and_then(Scalar::from_code)
                .ok_or_else(|| place("has sparse indices of no type".into()))?;
            let at = self.items(items(indices), code, 1).map_err(place)?;
            let values = self.items(items(values), component, width).map_err(place)?;
            for (at, value) in at.into_iter().zip(values.chunks_exact(width)) {
                let at = at as usize;
                let item = numbers.get_mut(at * width..(at + 1) * width);
                item.ok_or_else(|| place(format!("has a sparse value for item {at}")))?.copy_from_slice(value);
            }
        }
        if accessor.normalized {
            numbers.iter_mut().for_each(|number| *number = (*number / component.largest()).max(-1.0));
        }
        Ok(numbers)
    }

    fn items(&self, Items { view, offset, count }: Items, component: Scalar, width: usize) -> Result<Vec<f64>, String> {
        let view = get(&self.root.buffer_views, view, "bufferView")?;
        if let Some(name) = view.extensions.keys().find(|name| name.ends_with("_meshopt_compression")) {
            return Err(format!("is compressed by {name}; {UNPACK}"));
        }
        let buffer = self.buffer(view.buffer)?;
        let size = component.size() * width;
        let stride = view.byte_stride.unwrap_or(size);
        let outside = || "reaches outside its buffer".to_string();
        let bytes = view.byte_offset.checked_add(view.byte_length).and_then(|end| buffer.get(view.byte_offset..end));
        let bytes = bytes.and_then(|bytes| bytes.get(offset..)).ok_or_else(outside)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let needed = (count - 1).checked_mul(stride).and_then(|n| n.checked_add(size));
        if stride < size || needed.is_none_or(|needed| needed > bytes.len()) {
            return Err(outside());
        }
        self.spend(count.saturating_mul(width))?;
        let item = |i: usize| bytes[i * stride..][..size].chunks_exact(component.size()).map(|b| component.decode(b));
        Ok((0..count).flat_map(item).collect())
    }

    fn buffer(&self, index: usize) -> Result<&[u8], String> {
        let cell = get(&self.buffers, index, "buffer")?;
        if let Some(bytes) = cell.get() {
            return Ok(bytes);
        }
        let buffer = &self.root.buffers[index];
        let bytes = match &buffer.uri {
            Some(uri) => external(uri, self.folder)?,
            None if index == 0 => self.blob.ok_or("it has no binary chunk, but a buffer refers to it")?.to_vec(),
            None => return Err(format!("buffer {index} has no data")),
        };
        if bytes.len() < buffer.byte_length {
            let (has, wants) = (bytes.len(), buffer.byte_length);
            return Err(format!("buffer {index} announces {wants} bytes and has {has}; was it cut off?"));
        }
        Ok(cell.get_or_init(|| bytes))
    }
}

/// Where the items of an accessor lie.
struct Items {
    view: usize,
    offset: usize,
    count: usize,
}

/// The type of a number, by the codes of OpenGL.
#[derive(Clone, Copy)]
enum Scalar {
    I8,
    U8,
    I16,
    U16,
    U32,
    F32,
}

impl Scalar {
    fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            5120 => Self::I8,
            5121 => Self::U8,
            5122 => Self::I16,
            5123 => Self::U16,
            5125 => Self::U32,
            5126 => Self::F32,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::U32 | Self::F32 => 4,
        }
    }

    /// What stands for 1 where integers are normalized.
    fn largest(self) -> f64 {
        match self {
            Self::I8 => i8::MAX.into(),
            Self::U8 => u8::MAX.into(),
            Self::I16 => i16::MAX.into(),
            Self::U16 => u16::MAX.into(),
            Self::U32 => u32::MAX.into(),
            Self::F32 => 1.0,
        }
    }

    fn decode(self, b: &[u8]) -> f64 {
        match self {
            Self::I8 => (b[0] as i8).into(),
            Self::U8 => b[0].into(),
            Self::I16 => i16::from_le_bytes([b[0], b[1]]).into(),
            Self::U16 => u16::from_le_bytes([b[0], b[1]]).into(),
            Self::U32 => u32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
            Self::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
        }
    }
}

/// A buffer given as a `data:` URI or as a file beside the glTF.
fn external(uri: &str, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    use base64::Engine;
    if let Some(data) = uri.strip_prefix("data:") {
        let (kind, encoded) = data.split_once(',').ok_or("a data URI has no data")?;
        if !kind.ends_with(";base64") {
            return Ok(percent_decoded(encoded));
        }
        return base64::engine::general_purpose::STANDARD
            .decode(encoded.trim())
            .map_err(|e| format!("a data URI: {e}"));
    }
    let folder = folder.ok_or_else(|| format!("its buffer `{uri}` is another file; load it by its path"))?;
    // URIs write a space as %20; some writers leave names as they are.
    let names = [String::from_utf8(percent_decoded(uri)).unwrap_or_default(), uri.to_string()];
    let mut error = None;
    for name in names {
        // Only names below the file's own folder: a mesh must not make us read anything else.
        let mut parts: Vec<Component> = Path::new(&name).components().collect();
        parts.retain(|part| *part != Component::CurDir);
        if name.contains("://") || parts.is_empty() || !parts.iter().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("its buffer `{uri}` does not lie beside it"));
        }
        match std::fs::read(folder.join(parts.iter().collect::<PathBuf>())) {
            Ok(bytes) => return Ok(bytes),
            Err(e) => error = error.or(Some(e)),
        }
    }
    Err(error.map_or_else(String::new, |e| format!("its buffer `{uri}`: {e}")))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((16 * high + low) as u8);
                bytes = ahead;
            }
            _ => decoded.push(byte),
        }
    }
    decoded
}

/// Writes binary glTF 2.0 (`.glb`): one mesh of one primitive, coordinates as they are; an [offset](Mesh::offset) is the
/// translation of its node.
pub(super) fn write(mesh: &Mesh, out: &mut Vec<u8>) -> std::io::Result<()> {
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
