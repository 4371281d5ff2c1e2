//! Every mesh format, with intact and broken files: a broken file gives an error with its path and place, never a panic.

mod folder;

use std::path::{Path, PathBuf};

use wavemesh::mesh::{Mesh, MeshFormat};
use wavemesh::sdf::{SdfGrid, shapes};

use folder::Folder;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks/meshes").join(name)
}

#[test]
fn what_is_written_is_read_back() {
    let folder = Folder::new("formats");
    let mesh = Mesh::load(fixture("bunny.obj")).unwrap();
    for name in ["a.obj", "a.ply", "a.stl", "A.STL", "a.glb"] {
        let path = folder.join(name);
        mesh.save(&path).unwrap();
        let back = Mesh::load(&path).unwrap();
        assert!(back.is_watertight(), "{name}");
        assert_eq!((back.vertices().len(), back.faces().len()), (1839, 3674), "{name}");
        assert!((back.volume() - mesh.volume()).abs() < 1e-4 * mesh.volume(), "{name}");
    }
    assert_eq!(Mesh::load(folder.join("a.ply")).unwrap(), mesh);
    assert_eq!(Mesh::load(folder.join("a.glb")).unwrap(), mesh);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 5, "no temporary file is left");
    assert!(mesh.save(folder.join("a.gltf")).unwrap_err().to_string().contains("obj, stl, ply, glb"));
    assert!(mesh.save(folder.join("no/such/folder.obj")).is_err());
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

