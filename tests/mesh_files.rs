//! Every mesh format, whole and broken: a broken file is an error that names its path and place, never a panic.

use std::path::{Path, PathBuf};

use wavemesh::mesh::{Mesh, MeshFormat};
use wavemesh::sdf::shapes;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks/meshes").join(name)
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wavemesh-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_written_is_read_back() {
    let folder = Folder::new("formats");
    let mesh = Mesh::load(fixture("bunny.obj")).unwrap();
    for name in ["a.obj", "a.ply", "a.stl", "A.STL", "a.glb"] {
        let path = folder.0.join(name);
        mesh.save(&path).unwrap();
        let back = Mesh::load(&path).unwrap();
        assert!(back.is_watertight(), "{name}");
        assert_eq!((back.vertices().len(), back.faces().len()), (1839, 3674), "{name}");
        assert!((back.volume() - mesh.volume()).abs() < 1e-4 * mesh.volume(), "{name}");
    }
    assert_eq!(Mesh::load(folder.0.join("a.ply")).unwrap(), mesh);
    assert_eq!(Mesh::load(folder.0.join("a.glb")).unwrap(), mesh);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 5, "no temporary file is left");
    assert!(mesh.save(folder.0.join("a.gltf")).unwrap_err().to_string().contains("obj, stl, ply, glb"));
    assert!(mesh.save(folder.0.join("no/such/folder.obj")).is_err());
}

#[test]
fn a_file_that_is_not_there_is_named_with_the_folder_it_was_looked_for_in() {
    let said = Mesh::load("absent.obj").unwrap_err().to_string();
    let folder = std::env::current_dir().unwrap().display().to_string();
    assert!(said.starts_with("absent.obj: ") && said.contains(&folder), "{said}");
}

#[test]
fn the_gearwheel_is_closed() {
    let mesh = Mesh::load(fixture("gearwheel.bin.stl")).unwrap();
    assert_eq!(mesh.faces().len(), 2444);
    assert!(mesh.is_watertight());
}

const SQUARE_PLY: &str = "format ascii 1.0\ncomment made by hand\nelement vertex 4\nproperty float x\nproperty float y\nproperty double z\n\
    property uchar red\nelement face 1\nproperty list uchar int vertex_index\nend_header\n0 0 0 1\n1 0 0 1\n1 1 0 1\n0 1 0 1\n4 0 1 2 3\n";

#[test]
fn each_format_reads_a_square_as_two_triangles() {
    let obj = "o a\nv 0 0 0\nv 1 0 0\ng b\nv 1 1 0 0.5 0.5 0.5\nv 0 1 0\nvn 0 0 1\nf 1//1 2//1 \\\n 3//1 -1//1\n";
    let off = "OFF # square\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3 255 0 0\n";
    let stl = "solid\nfacet normal nan nan nan\n OUTER LOOP\nvertex 0 0 0\nvertex 1 0 0\nvertex 1 1 0\nendloop\nendfacet\n\
               facet normal 0 0 1\nouter loop\nvertex 0 0 -0\nvertex 1 1 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid\n";
    let ply = format!("ply\n{SQUARE_PLY}");
    let big: Vec<u8> = [
        &b"ply\nformat binary_big_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\nelement face 1\n\
           property list uchar uint vertex_indices\nend_header\n"[..],
        &[0., 0., 0., 1., 0., 0., 1., 1., 0., 0., 1., 0f32].iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<_>>(),
        &[4],
        &[0u32, 1, 2, 3].iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<_>>(),
    ]
    .concat();
    let cases: [(&[u8], MeshFormat); 5] = [
        (obj.as_bytes(), MeshFormat::Obj),
        (off.as_bytes(), MeshFormat::Off),
        (stl.as_bytes(), MeshFormat::Stl),
        (ply.as_bytes(), MeshFormat::Ply),
        (&big, MeshFormat::Ply),
    ];
    for (bytes, format) in cases {
        let mesh = Mesh::from_bytes(bytes, format).unwrap_or_else(|e| panic!("{format:?}: {e}"));
        assert_eq!((mesh.vertices().len(), mesh.faces().len()), (4, 2), "{format:?}");
        assert!((mesh.area() - 1.0).abs() < 1e-6 && mesh.face_normals() == [[0., 0., 1.]; 2], "{format:?}");
        assert_eq!(mesh.boundary_edges().len(), 4, "{format:?}");
    }
}

