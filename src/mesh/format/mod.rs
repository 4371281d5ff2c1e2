//! Mesh files. A file of this folder knows one format and neither paths nor [`Error`]: it turns bytes into vertices
//! and triangles, or says what is wrong and where.
//!
//! No reader allocates more than a small multiple of the bytes it was given, whatever counts those bytes announce.

#[cfg(feature = "mesh-io")]
mod gltf;
mod obj;
mod off;
#[cfg(feature = "mesh-io")]
mod ply;
mod stl;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

#[cfg(feature = "mesh-io")]
pub(crate) use ply::check_count as check_ply_count;

use super::Mesh;
use crate::files::write_atomically;
use crate::{Error, Result};

/// What a reader yields before it is checked by `Mesh::checked`.
#[derive(Default)]
struct Raw {
    vertices: Vec<[f32; 3]>,
    faces: Vec<[u32; 3]>,
}

/// The mesh file formats, each known by its file extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshFormat {
    /// Wavefront OBJ: read and written.
    Obj,
    /// STL, binary or ASCII: read; written as binary. Corners at equal positions become one vertex.
    Stl,
    /// PLY, ASCII or binary of either byte order: read; written as binary little-endian.
    Ply,
    /// OFF (and COFF, NOFF, STOFF), ASCII: read.
    Off,
    /// glTF 2.0, binary (`.glb`) or JSON (`.gltf`): read, all scene nodes with their transforms applied.
    Gltf,
}

impl MeshFormat {
    const KNOWN: &str = "obj, stl, ply, off, glb, gltf";

    /// The format that a file's extension stands for, whatever its case.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the extension is none of `obj`, `stl`, `ply`, `off`, `glb`, `gltf`.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        Ok(match extension.as_str() {
            "obj" => Self::Obj,
            "stl" => Self::Stl,
            "ply" => Self::Ply,
            "off" => Self::Off,
            "glb" | "gltf" => Self::Gltf,
            _ => {
                let name = path.display().to_string();
                return Err(Error::Unknown { kind: "mesh file extension", name, known: Self::KNOWN.into() });
            }
        })
    }

    #[cfg(not(feature = "mesh-io"))]
    fn left_out(self) -> Error {
        let known = "OBJ, STL, OFF; for PLY and glTF build WaveMesh with its feature `mesh-io`".into();
        Error::Unknown { kind: "mesh format", name: self.name().into(), known }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Obj => "OBJ",
            Self::Stl => "STL",
            Self::Ply => "PLY",
            Self::Off => "OFF",
            Self::Gltf => "glTF",
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
    /// Reads a mesh file: `obj`, `stl`, `ply`, `off`, `glb` or `gltf`, told apart by the extension. Polygons are
    /// triangulated; normals, colours and materials are left aside.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Unknown`] for another extension, and [`Error::Format`]
    /// with the place (line, byte or element) when the content is not what its format asks for, has no triangle, a
    /// coordinate that is not finite, or an index out of range.
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
    /// As [`Mesh::load`]; the path of the error is `<bytes>`. A glTF that keeps its buffers in other files is one.
    pub fn from_bytes(bytes: &[u8], format: MeshFormat) -> Result<Self> {
        Self::parse(bytes, format, Path::new("<bytes>"))
    }

    fn parse(bytes: &[u8], format: MeshFormat, path: &Path) -> Result<Self> {
        let raw = match format {
            MeshFormat::Obj => obj::read(bytes),
            MeshFormat::Stl => stl::read(bytes),
            MeshFormat::Off => off::read(bytes),
            #[cfg(not(feature = "mesh-io"))]
            MeshFormat::Ply | MeshFormat::Gltf => return Err(format.left_out()),
            #[cfg(feature = "mesh-io")]
            MeshFormat::Ply => ply::read(bytes),
            #[cfg(feature = "mesh-io")]
            MeshFormat::Gltf => gltf::read(bytes, path.parent().filter(|_| path.is_file())),
        };
        raw.and_then(|raw| Mesh::checked(raw.vertices, raw.faces).map_err(|problem| format!("the mesh is {problem}")))
            .map_err(|problem| Error::Format { path: path.to_path_buf(), format: format.name(), problem })
    }

    /// Writes the mesh as `obj`, `stl` (binary), `ply` (binary little-endian) or `glb`, chosen by the extension. The file
    /// appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Unknown`] for another extension, [`Error::Io`] when the file cannot be written.
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
    /// [`Error::Unknown`] for OFF, which is only read.
    pub fn to_bytes(&self, format: MeshFormat) -> Result<Vec<u8>> {
        let write: fn(&Mesh, &mut Vec<u8>) -> std::io::Result<()> = match format {
            MeshFormat::Obj => obj::write,
            MeshFormat::Stl => stl::write,
            #[cfg(feature = "mesh-io")]
            MeshFormat::Ply => ply::write,
            #[cfg(feature = "mesh-io")]
            MeshFormat::Gltf => gltf::write,
            #[cfg(not(feature = "mesh-io"))]
            MeshFormat::Ply | MeshFormat::Gltf => return Err(format.left_out()),
            MeshFormat::Off => {
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
