//! glTF 2.0, binary and JSON: reads the triangles of every node of the default scene (of all scenes if none is the default, of all nodes if
//! there are no scenes), in world coordinates and double precision.
//!
//! Only what concerns geometry is read, so nothing else can cause errors: materials, textures, animations, custom attributes and their
//! extensions are ignored. Sparse accessors, quantized positions (`KHR_mesh_quantization`) and instances (`EXT_mesh_gpu_instancing`) are
//! read. Compressed geometry gives an error that names it.
//!
//! This reader replaces the crate `gltf` 1.4, which rejects files because of their textures, attributes and extensions, and has transforms
//! in single precision only.

mod accessor;
mod document;
mod external;
mod glb;
mod transform;

use std::path::Path;
use std::rc::Rc;

use self::accessor::Data;
use self::document::{Instancing, Primitive, Root};
pub(super) use self::glb::write;
use self::transform::{IDENTITY, Matrix, NO_ROTATION, determinant, product, transform};
use super::Raw;
use super::text::{self, counted};
use crate::mesh::polygon;

/// A node nested deeper than this is taken for a part of a cycle.
const DEEPEST_NODE: usize = 256;

/// What to do about compressed geometry.
const UNPACK: &str = "open the file in Blender and export it without compression";

/// Extensions that change where triangles are. Below they are read or rejected by name.
const GEOMETRY: [&str; 5] = [
    "KHR_mesh_quantization",
    "EXT_mesh_gpu_instancing",
    "KHR_draco_mesh_compression",
    "EXT_meshopt_compression",
    "KHR_meshopt_compression",
];

/// Prefixes of the names of extensions that do not concern geometry.
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

pub(super) fn read(bytes: &[u8], folder: Option<&Path>) -> Result<Raw, String> {
    let (json, blob) = glb::chunks(bytes)?;
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
            raw.notes.push(format!("ignored the required extension {name}"));
        }
    }
    let (budget, meshes) = (root.nodes.len(), vec![None; root.meshes.len()]);
    let data = Data::new(&root, blob, folder);
    let mut reader = Reader { root: &root, data, budget, meshes, lines: 0, raw };
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

/// The triangles of a primitive, at their place in the mesh.
struct Part {
    positions: Vec<[f64; 3]>,
    triangles: Vec<[u32; 3]>,
}

struct Reader<'a> {
    root: &'a Root,
    data: Data<'a>,
    /// How many nodes may still be visited. By the format's rule nodes form a tree; a file that breaks it could repeat its meshes without
    /// limit.
    budget: usize,
    /// The content of each mesh that was read; several nodes may name one mesh.
    meshes: Vec<Option<Rc<[Part]>>>,
    /// Primitives without triangles.
    lines: usize,
    raw: Raw,
}

fn get<'a, T>(all: &'a [T], index: usize, what: &str) -> Result<&'a T, String> {
    all.get(index).ok_or_else(|| format!("{what} {index} does not exist; there are {}", all.len()))
}

impl Reader<'_> {
    /// The nodes of the default scene; otherwise of all scenes; otherwise all nodes without a parent.
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
            instancing.attributes.get(name).map(|&accessor| self.data.numbers(accessor, kind)).transpose()
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

    /// Adds a mesh once for each transform in `worlds`.
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

    /// The triangles of a primitive; `None` for points and lines, which have no surface.
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
        let positions = self.data.numbers(positions, "VEC3")?.as_chunks::<3>().0.to_vec();
        let indices: Vec<u32> = match primitive.indices {
            Some(accessor) => self.data.numbers(accessor, "SCALAR")?.into_iter().map(|v| v as u32).collect(),
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
}