/// A glTF of one triangle under a node that doubles its size and moves it.
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
    std::fs::write(folder.join("t.bin"), triangle_buffer()).unwrap();
    std::fs::write(folder.join("t.gltf"), triangle_gltf(r#","uri":"t.bin""#, 3)).unwrap();
    assert_eq!(Mesh::load(folder.join("t.gltf")).unwrap().vertices(), wanted);
    // Files above its own folder are not allowed.
    std::fs::write(folder.join("up.gltf"), triangle_gltf(r#","uri":"../t.bin""#, 3)).unwrap();
    assert!(Mesh::load(folder.join("up.gltf")).unwrap_err().to_string().contains("does not lie beside it"));
}

#[test]
fn concave_polygons_keep_their_area() {
    // An L of area 3; a fan from its first corner would leave the L.
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
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\n".to_vec(), "without triangles; a cloud of 3 points"),
        (MeshFormat::Obj, b"v 0 0\n".to_vec(), "line 1"),
        (
            MeshFormat::Obj,
            b"v 0 0 0\nv 1,5 0 0\n".to_vec(),
            "line 2: `1,5` is not a number; write decimals with a point",
        ),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv nan 0 0\nf 1 2 3\n".to_vec(), "not finite: vertex 2, of triangle 0"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1e60 0\nf 1 2 3\n".to_vec(), "too large for single precision"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n".to_vec(), "line 4: vertex 4 does not exist"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n".to_vec(), "vertex 0"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 -2 -9223372036854775808\n".to_vec(), "line 4"),
        (MeshFormat::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n".to_vec(), "without triangles"),
        (MeshFormat::Stl, long_stl, "4294967295 triangles"),
        (MeshFormat::Stl, b"short".to_vec(), "too few"),
        (MeshFormat::Stl, b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nendfacet".to_vec(), "line 5"),
        (MeshFormat::Stl, b"solid a\nendsolid a\n".to_vec(), "without triangles"),
        (MeshFormat::Off, b"OFF\n4000000000 1 0\n0 0 0\n".to_vec(), "1 of 4000000000"),
        (MeshFormat::Off, b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4000000000 0 1 2\n".to_vec(), "line 6"),
        (MeshFormat::Off, b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n".to_vec(), "vertex 3 does not exist"),
        (MeshFormat::Off, b"PLY".to_vec(), "expected `OFF`"),
        (MeshFormat::Off, b"OFF BINARY\n".to_vec(), "line 1: binary OFF is not supported"),
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
        (MeshFormat::Gltf, b"{\"asset\": {\"version\": \"1.0\"}}".to_vec(), "version 1.0"),
        (MeshFormat::Gltf, b"glTF\x02\0\0\0\x0b\0\0\0".to_vec(), "announces 11 bytes"),
        (
            MeshFormat::Gltf,
            glb(&triangle_gltf("", 3).replace(r#""POSITION":0"#, r#""POSITION":9"#)),
            "mesh 0, primitive 0: accessor 9 does not exist; there are 2",
        ),
        (
            MeshFormat::Gltf,
            glb(&triangle_gltf("", 3).replace(r#""indices":1"#, r#""indices":0"#)),
            "accessor 0 is VEC3, expected SCALAR",
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
        mesh.save(folder.join(name)).unwrap();
        seeds.push((format, std::fs::read(folder.join(name)).unwrap()));
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
                // Mostly changes the head of the file, which holds the counts.
                let reach = if random(3) > 0 { bytes.len().min(400) } else { bytes.len() };
                let at = random(reach.max(1)).min(bytes.len().saturating_sub(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [b'9', b' ', b'\n', b'-', 0, 255, b'e'][random(7)];
                }
            }
            refused += usize::from(Mesh::from_bytes(&bytes, *format).is_err());
        }
    }
    assert!(refused > 800, "only {refused} of 2400 damaged files were refused");
}

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/meshes").join(name)
}

fn loaded(name: &str) -> Mesh {
    Mesh::load(case(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn assert_cube(mesh: &Mesh, name: &str) {
    assert_eq!((mesh.faces().len(), mesh.is_watertight()), (12, true), "{name}: {mesh:?}");
    assert!((mesh.volume() - 1.0).abs() < 1e-6, "{name}: volume {}", mesh.volume());
    assert_eq!(mesh.bounds(), [[0.0; 3], [1.0; 3]], "{name}");
}

#[test]
fn odd_files_of_a_cube_are_a_cube() {
    for name in [
        "gltf_custom_attribute.gltf",
        "gltf_required_KHR_texture_transform.gltf",
        "gltf_texture_without_source.gltf",
        "gltf_uri_percent.gltf",
        "obj_faces_first.obj",
        "obj_stray_vertex.obj",
        "obj_two_corner_face.obj",
        "obj_utf8_bom_silent.obj",
        "off_lower.off",
        "ply_nan_unreferenced.ply",
        "stl_ascii_bom.stl",
        "stl_trailing.stl",
    ] {
        assert_cube(&loaded(name), name);
    }
}

#[test]
fn other_odd_files_have_their_right_values() {
    let tetrahedron = |name: &str, volume: f32| {
        let mesh = loaded(name);
        assert!(mesh.is_watertight() && (mesh.volume() - volume).abs() < 1e-6, "{name}: {mesh:?}");
    };
    tetrahedron("off_modelnet.off", 1.0 / 6.0);
    tetrahedron("ply_num_leading_dot.ply", 1.0 / 12.0);
    let strip = loaded("ply_tristrips.ply");
    assert_eq!(strip.faces().len(), 2);
    assert!((strip.area() - 1.0).abs() < 1e-6);
    assert!(strip.face_normals().iter().all(|n| *n == [0.0, 0.0, 1.0]), "a strip turns every other triangle");
    assert_eq!(loaded("gltf_sparse.gltf").bounds(), [[0.0; 3], [1.0, 1.0, 2.0]]);
    assert!(loaded("obj_unwelded.obj").weld(0.0).unwrap().is_watertight());
    assert_eq!(loaded("obj_plane.obj").boundary_edges().len(), 4);
    let degenerate = loaded("obj_degenerate.obj");
    assert_eq!((degenerate.faces().len(), degenerate.drop_degenerate().faces().len()), (15, 12));
    assert!(degenerate.is_closed() && (degenerate.volume() - 1.0).abs() < 1e-6);
}

#[test]
fn what_a_reader_skips_is_in_the_notes() {
    assert_eq!(loaded("obj_two_corner_face.obj").notes(), ["skipped 1 face with fewer than three corners"]);
    assert_eq!(loaded("stl_trailing.stl").notes(), ["left out 4 bytes behind the last triangle"]);
    assert_eq!(loaded("ply_nan_unreferenced.ply").notes(), ["left out 1 unused vertex without a finite position"]);
    assert!(loaded("off_lower.off").notes().is_empty());
}

/// Each format's cube, changed in ways that common readers accept.
#[test]
fn relatives_of_the_odd_files_are_read() {
    let text = |name: &str| std::fs::read_to_string(case(name)).unwrap();
    let utf16 = |text: &str| -> Vec<u8> {
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let (obj, off, stl) = (text("obj_faces_first.obj"), text("off_lower.off"), text("stl_ascii_bom.stl"));
    let ply = text("ply_nan_unreferenced.ply").replace("nan nan nan", "-1.#IND 1.#QNAN nan");
    let stl = stl.trim_start_matches('\u{feff}');
    let (head, body) = ply.split_once("end_header\n").unwrap();
    let mut streamed = std::fs::read(case("stl_trailing.stl")).unwrap();
    streamed.truncate(84 + 12 * 50);
    streamed[80..84].fill(0);
    let mut named = streamed.clone();
    named[80..84].copy_from_slice(&12u32.to_le_bytes());
    named[..6].copy_from_slice(b"solid ");
    let gz = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(obj.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let gltf = text("gltf_custom_attribute.gltf");
    let cases: Vec<(&str, MeshFormat, Vec<u8>)> = vec![
        ("OBJ in UTF-16", MeshFormat::Obj, utf16(&obj)),
        ("OBJ with CR", MeshFormat::Obj, obj.replace('\n', "\r").into()),
        ("OBJ with CRLF", MeshFormat::Obj, obj.replace('\n', "\r\n").into()),
        ("OBJ with points and lines", MeshFormat::Obj, format!("p 1\nl 1 2\nf 1\n{obj}").into()),
        ("OBJ of numbers as C writes them", MeshFormat::Obj, obj.replace("v 1 ", "v +1.e0 ").into()),
        ("OBJ in gzip", MeshFormat::Obj, gz),
        ("STL on one line", MeshFormat::Stl, stl.replace('\n', " ").into()),
        ("STL in UTF-16", MeshFormat::Stl, utf16(stl)),
        ("STL of a name with words", MeshFormat::Stl, stl.replacen("solid x", "solid my vertex 1 2 3", 1).into()),
        ("STL without a count", MeshFormat::Stl, streamed),
        ("binary STL that begins with solid", MeshFormat::Stl, named),
        ("PLY with blank lines", MeshFormat::Ply, format!("{head}end_header\n\n{}", body.replace('\n', "\n\n")).into()),
        ("PLY on one line", MeshFormat::Ply, format!("{head}end_header\n{}", body.replace('\n', " ")).into()),
        ("PLY with CRLF", MeshFormat::Ply, ply.replace('\n', "\r\n").into()),
        ("PLY with a byte order mark", MeshFormat::Ply, format!("\u{feff}{ply}").into()),
        ("PLY in capitals", MeshFormat::Ply, ply.replacen("ply", "PLY", 1).into()),
        ("PLY with a short face", MeshFormat::Ply, format!("{}2 0 1\n", ply.replace("face 12", "face 13")).into()),
        ("OFF without a keyword", MeshFormat::Off, off.replacen("off\n", "", 1).into()),
        ("OFF on two lines", MeshFormat::Off, off.replacen("off\n", "OFF ", 1).replace('\n', " ").into()),
        ("OFF with colours", MeshFormat::Off, off.replace(" 2\n", " 2 0.5 0.5 0.5\n").into()),
        ("OFF with its counts glued on", MeshFormat::Off, off.replacen("off\n", "OFF", 1).into()),
        (
            "glTF without a scene",
            MeshFormat::Gltf,
            gltf.replace(r#""scene": 0, "scenes": [{"nodes": [0]}], "#, "").into(),
        ),
        ("glTF without bounds", MeshFormat::Gltf, gltf.replace(r#", "min": [0, 0, 0], "max": [1, 1, 1]"#, "").into()),
        (
            "glTF of a material that is wrong",
            MeshFormat::Gltf,
            gltf.replacen('{', r#"{"materials": [{"alphaMode": 7}], "#, 1).into(),
        ),
        ("glTF with zeros behind", MeshFormat::Gltf, format!("{gltf}\0\0").into()),
    ];
    for (name, format, bytes) in cases {
        let mesh = Mesh::from_bytes(&bytes, format).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_cube(&mesh, name);
    }
}

/// A cube with quantized positions: corners at 0 and 255, which a node scales back.
fn quantized_gltf(nodes: &str, extra: &str) -> String {
    use base64::Engine;
    let corners: Vec<u8> =
        (0..8u8).flat_map(|i| [i >> 2 & 1, i >> 1 & 1, i & 1, 0].map(|bit| if bit == 1 { 255 } else { 0 })).collect();
    let faces: [u8; 36] =
        [0, 1, 3, 0, 3, 2, 4, 6, 7, 4, 7, 5, 0, 4, 5, 0, 5, 1, 2, 3, 7, 2, 7, 6, 0, 2, 6, 0, 6, 4, 1, 5, 7, 1, 7, 3];
    let offsets: Vec<u8> = [0f32, 0., 0., 5., 0., 0.].iter().flat_map(|v| v.to_le_bytes()).collect();
    let data = base64::engine::general_purpose::STANDARD.encode([&corners[..], &faces, &offsets].concat());
    format!(
        r#"{{"asset":{{"version":"2.0"}},"nodes":[{nodes}],"meshes":[{{"primitives":[{{"attributes":{{"POSITION":0}},"indices":1{extra}}}]}}],
        "extensionsRequired":["KHR_mesh_quantization"],"buffers":[{{"byteLength":92,"uri":"data:;base64,{data}"}}],
        "bufferViews":[{{"buffer":0,"byteLength":32,"byteStride":4}},{{"buffer":0,"byteOffset":32,"byteLength":36}},{{"buffer":0,"byteOffset":68,"byteLength":24}}],
        "accessors":[{{"bufferView":0,"componentType":5121,"normalized":true,"count":8,"type":"VEC3"}},
                     {{"bufferView":1,"componentType":5121,"count":36,"type":"SCALAR"}},
                     {{"bufferView":2,"componentType":5126,"count":2,"type":"VEC3"}}]}}"#
    )
}

#[test]
fn gltf_extensions_of_geometry_are_read_or_named() {
    let read = |text: String| Mesh::from_bytes(text.as_bytes(), MeshFormat::Gltf);
    assert_cube(&read(quantized_gltf(r#"{"mesh":0}"#, "")).unwrap(), "quantized positions");
    let instances = r#"{"mesh":0,"extensions":{"EXT_mesh_gpu_instancing":{"attributes":{"TRANSLATION":2}}}}"#;
    let two = read(quantized_gltf(instances, "")).unwrap();
    assert_eq!((two.faces().len(), two.bounds()), (24, [[0.0; 3], [6.0, 1.0, 1.0]]));
    assert!((two.volume() - 2.0).abs() < 1e-6);
    // A node's mirror turns triangles over; numbers beyond single precision are added in double precision.
    let far = r#"{"mesh":0,"scale":[-1,1,1],"translation":[4684683.676571,0,0]}"#;
    let far = read(quantized_gltf(far, "")).unwrap();
    assert!((far.volume() - 1.0).abs() < 1e-6 && far.offset()[0] > 4e6, "{far:?} {:?}", far.offset());
    let draco = r#","extensions":{"KHR_draco_mesh_compression":{"bufferView":0,"attributes":{"POSITION":0}}}"#;
    let without = quantized_gltf(r#"{"mesh":0}"#, draco);
    assert_cube(&read(without.clone()).unwrap(), "a file with a fallback beside Draco");
    let said =
        read(without.replacen(r#"{"bufferView":0,"componentType":5121"#, r#"{"componentType":5121"#, 1)).unwrap_err();
    assert!(said.to_string().contains("KHR_draco_mesh_compression; open the file in Blender"), "{said}");
    let packed = quantized_gltf(r#"{"mesh":0}"#, "").replacen(
        r#""byteStride":4"#,
        r#""extensions":{"EXT_meshopt_compression":{}}"#,
        1,
    );
    let said = read(packed).unwrap_err().to_string();
    assert!(said.contains("EXT_meshopt_compression; open the file in Blender") && !said.contains('\n'), "{said}");
    let vendor = quantized_gltf(r#"{"mesh":0}"#, "").replace("KHR_mesh_quantization", "ACME_folding");
    assert_eq!(read(vendor).unwrap().notes(), ["ignored the required extension ACME_folding"]);
}

/// An archive of files, stored or deflated.
fn zip(files: &[(&str, &str)], deflate: bool) -> Vec<u8> {
    use std::io::Write;
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        let packed = if deflate { encoder.finish().unwrap() } else { text.as_bytes().to_vec() };
        let half = |n: usize| (n as u16).to_le_bytes();
        let word = |n: usize| (n as u32).to_le_bytes();
        let method = half(if deflate { 8 } else { 0 });
        // Versions and flags, the method, times and checksum (which nobody reads), sizes, and the lengths of the name and the extra field.
        let sizes = [word(packed.len()), word(text.len())].concat();
        let head = [&half(20)[..], &half(0), &method, &[0; 8], &sizes, &half(name.len()), &half(0)].concat();
        let offset = out.len();
        out.extend([&b"PK\x03\x04"[..], &head, name.as_bytes(), &packed].concat());
        directory.extend([&b"PK\x01\x02"[..], &half(20), &head, &[0; 10], &word(offset), name.as_bytes()].concat());
    }
    let end = [(files.len() as u16).to_le_bytes(), (files.len() as u16).to_le_bytes()].concat();
    let places = [(directory.len() as u32).to_le_bytes(), (out.len() as u32).to_le_bytes()].concat();
    [out, directory, [&b"PK\x05\x06"[..], &[0; 4], &end, &places, &[0; 2]].concat()].concat()
}

#[test]
fn a_3mf_is_read_with_its_components_where_its_build_has_them() {
    let obj = std::fs::read_to_string(case("obj_faces_first.obj")).unwrap();
    let (mut vertices, mut triangles) = (String::new(), String::new());
    for line in obj.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words[i].parse::<u32>().unwrap() - 1;
        match words[0] {
            "v" => vertices += &format!("<vertex x='{}' y=\"{}\" z = \"{}\" />\n", words[1], words[2], words[3]),
            _ => {
                triangles +=
                    &format!("<triangle v1=\"{}\" v2=\"{}\" v3=\"{}\" pid=\"9\"/>", number(1), number(2), number(3))
            }
        }
    }
    let part = format!(
        "<?xml version=\"1.0\"?><!-- <object id=\"7\"> --><model unit=\"millimeter\" xmlns=\"http://schemas.microsoft.com/3dmanufacturing/core/2015/02\">\
         <resources><object id=\"1\" type=\"model\"><mesh><vertices>{vertices}</vertices><triangles>{triangles}</triangles></mesh></object></resources><build/></model>"
    );
    let main = "<model><resources><object id=\"2\"><components><component p:path=\"/3D/part.model\" objectid=\"1\"/>\
        <component p:path=\"/3D/part.model\" objectid=\"1\" transform=\"-2 0 0 0 1 0 0 0 1 5 0 0\"/></components></object></resources>\
        <build><item objectid=\"2\" transform=\"1 0 0 0 1 0 0 0 1 10 0 0\"/></build></model>";
    for deflate in [false, true] {
        let bytes =
            zip(&[("[Content_Types].xml", "<Types/>"), ("3D/3dmodel.model", main), ("3D/part.model", &part)], deflate);
        let mesh = Mesh::from_bytes(&bytes, MeshFormat::ThreeMf).unwrap();
        assert_eq!((mesh.faces().len(), mesh.bounds()), (24, [[10.0, 0.0, 0.0], [15.0, 1.0, 1.0]]));
        assert!(mesh.is_watertight() && (mesh.volume() - 3.0).abs() < 1e-5, "{}", mesh.volume());
        // Broken at every byte, and cut at every place: never a panic.
        for at in (0..bytes.len()).step_by(7) {
            let _ = Mesh::from_bytes(&bytes[..at], MeshFormat::ThreeMf);
            let mut broken = bytes.clone();
            broken[at] ^= 0x55;
            let _ = Mesh::from_bytes(&broken, MeshFormat::ThreeMf);
        }
    }
    let said = |main: &str| {
        let bytes = zip(&[("3D/3dmodel.model", main), ("3D/part.model", &part)], false);
        Mesh::from_bytes(&bytes, MeshFormat::ThreeMf).unwrap_err().to_string()
    };
    assert!(
        said(&main.replace("objectid=\"1\"", "objectid=\"4\"")).contains("object 4 of 3D/part.model does not exist")
    );
    assert!(said(&main.replace("-2 0 0", "-2 0")).contains("11 numbers, expected 12"));
    assert!(said("<model/>").contains("without triangles"));
    let inside_itself = "<object id=\"2\"><component objectid=\"2\"/></object><build><item objectid=\"2\"/></build>";
    assert!(said(inside_itself).contains("in itself"));
    assert!(Mesh::from_bytes(b"PK", MeshFormat::ThreeMf).unwrap_err().to_string().contains("no directory"));
}

#[test]
fn a_small_part_at_large_coordinates_keeps_its_shape_and_its_place() {
    let folder = Folder::new("far");
    let mesh = loaded("obj_huge.obj");
    assert!((mesh.volume() - 0.125).abs() < 1e-6, "volume {}", mesh.volume());
    let corner = [2487002.881739, -4684683.676571, 3529638.983539];
    let nearest = |mesh: &Mesh| {
        let away = |p: [f64; 3]| (0..3).map(|i| (p[i] - corner[i]).abs()).fold(0.0, f64::max);
        mesh.positions().map(away).fold(f64::INFINITY, f64::min)
    };
    assert!(nearest(&mesh) < 1e-7, "a corner of the file is {} away", nearest(&mesh));
    for name in ["a.obj", "a.ply", "a.stl", "a.glb"] {
        mesh.save(folder.join(name)).unwrap();
        let back = Mesh::load(folder.join(name)).unwrap();
        assert!((back.volume() - 0.125).abs() < 1e-6 && nearest(&back) < 1e-7, "{name}: {back:?}");
    }
    // Results made from the mesh lie at its original place.
    let surface = SdfGrid::from_mesh(&mesh, 32).unwrap().to_mesh().unwrap();
    assert!((surface.volume() - 0.125).abs() < 0.01 && nearest(&surface) < 0.05, "{surface:?}");
    // A mesh near its file's origin has no offset, and neither has one whose numbers fit single precision.
    assert_eq!(loaded("obj_degenerate.obj").offset(), [0.0; 3]);
    let exact = b"v 1048576 0 0\nv 1048577 0 0\nv 1048576 1 0\nf 1 2 3\n";
    assert_eq!(Mesh::from_bytes(exact, MeshFormat::Obj).unwrap().offset(), [0.0; 3]);
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
        ("three_mf", MeshFormat::ThreeMf),
    ] {
        for entry in std::fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")) {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let _ = Mesh::from_bytes(&bytes, format);
            count += 1;
        }
    }
    assert!(count >= 25, "the corpus has only {count} files");
}
