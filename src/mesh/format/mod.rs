//! Mesh files. Each file of this folder knows one format, but neither paths nor [`Error`]: it turns bytes into vertices and triangles, or
//! says what is wrong and where. Readers are as forgiving as those of other programs, and note what they skip.
//!
//! No reader allocates more than a small multiple of the bytes that it gets, whatever counts the bytes announce. Before a scene places an
//! object many times, the reader checks that memory suffices.

#[cfg(feature = "mesh-io")]
mod gltf;
mod obj;
mod off;
mod ply;
mod stl;
mod text;
#[cfg(feature = "mesh-io")]
mod three_mf;

use std::fmt;
#[cfg(feature = "mesh-io")]
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use super::{Mesh, polygon};
use crate::files::write_atomically;
use crate::{Error, Result};

/// The result of a reader, before `Mesh::from_file` checks it.
#[derive(Default)]
struct Raw {
    vertices: Vec<[f64; 3]>,
    faces: Vec<[u32; 3]>,
    /// Notes about what was skipped or mended, one line each.
    notes: Vec<String>,
    /// Number of polygons that cross themselves so often that a part became a fan.
    tangled: usize,
}

impl Raw {
    /// Appends the triangles of a polygon; its corners must be in range.
    fn polygon(&mut self, corners: &[u32]) {
        self.tangled += usize::from(!polygon::triangulate(corners, &self.vertices, &mut self.faces));
    }

    /// Makes room for more vertices and triangles. Scenes may place one object many times, so a small file may need more than memory holds.
    #[cfg(feature = "mesh-io")]
    fn reserve(&mut self, vertices: usize, faces: usize) -> Result<(), String> {
        let (vertices_then, faces_then) = (self.vertices.len() + vertices, self.faces.len().saturating_add(faces));
        if u32::try_from(vertices_then.max(faces_then)).is_err() {
            return Err("there are more than 2^32 vertices or triangles".into());
        }
        if vertices_then > self.vertices.capacity() || faces_then > self.faces.capacity() {
            // A vector that grows doubles, and both the old and the new one exist until the content has moved.
            let bytes = 3 * (size_of::<[f64; 3]>() * vertices_then + size_of::<[u32; 3]>() * faces_then);
            let what = || format!("a scene of {vertices_then} vertices and {faces_then} triangles");
            crate::memory::check("Mesh::load", what, bytes).map_err(|e| e.to_string())?;
            self.vertices.reserve(vertices);
            self.faces.reserve(faces);
        }
        Ok(())
    }
}

/// The mesh file formats; each is recognised by its file extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MeshFormat {
    /// Wavefront OBJ, for reading and writing.
    Obj,
    /// STL, for reading (binary or ASCII) and writing (binary). Corners at equal positions become one vertex.
    Stl,
    /// PLY, for reading (ASCII or binary of either byte order) and writing (binary little-endian).
    Ply,
    /// OFF (and COFF, NOFF, STOFF) in ASCII, for reading.
    Off,
    /// glTF 2.0, binary (`.glb`) or JSON (`.gltf`), for reading. The transforms of all scene nodes are applied.
    Gltf,
    /// 3MF, for reading. All items of the build are read.
    ThreeMf,
}

impl MeshFormat {
    const KNOWN: &str = "obj, stl, ply, off, glb, gltf, 3mf";

    /// The format for a file's extension, in lower or upper case, with or without `.gz` after it.
    ///
    /// # Errors
    /// [`Error::Unknown`] if the extension is none of `obj`, `stl`, `ply`, `off`, `glb`, `gltf`, `3mf`.
    ///
    /// ```
    /// use wavemesh::mesh::MeshFormat;
    /// assert_eq!(MeshFormat::from_path("scans/Bunny.OBJ.gz")?, MeshFormat::Obj);
    /// assert!(MeshFormat::from_path("bunny.fbx").is_err());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let extension =
            name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.').map_or("", |(_, extension)| extension);
        Ok(match extension {
            "obj" => Self::Obj,
            "stl" => Self::Stl,
            "ply" => Self::Ply,
            "off" => Self::Off,
            "glb" | "gltf" => Self::Gltf,
            "3mf" => Self::ThreeMf,
            _ => {
                let name = path.display().to_string();
                return Err(Error::Unknown { kind: "mesh file extension", name, known: Self::KNOWN.into() });
            }
        })
    }

    #[cfg(not(feature = "mesh-io"))]
    fn left_out(self) -> Error {
        let known = "OBJ, STL, PLY, OFF; for glTF, 3MF and gzip build WaveMesh with its feature `mesh-io`".into();
        Error::Unknown { kind: "mesh format", name: self.name().into(), known }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Obj => "OBJ",
            Self::Stl => "STL",
            Self::Ply => "PLY",
            Self::Off => "OFF",
            Self::Gltf => "glTF",
            Self::ThreeMf => "3MF",
        }
    }
}