/// A glTF of one triangle under a node that doubles and shifts it.
fn triangle_gltf(buffer: &str, count: usize) -> String {
    format!(
        r#"{{"asset":{{"version":"2.0"}},"scene":0,"scenes":[{{"nodes":[0]}}],
        "nodes":[{{"children":[1],"translation":[1,0,0]}},{{"mesh":0,"scale":[2,2,2]}}],
        "meshes":[{{"primitives":[{{"attributes":{{"POSITION":0}},"indices":1}}]}}],
        "buffers":[{{"byteLength":44{buffer}}}],
        "bufferViews":[{{"buffer":0,"byteLength":36}},{{"buffer":0,"byteOffset":36,"byteLength":6}}],
        "accessors":[{{"bufferView":0,"componentType":5126,"count":{count},"type":"VEC3","min":[0,0,0],"max":[1,1,0]}},
                     {{"bufferView":1,"componentType":5123,"count":3,"type":"SCALAR"}}]}}"#
    )
}

fn triangle_buffer() -> Vec<u8> {
    let positions = [0., 0., 0., 1., 0., 0., 0., 1., 0f32].iter().flat_map(|v| v.to_le_bytes());
    positions.chain([0u16, 1, 2, 0].iter().flat_map(|v| v.to_le_bytes())).collect()
}

fn glb(json: &str) -> Vec<u8> {
    let json = format!("{json}{}", " ".repeat((4 - json.len() % 4) % 4));
    let bin = triangle_buffer();
    let word = |n: usize| (n as u32).to_le_bytes();
    [
        b"glTF",
        &word(2)[..],
        &word(12 + 8 + json.len() + 8 + bin.len()),
        &word(json.len()),
        b"JSON",
        json.as_bytes(),
        &word(bin.len()),
        b"BIN\0",
        &bin,
    ]
    .concat()
}

