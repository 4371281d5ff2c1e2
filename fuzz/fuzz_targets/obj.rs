//! Any bytes, read as Obj: an error or a mesh, never a panic.
#![no_main]

use wavemesh::mesh::{Mesh, MeshFormat};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Mesh::from_bytes(bytes, MeshFormat::Obj);
});