impl FromStr for MeshFormat {
    type Err = Error;

    /// The format of a file extension such as `obj` or `glb`, in either case.
    fn from_str(extension: &str) -> Result<Self> {
        Self::from_path(format!("mesh.{extension}")).map_err(|_| Error::Unknown {
            kind: "mesh file extension",
            name: extension.into(),
            known: Self::KNOWN.into(),
        })
    }
}

impl fmt::Display for MeshFormat {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Mesh {
    /// Reads a mesh file: `obj`, `stl`, `ply`, `off`, `glb`, `gltf` or `3mf`, according to the extension, also compressed by gzip
    /// (`bunny.obj.gz`). Polygons are triangulated; normals, colours and materials are ignored.
    ///
    /// Readers are as forgiving as those of other programs. What they skip or mend is reported in a warning of one line and in
    /// [`Mesh::notes`]. Coordinates are read in double precision; if single precision would lose the shape, the mesh has an
    /// [offset](Mesh::offset).
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Unknown`] for another extension, and [`Error::Format`] with the place (line, byte
    /// or element) if the content breaks its format, has no triangle, a coordinate that is not finite, or an index out of range.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-load-example.obj");
    /// std::fs::write(&path, "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n").map_err(|error| Error::io(&path)(error))?;
    /// let mesh = Mesh::load(&path)?;
    /// assert_eq!(mesh.faces(), [[0, 1, 2]]);
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias = "read_triangle_mesh")]
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let format = MeshFormat::from_path(path)?;
        let kind = std::fs::metadata(path).map_err(Error::io(path))?;
        if !kind.is_file() {
            return Err(Error::io(path)(std::io::Error::other("not a regular file")));
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::parse(&bytes, format, path)
    }

    /// Reads a mesh from the content of a file of the given format.
    ///
    /// # Errors
    /// The errors of [`Mesh::load`], with the path `<bytes>`. A glTF with buffers in other files is an error too.
    ///
    /// ```
    /// use wavemesh::mesh::MeshFormat;
    /// use wavemesh::prelude::*;
    /// let mesh = Mesh::from_bytes(b"OFF 3 1 0  0 0 0  1 0 0  0 1 0  3 0 1 2", MeshFormat::Off)?;
    /// assert_eq!((mesh.vertices().len(), mesh.faces().len()), (3, 1));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_bytes(bytes: &[u8], format: MeshFormat) -> Result<Self> {
        Self::parse(bytes, format, Path::new("<bytes>"))
    }

    fn parse(bytes: &[u8], format: MeshFormat, path: &Path) -> Result<Self> {
        let raw = match format {
            #[cfg(feature = "mesh-io")]
            _ if bytes.starts_with(&GZIP) => return Self::parse(&unpacked(bytes, format, path)?, format, path),
            #[cfg(not(feature = "mesh-io"))]
            _ if bytes.starts_with(&GZIP) => return Err(format.left_out()),
            MeshFormat::Obj => obj::read(bytes),
            MeshFormat::Stl => stl::read(bytes),
            MeshFormat::Ply => ply::read(bytes),
            MeshFormat::Off => off::read(bytes),
            #[cfg(not(feature = "mesh-io"))]
            MeshFormat::Gltf | MeshFormat::ThreeMf => return Err(format.left_out()),
            #[cfg(feature = "mesh-io")]
            MeshFormat::Gltf => gltf::read(bytes, path.parent().filter(|_| path.is_file())),
            #[cfg(feature = "mesh-io")]
            MeshFormat::ThreeMf => three_mf::read(bytes),
        };
        let mesh = raw.and_then(|Raw { vertices, faces, mut notes, tangled }| {
            if tangled > 0 {
                notes.push(format!(
                    "split self-crossing polygons into fans of triangles: {}",
                    text::counted(tangled, "face")
                ));
            }
            Mesh::from_file(vertices, faces, notes).map_err(|problem| format!("the mesh is {problem}"))
        });
        let mesh =
            mesh.map_err(|problem| Error::Format { path: path.to_path_buf(), format: format.name(), problem })?;
        if !mesh.notes.is_empty() {
            log::warn!("{}: {}", path.display(), mesh.notes.join("; "));
        }
        Ok(mesh)
    }