#[test]
fn gltf_moves_its_nodes_and_finds_its_buffers() {
    let wanted = [[1., 0., 0.], [3., 0., 0.], [1., 2., 0.]];
    assert_eq!(Mesh::from_bytes(&glb(&triangle_gltf("", 3)), MeshFormat::Gltf).unwrap().vertices(), wanted);
    let folder = Folder::new("gltf");
    std::fs::write(folder.0.join("t.bin"), triangle_buffer()).unwrap();
    std::fs::write(folder.0.join("t.gltf"), triangle_gltf(r#","uri":"t.bin""#, 3)).unwrap();
    assert_eq!(Mesh::load(folder.0.join("t.gltf")).unwrap().vertices(), wanted);
    // Not above its own folder.
    std::fs::write(folder.0.join("up.gltf"), triangle_gltf(r#","uri":"../t.bin""#, 3)).unwrap();
    assert!(Mesh::load(folder.0.join("up.gltf")).unwrap_err().to_string().contains("does not lie beside it"));
}

#[test]
fn concave_polygons_keep_their_area() {
    // An L of area 3, whose fan from the first corner would leave it.
    let l = "v 0 2 0\nv 0 0 0\nv 2 0 0\nv 2 1 0\nv 1 1 0\nv 1 2 0\nf 5 6 1 2 3 4\nv 9 9 9\n";
    for shift in 0..6 {
        let order: Vec<String> = (0..6).map(|i| ((i + shift) % 6 + 1).to_string()).collect();
        let text = l.replace("5 6 1 2 3 4", &order.join(" "));
        let mesh = Mesh::from_bytes(text.as_bytes(), MeshFormat::Obj).unwrap();
        assert_eq!(mesh.faces().len(), 4);
        assert!((mesh.area() - 3.0).abs() < 1e-6, "from corner {shift}: {}", mesh.area());
    }
}

#[test]
fn broken_files_say_what_and_where() {
    let head =
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nelement face";
    let rows = "property list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n";
    let ply = |faces: &str, row: &str| format!("{head} {faces}\n{rows}{row}");
    let mut long_stl = vec![b' '; 80];
    long_stl.extend(u32::MAX.to_le_bytes());
    let cases: Vec<(MeshFormat, Vec<u8>, &str)> = vec![
        (MeshFormat::Obj, b"".to_vec(), "without triangles"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\n".to_vec(), "without triangles"),
        (MeshFormat::Obj, b"v 0 0\n".to_vec(), "line 1"),
        (MeshFormat::Obj, b"v 0 0 0\nv nan 0 0\n".to_vec(), "line 2"),
        (MeshFormat::Obj, b"v 0 0 1e60\n".to_vec(), "not finite"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n".to_vec(), "line 4: vertex 4 does not exist"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n".to_vec(), "vertex 0"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 -2 -9223372036854775808\n".to_vec(), "line 4"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n".to_vec(), "three corners"),
        (MeshFormat::Stl, long_stl, "4294967295 triangles"),
        (MeshFormat::Stl, b"short".to_vec(), "too few"),
        (MeshFormat::Stl, b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nendfacet".to_vec(), "line 5"),
        (MeshFormat::Stl, b"solid a\nendsolid a\n".to_vec(), "without triangles"),
        (MeshFormat::Off, b"OFF\n4000000000 1 0\n0 0 0\n".to_vec(), "1 of 4000000000"),
        (MeshFormat::Off, b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4000000000 0 1 2\n".to_vec(), "line 6"),
        (MeshFormat::Off, b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n".to_vec(), "vertex 3 does not exist"),
        (MeshFormat::Off, b"PLY".to_vec(), "expected `OFF`"),
        (MeshFormat::Ply, b"".to_vec(), "PLY"),
        (MeshFormat::Ply, ply("1", "3 0 1 3\n").into_bytes(), "vertex 3 does not exist"),
        (MeshFormat::Ply, ply("1", "3 0 1 -1\n").into_bytes(), "does not exist"),
        (MeshFormat::Ply, ply("2", "3 0 1 2\n").into_bytes(), "face"),
        (MeshFormat::Ply, ply("4000000000", "3 0 1 2\n").into_bytes(), "4000000000 rows"),
        (
            MeshFormat::Ply,
            b"ply\nformat binary_little_endian 1.0\nelement nothing 4000000000\nend_header\n".to_vec(),
            "4000000000 rows",
        ),
        (MeshFormat::Gltf, b"{}".to_vec(), "glTF"),
        (MeshFormat::Gltf, b"glTF\x02\0\0\0\x0b\0\0\0".to_vec(), "announces 11 bytes"),
        (
            MeshFormat::Gltf,
            glb(&triangle_gltf("", 3).replace(r#""POSITION":0"#, r#""POSITION":9"#)),
            "mesh 0: accessor 9 does not exist; there are 2",
        ),
        (
            MeshFormat::Gltf,
            glb(&triangle_gltf("", 3).replace(r#""indices":1"#, r#""indices":0"#)),
            "accessor 0 is Vec3 of F32, expected Scalar",
        ),
        (MeshFormat::Gltf, glb(&triangle_gltf("", 4)), "accessor 0 (4 items) reaches outside"),
        (MeshFormat::Gltf, glb(&triangle_gltf("", usize::MAX / 2)), "reaches outside"),
        (MeshFormat::Gltf, glb(&triangle_gltf("", 3).replace(r#""mesh":0"#, r#""mesh":0,"children":[0]"#)), "tree"),
        (
            MeshFormat::Gltf,
            triangle_gltf(r#","uri":"data:application/octet-stream;base64,AAAA""#, 3).into_bytes(),
            "announces 44",
        ),
    ];
    for (format, bytes, says) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let message = match Mesh::from_bytes(&bytes, format) {
            Ok(mesh) => panic!("{format:?} {shown:?} was read as {mesh:?}"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(says), "{shown:?} gave `{message}`, which does not say `{says}`");
    }
    let missing = Mesh::load("no/such.obj").unwrap_err().to_string();
    assert!(missing.contains("no/such.obj"), "{missing}");
    assert!(Mesh::load("bunny.fbx").unwrap_err().to_string().contains("obj, stl, ply, off, glb"));
    assert!(Mesh::load(std::env::temp_dir().join("..")).is_err());
}

#[test]
fn cut_and_altered_files_never_panic() {
    let folder = Folder::new("altered");
    let mesh = shapes::torus(0.6, 0.2).to_mesh(10).unwrap();
    let mut seeds = vec![(MeshFormat::Gltf, glb(&triangle_gltf("", 3)))];
    for (format, name) in [(MeshFormat::Obj, "a.obj"), (MeshFormat::Stl, "a.stl"), (MeshFormat::Ply, "a.ply")] {
        mesh.save(folder.0.join(name)).unwrap();
        seeds.push((format, std::fs::read(folder.0.join(name)).unwrap()));
    }
    seeds.push((MeshFormat::Ply, format!("ply\n{SQUARE_PLY}").into_bytes()));
    seeds.push((MeshFormat::Off, b"OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n".to_vec()));
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for (format, seed) in &seeds {
        for _ in 0..400 {
            let mut bytes = seed[..seed.len() - random(seed.len())].to_vec();
            for _ in 0..random(6) {
                // Mostly the head, where the counts are.
                let reach = if random(3) > 0 { bytes.len().min(400) } else { bytes.len() };
                let at = random(reach.max(1)).min(bytes.len().saturating_sub(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [b'9', b' ', b'\n', b'-', 0, 255, b'e'][random(7)];
                }
            }
            refused += usize::from(Mesh::from_bytes(&bytes, *format).is_err());
        }
    }
    assert!(refused > 1000, "only {refused} of 2400 damaged files were refused");
}

/// The seeds of the fuzz targets (fuzz/README.md) are harmless.
#[test]
fn the_fuzz_corpus_never_panics() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut count = 0;
    for (name, format) in [
        ("obj", MeshFormat::Obj),
        ("stl", MeshFormat::Stl),
        ("ply", MeshFormat::Ply),
        ("off", MeshFormat::Off),
        ("gltf", MeshFormat::Gltf),
    ] {
        for entry in std::fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")) {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let _ = Mesh::from_bytes(&bytes, format);
            count += 1;
        }
    }
    assert!(count >= 25, "the corpus has only {count} files");
}