    /// Writes the mesh as `obj`, `stl` (binary), `ply` (binary little-endian) or `glb`, according to the extension. The file is written
    /// completely or not at all. A mesh with an [offset](Mesh::offset) is written at its place, with as many digits as this needs (`stl` is
    /// then ASCII).
    ///
    /// # Errors
    /// [`Error::Unknown`] for another extension, [`Error::Io`] if the file cannot be written.
    ///
    /// ```
    /// use wavemesh::prelude::*;
    /// let path = std::env::temp_dir().join("wavemesh-save-example.ply");
    /// let mesh = shapes::sphere(0.5).to_mesh(16)?;
    /// mesh.save(&path)?;
    /// assert_eq!(Mesh::load(&path)?.faces().len(), mesh.faces().len());
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias("write_triangle_mesh", "export"))]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let unknown = || Error::Unknown {
            kind: "extension for writing a mesh",
            name: path.display().to_string(),
            known: "obj, stl, ply, glb".into(),
        };
        let format = MeshFormat::from_path(path)?;
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gltf")) {
            return Err(unknown());
        }
        let bytes = self.to_bytes(format).map_err(|error| match error {
            Error::Unknown { .. } => unknown(),
            other => other,
        })?;
        write_atomically(path, &bytes)
    }

    /// The content of a mesh file: OBJ, binary STL, binary PLY, or glTF as `.glb`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for OFF and 3MF, which can only be read.
    ///
    /// ```
    /// use wavemesh::mesh::MeshFormat;
    /// use wavemesh::prelude::*;
    /// let mesh = Mesh::new(vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], vec![[0, 1, 2]])?;
    /// assert!(mesh.to_bytes(MeshFormat::Obj)?.ends_with(b"f 1 2 3\n"));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_bytes(&self, format: MeshFormat) -> Result<Vec<u8>> {
        let write: fn(&Mesh, &mut Vec<u8>) -> std::io::Result<()> = match format {
            MeshFormat::Obj => obj::write,
            MeshFormat::Stl => stl::write,
            MeshFormat::Ply => ply::write,
            #[cfg(feature = "mesh-io")]
            MeshFormat::Gltf => gltf::write,
            #[cfg(not(feature = "mesh-io"))]
            MeshFormat::Gltf => return Err(format.left_out()),
            MeshFormat::Off | MeshFormat::ThreeMf => {
                let name = format.name().into();
                return Err(Error::Unknown {
                    kind: "format for writing a mesh",
                    name,
                    known: "OBJ, STL, PLY, glTF".into(),
                });
            }
        };
        let mut bytes = Vec::new();
        write(self, &mut bytes).map_err(Error::io("<bytes>"))?;
        Ok(bytes)
    }
}

/// The first bytes of a file compressed by gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The content of a file compressed by gzip.
#[cfg(feature = "mesh-io")]
fn unpacked(bytes: &[u8], format: MeshFormat, path: &Path) -> Result<Vec<u8>> {
    let content = inflated(flate2::read::MultiGzDecoder::new(bytes), bytes.len()).and_then(|content| {
        // Writers make one layer; more layers could be made to grow without limit.
        if content.starts_with(&GZIP) {
            Err("it is compressed twice; decompress it once by hand".into())
        } else {
            Ok(content)
        }
    });
    content.map_err(|problem| Error::Format { path: path.to_path_buf(), format: format.name(), problem })
}

/// How many bytes each compressed byte of a large file may become. Meshes reach about twenty; files made to waste time reach a thousand.
#[cfg(feature = "mesh-io")]
const MOST_INFLATED: usize = 200;

/// The decoder's whole output for `packed` bytes, read in steps, because a small file may expand to more than memory holds.
#[cfg(feature = "mesh-io")]
fn inflated(mut decoder: impl Read, packed: usize) -> Result<Vec<u8>, String> {
    let most = packed.saturating_mul(MOST_INFLATED).max(64 << 20);
    let mut content = Vec::new();
    let mut step = 1 << 20;
    loop {
        crate::memory::check("Mesh::load", || "a compressed file".into(), 2 * step).map_err(|e| e.to_string())?;
        let read = decoder.by_ref().take(step as u64).read_to_end(&mut content);
        let read = read.map_err(|e| format!("its compressed content is broken: {e}"))?;
        if content.len() > most {
            return Err(format!(
                "its {packed} compressed bytes hold more than {most}, which no mesh does; decompress it by hand"
            ));
        }
        if read < step {
            return Ok(content);
        }
        step = content.len();
    }
}

/// The number of decimals that distinguish neighbouring single-precision coordinates of the mesh, for text formats.
fn decimals(mesh: &Mesh) -> usize {
    let largest = mesh.vertices().iter().flatten().fold(0.0f32, |largest, c| largest.max(c.abs()));
    let step = f64::from(largest) * f64::from(f32::EPSILON) / 4.0;
    if step > 0.0 { (-step.log10()).ceil().clamp(0.0, 17.0) as usize } else { 0 }
}
