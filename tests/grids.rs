//! Grids of real files and their problems: stray vertices, sheets, double sides, overlapping parts, thin walls, and not enough memory.

use std::path::Path;

use wavemesh::Error;
use wavemesh::mesh::{Axis, Mesh, MeshReport};
use wavemesh::sdf::{
    DistanceQuery, IsosurfaceConfig, IsosurfaceMethod, SdfConfig, SdfGrid, SdfSign, isosurface, shapes,
};

fn case(name: &str) -> Mesh {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/meshes").join(name);
    Mesh::load(path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn joined(parts: &[&Mesh]) -> Mesh {
    let (mut vertices, mut faces) = (Vec::new(), Vec::new());
    for part in parts {
        let first = vertices.len() as u32;
        vertices.extend_from_slice(part.vertices());
        faces.extend(part.faces().iter().map(|f| f.map(|v| v + first)));
    }
    Mesh::new(vertices, faces).unwrap()
}

fn turned_over(mesh: &Mesh) -> Mesh {
    Mesh::new(mesh.vertices().to_vec(), mesh.faces().iter().map(|&[a, b, c]| [a, c, b]).collect()).unwrap()
}

fn inside(grid: &SdfGrid) -> usize {
    grid.values().iter().filter(|&&v| v < 0.0).count()
}

#[test]
fn a_grid_is_framed_by_the_vertices_in_use() {
    let (stray, plain) = (case("obj_stray_vertex.obj"), case("obj_faces_first.obj"));
    let [stray, plain] = [stray, plain].map(|mesh| SdfGrid::from_mesh(&mesh, 32).unwrap());
    assert_eq!(stray, plain);
    assert!(plain.notes().is_empty(), "{:?}", plain.notes());
}

#[test]
fn a_mesh_says_what_is_wrong_with_it_and_repair_mends_it() {
    let sphere = shapes::sphere(0.7).to_mesh(20).unwrap();
    assert!(sphere.check().is_clean() && sphere.check().faults().is_empty());
    let cases = [
        ("obj_stray_vertex.obj", MeshReport { unused_vertices: 1, ..Default::default() }),
        ("obj_unwelded.obj", MeshReport { repeated_vertices: 28, ..Default::default() }),
        ("obj_degenerate.obj", MeshReport { degenerate_faces: 3, ..Default::default() }),
        ("obj_double_sided.obj", MeshReport { duplicate_faces: 12, ..Default::default() }),
        ("obj_plane.obj", MeshReport { boundary_edges: 4, ..Default::default() }),
    ];
    for (name, wanted) in cases {
        let mesh = case(name);
        assert_eq!(mesh.check(), wanted, "{name}");
        let (mended, report) = mesh.repair().unwrap();
        let open = wanted.boundary_edges > 0;
        assert_eq!(report.left, if open { wanted } else { MeshReport::default() }, "{name}: {report}");
        assert_eq!(mended.is_watertight(), !open, "{name}");
        assert!(open || (mended.volume() - 1.0).abs() < 1e-6, "{name}: {}", mended.volume());
    }
    // A soup of triangles with a third of them turned over: all face outwards again.
    let soup: Vec<[f32; 3]> = (0..sphere.faces().len()).flat_map(|f| sphere.triangle(f)).collect();
    let faces = (0..soup.len() as u32 / 3)
        .map(|f| if f % 3 == 0 { [3 * f, 3 * f + 2, 3 * f + 1] } else { [3 * f, 3 * f + 1, 3 * f + 2] });
    let soup = Mesh::new(soup.clone(), faces.collect()).unwrap();
    assert!(soup.check().turned_edges > 0);
    let (mended, report) = soup.repair().unwrap();
    assert!(mended.is_watertight() && (mended.volume() - sphere.volume()).abs() < 1e-5);
    assert_eq!(report.turned, sphere.faces().len().div_ceil(3), "{report}");
    // A mesh that is inside out is turned over; a hollow stays hollow.
    let hole = turned_over(&shapes::sphere(0.3).to_mesh(20).unwrap());
    let hollow = joined(&[&sphere, &hole]);
    assert_eq!(hollow.repair().unwrap().1.turned, 0);
    let (mended, _) = turned_over(&hollow).repair().unwrap();
    assert!((mended.volume() - hollow.volume()).abs() < 1e-5, "{} and {}", mended.volume(), hollow.volume());
    let nothing = Mesh::new(vec![[0.0; 3]], vec![[0, 0, 0]]).unwrap();
    assert!(nothing.repair().unwrap_err().to_string().contains("without area"));
}

#[test]
fn welding_joins_what_is_within_its_tolerance() {
    // A torn strip: two triangles whose shared corners differ by 1e-5.
    let corners = vec![[0., 0., 0.], [1., 0., 0.], [0., 1., 0.], [1. + 1e-5, 0., 0.], [1., 1., 0.], [-1e-5, 1., 0.]];
    let torn = Mesh::new(corners, vec![[0, 1, 2], [3, 4, 5]]).unwrap();
    assert_eq!(torn.weld(0.0).unwrap().vertices().len(), 6);
    assert_eq!(torn.weld(1e-6).unwrap().vertices().len(), 6);
    let welded = torn.weld(1e-4).unwrap();
    assert_eq!((welded.vertices().len(), welded.boundary_edges().len()), (4, 4));
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        assert!(torn.weld(bad).unwrap_err().to_string().contains("tolerance"));
    }
    // A tolerance that is tiny compared with the mesh's size joins equal positions only.
    assert_eq!(torn.weld(f32::MIN_POSITIVE).unwrap().vertices().len(), 6);
}

#[test]
fn what_has_no_inside_is_measured_without_a_sign_or_as_a_shell() {
    for name in ["obj_plane.obj", "obj_double_sided.obj"] {
        let mesh = case(name);
        let signed = SdfGrid::from_mesh(&mesh, 33).unwrap();
        assert_eq!(inside(&signed), 0, "{name}");
        let note = signed.notes().join(" ");
        assert!(note.contains("no sample is inside") && note.contains("Thickened"), "{name}: {note}");
        let with = |sign| SdfGrid::from_mesh_with(&mesh, &SdfConfig::new().shape([48; 3]).sign(sign));
        let unsigned = with(SdfSign::Unsigned).unwrap();
        assert!(unsigned.values().iter().all(|&v| v >= 0.0) && unsigned.sign_report().is_none());
        let radius = 0.1;
        let shell = with(SdfSign::Thickened { radius }).unwrap().to_mesh().unwrap();
        assert!(shell.is_watertight(), "{name}");
        let [lo, hi] = shell.bounds();
        assert!((hi[0] - 1.0 - radius).abs() < 0.01 && (lo[0] + radius).abs() < 0.01, "{name}: {lo:?} to {hi:?}");
        let thin = with(SdfSign::Thickened { radius: 1e-3 }).unwrap();
        assert!(thin.notes()[0].contains("less than a cell"), "{name}: {:?}", thin.notes());
        for radius in [0.0, -1.0, f32::NAN] {
            assert!(with(SdfSign::Thickened { radius }).unwrap_err().to_string().contains("radius"));
        }
    }
    // A sheet in the xy-plane: the shell's distance is the sheet's minus the radius.
    let sign = SdfSign::Thickened { radius: 0.125 };
    let config = SdfConfig::new().shape([17; 3]).bounds([[-0.5; 3], [1.5; 3]]).sign(sign);
    let grid = SdfGrid::from_mesh_with(&case("obj_plane.obj"), &config).unwrap();
    let above = grid.values()[(8 * 17 + 8) * 17 + 8]; // sample at (0.5, 0.5, 0.5)
    assert!((above - (0.5 - 0.125)).abs() < 1e-6, "{above}");
}

#[test]
fn walls_that_are_too_thin_are_said_with_the_resolution_that_shows_them() {
    // The wall is two hundredths thick; a cell of a grid of 32 is 0.057 wide.
    let cube = case("obj_faces_first.obj");
    let plate = cube.map_vertices(|[x, y, z]| [1.6 * x, 1.6 * y, 0.02 * z]).unwrap();
    let coarse = SdfGrid::from_mesh(&plate, 32).unwrap();
    let thin = coarse.sign_report().unwrap().thin.expect("the plate is thin");
    assert!(thin.share > 0.8 && (thin.thickness - 0.02).abs() < 1e-4, "{thin:?}");
    assert!(coarse.notes()[0].contains(&format!("a resolution of {}", thin.resolution)), "{:?}", coarse.notes());
    let fine = SdfGrid::from_mesh(&plate, thin.resolution + 4).unwrap();
    assert!(fine.sign_report().unwrap().thin.is_none() && fine.notes().is_empty(), "{:?}", fine.notes());
    let shown = fine.to_mesh().unwrap();
    assert!((shown.volume() / plate.volume() - 1.0).abs() < 0.1, "{} and {}", shown.volume(), plate.volume());
    // Neither a solid nor a wedge has thin walls.
    for mesh in [cube, shapes::sphere(0.7).to_mesh(24).unwrap(), shapes::cone(0.6, 0.7).to_mesh(48).unwrap()] {
        assert!(SdfGrid::from_mesh(&mesh, 32).unwrap().notes().is_empty());
    }
}

#[test]
fn a_union_has_the_distances_of_its_outer_surface() {
    let ball = |x: f32| shapes::sphere(0.5).to_mesh(40).unwrap().map_vertices(|p| [p[0] + x, p[1], p[2]]).unwrap();
    let inner = shapes::sphere(0.2).to_mesh(24).unwrap();
    let mesh = joined(&[&ball(-0.3), &ball(0.3), &inner]);
    let bounds = [[-1.0; 3], [1.0; 3]];
    let grid =
        |union| SdfGrid::from_mesh_with(&mesh, &SdfConfig::new().shape([33; 3]).bounds(bounds).union(union)).unwrap();
    let (walls, union) = (grid(false), grid(true));
    let exact = |[x, y, z]: [f32; 3]| {
        let to = |c: f32| (x - c).hypot(y).hypot(z) - 0.5;
        // Inside, the surface of the union is nearest on a ball's part outside the other, or on the ring where they meet.
        let ring = ((y.hypot(z) - 0.4).powi(2) + x * x).sqrt();
        let nearest = [(-0.3, to(-0.3)), (0.3, to(0.3))].into_iter().map(|(c, d)| {
            let length = (x - c).hypot(y).hypot(z).max(1e-9);
            let foot = c + (x - c) / length * 0.5;
            if foot * c >= 0.0 { d.abs() } else { ring }
        });
        let away = nearest.fold(f32::INFINITY, f32::min);
        if to(-0.3) < 0.0 || to(0.3) < 0.0 { -away } else { away }
    };
    let worst = |grid: &SdfGrid| {
        let at = |i: usize| grid.position([i / (33 * 33), i / 33 % 33, i % 33]);
        grid.values().iter().enumerate().map(|(i, v)| (v - exact(at(i))).abs()).fold(0.0, f32::max)
    };
    // Half a cell is 0.03; the polygons of the balls lie within 0.003 of them.
    assert!(worst(&union) < 0.035, "{}", worst(&union));
    assert!(worst(&walls) > 0.1, "the walls within are seen without `union`: {}", worst(&walls));
    assert_eq!(inside(&union), inside(&walls));
    let refused = SdfConfig::new().sign(SdfSign::Unsigned).union(true);
    assert!(SdfGrid::from_mesh_with(&mesh, &refused).unwrap_err().to_string().contains("union"));
}

/// Runs the same test again in a process with at most 5 GB of address space.
#[test]
#[cfg(unix)]
fn what_memory_has_no_room_for_is_an_error_and_no_abort() {
    use candle_core::{DType, Device, Tensor};
    use wavemesh::sparse::SparseConvTensor;
    const LIMITED: &str = "WAVEMESH_TEST_LIMITED";
    if std::env::var_os(LIMITED).is_none() {
        let run = std::process::Command::new("sh")
            .args([
                "-c",
                "ulimit -v 5000000 && exec \"$0\" --exact what_memory_has_no_room_for_is_an_error_and_no_abort",
            ])
            .arg(std::env::current_exe().unwrap())
            .env(LIMITED, "1")
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
        return;
    }
    let needs = |error: Error, bytes: u64| {
        assert!(matches!(error, Error::Memory { needed, .. } if needed >= bytes), "{error}");
    };
    let samples = 4 * 1200u64.pow(3);
    let cube = case("obj_faces_first.obj");
    needs(SdfGrid::from_mesh(&cube, 1200).unwrap_err(), samples);
    // In slabs there is enough room.
    let config = SdfConfig::new().shape([1200; 3]);
    let slab = SdfGrid::slabs(&cube, &config, 3).unwrap().next().unwrap().unwrap();
    assert_eq!(slab.shape(), [3, 1200, 1200]);
    needs(SdfGrid::from_fn([1200; 3], |_| 0.0).unwrap_err(), samples);
    let ones = Tensor::ones((1, 8), DType::F32, &Device::Cpu).unwrap();
    let x = SparseConvTensor::from_coords(ones, vec![[0, 5, 5, 5]], [600; 3], 1).unwrap();
    needs(x.dense().unwrap_err(), 8 * 4 * 600u64.pow(3));
}

#[test]
fn slabs_are_the_grid_in_parts() {
    let mesh = shapes::torus(0.6, 0.25).to_mesh(24).unwrap();
    let open = Mesh::new(mesh.vertices().to_vec(), mesh.faces()[..1000].to_vec()).unwrap();
    let thick = SdfConfig::new().shape([33, 20, 24]).sign(SdfSign::Thickened { radius: 0.1 });
    let clamped = SdfConfig::new().shape([33, 20, 24]).truncation(0.2);
    for (mesh, config) in [(&mesh, clamped.clone()), (&open, clamped), (&open, thick)] {
        let whole = SdfGrid::from_mesh_with(mesh, &config).unwrap();
        let slice = 20 * 24;
        for slices in [2, 5, 8, 100] {
            let mut at = 0;
            for slab in SdfGrid::slabs(mesh, &config, slices).unwrap() {
                let slab = slab.unwrap();
                let place = whole.position([at, 0, 0]);
                assert!((slab.origin()[0] - place[0]).abs() < 1e-6 && slab.spacing() == whole.spacing());
                for (a, b) in slab.values().iter().zip(&whole.values()[at * slice..]) {
                    assert!((a - b).abs() < 1e-6, "{a} and {b} with {slices} slices");
                }
                assert!(slab.shape()[0] <= slices);
                at += slab.shape()[0] - 1;
            }
            assert_eq!(at, 32, "{slices} slices");
        }
    }
    let error = SdfGrid::slabs(&mesh, &SdfConfig::default(), 1).unwrap_err().to_string();
    assert!(error.contains("at least 2"), "{error}");
}

#[test]
fn a_grid_of_more_samples_than_can_be_numbered_is_an_error() {
    let said = SdfGrid::from_mesh(&case("obj_faces_first.obj"), 1 << 16).unwrap_err().to_string();
    assert!(said.contains("2^32"), "{said}");
}

/// Two small balls far apart: an earlier tree separated neither, so each query looked at every triangle.
#[test]
fn a_gap_changes_no_distance() {
    let ball = |x: f32| {
        shapes::sphere(0.8)
            .to_mesh(24)
            .unwrap()
            .map_vertices(|p| p.map(|c| 0.05 * c))
            .and_then(|m| m.map_vertices(|p| [p[0] + x, p[1], p[2]]))
            .unwrap()
    };
    let (left, right) = (ball(0.0), ball(1.0));
    let bounds = [[-0.1, -0.5, -0.5], [1.1, 0.5, 0.5]];
    let grid = |mesh: &Mesh| SdfGrid::from_mesh_with(mesh, &SdfConfig::new().shape([24; 3]).bounds(bounds)).unwrap();
    let (both, left, right) = (grid(&joined(&[&left, &right])), grid(&left), grid(&right));
    for (i, &v) in both.values().iter().enumerate() {
        let wanted = left.values()[i].min(right.values()[i]);
        assert!((v - wanted).abs() < 1e-5, "sample {i}: {v} and {wanted}");
    }
}

fn smallest_area(mesh: &Mesh) -> f32 {
    (0..mesh.faces().len())
        .map(|f| {
            let [a, b, c] = mesh.triangle(f).map(|p| p.map(f64::from));
            let (u, v): ([f64; 3], [f64; 3]) =
                (std::array::from_fn(|i| b[i] - a[i]), std::array::from_fn(|i| c[i] - a[i]));
            let n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
            (n.iter().map(|c| c * c).sum::<f64>().sqrt() / 2.0) as f32
        })
        .fold(f32::INFINITY, f32::min)
}

#[test]
fn marching_cubes_can_leave_out_triangles_without_area() {
    // An octahedron whose surface passes through samples, where the vertices of several edges coincide.
    let grid = SdfGrid::from_fn([17; 3], |p| p.iter().map(|c| c.abs()).sum::<f32>() - 0.5).unwrap();
    let plain = grid.to_mesh().unwrap();
    assert_eq!(smallest_area(&plain), 0.0);
    let config = IsosurfaceConfig::new().no_zero_area(true);
    let proper = isosurface(&grid, &config).unwrap();
    assert!(smallest_area(&proper) > 1e-9, "{}", smallest_area(&proper));
    assert!(proper.is_watertight() && (proper.volume() - plain.volume()).abs() < 2e-3, "{}", proper.volume());
}

#[test]
fn a_mask_hides_cells_and_values_may_be_as_large_as_they_can() {
    let grid = shapes::sphere(0.6).to_grid(24).unwrap();
    let whole = grid.to_mesh().unwrap();
    for method in [IsosurfaceMethod::MarchingCubes, IsosurfaceMethod::DualContouring] {
        let lower: Vec<bool> = (0..grid.values().len()).map(|i| grid.position([i / 576, 0, 0])[0] < 0.0).collect();
        let draw = |mask| isosurface(&grid, &IsosurfaceConfig::new().method(method).mask(mask));
        let half = draw(lower).unwrap();
        assert!(half.bounds()[1][0] < 0.0 && half.check().unused_vertices == 0, "{method:?}: {half:?}");
        // Less than half: by a row of cells with marching cubes, and by two with dual contouring.
        let share = half.area() / whole.area();
        assert!((0.4..0.5).contains(&share), "{method:?}: {share}");
        assert!(draw(vec![false; grid.values().len()]).is_err());
        assert!(draw(vec![true; 3]).unwrap_err().to_string().contains("3 entries"));
        // The same signs with all magnitudes at the end of their range: every vertex is at the middle of its edge.
        let huge = grid.values().iter().map(|v| if *v < 0.0 { -3e38 } else { 3e38 }).collect();
        let huge = SdfGrid::from_values(huge, grid.shape()).unwrap();
        let mesh = isosurface(&huge, &IsosurfaceConfig::new().method(method)).unwrap();
        assert!(mesh.vertices().iter().flatten().all(|c| c.is_finite()) && mesh.is_closed(), "{method:?}");
        assert!((mesh.volume() / whole.volume() - 1.0).abs() < 0.05, "{method:?}: {}", mesh.volume());
    }
}

/// The mean angle in degrees between a triangle's normal and the nearest of the true ones, by area.
fn normals_off(mesh: &Mesh, truth: &[[f64; 3]]) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for f in 0..mesh.faces().len() {
        let [a, b, c] = mesh.triangle(f).map(|p| p.map(f64::from));
        let (u, v): ([f64; 3], [f64; 3]) = (std::array::from_fn(|i| b[i] - a[i]), std::array::from_fn(|i| c[i] - a[i]));
        let n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
        let area = n.iter().map(|c| c * c).sum::<f64>().sqrt();
        let along = |axis: &[f64; 3]| (0..3).map(|i| axis[i] * n[i]).sum::<f64>() / area.max(f64::MIN_POSITIVE);
        sum += area * truth.iter().map(along).fold(-1.0, f64::max).min(1.0).acos().to_degrees();
        total += area;
    }
    sum / total
}

#[test]
fn dual_contouring_finds_the_edges_of_a_solid() {
    let half = [0.52f32, 0.46, 0.37];
    // Angles around z, then x; resolution; the largest error of normals; the largest and the mean distance of edges, in cells. Where an
    // edge cuts off a corner of a cell without crossing the cell's own edges, no cell notices it: this causes the largest distance.
    for (around_z, around_x, n, normals, farthest, mean) in [
        (0.0f32, 0.0f32, 40, 0.01, 0.01, 0.001),
        (std::f32::consts::FRAC_PI_4, 0.0, 40, 0.1, 0.1, 0.01),
        (0.4, 0.3, 40, 0.5, 0.5, 0.03),
        (1.1, 0.7, 64, 0.5, 0.5, 0.03),
    ] {
        let solid = shapes::cuboid(half).rotate(Axis::Z, around_z).rotate(Axis::X, around_x);
        let grid = solid.to_grid(n).unwrap();
        let ((sin_z, cos_z), (sin_x, cos_x)) = (f64::from(around_z).sin_cos(), f64::from(around_x).sin_cos());
        let turned = |[x, y, z]: [f64; 3]| {
            let [x, y] = [cos_z * x - sin_z * y, sin_z * x + cos_z * y];
            [x, cos_x * y - sin_x * z, sin_x * y + cos_x * z]
        };
        let axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(turned);
        let truth: Vec<[f64; 3]> = axes.iter().flat_map(|axis| [*axis, axis.map(|c| -c)]).collect();
        // Points on the twelve edges.
        let mut points = Vec::new();
        for (axis, side, i) in (0..3).flat_map(|a| (0..4).flat_map(move |s| (0..=100).map(move |i| (a, s, i)))) {
            let mut p = half.map(f64::from);
            p[axis] *= f64::from(i) / 50.0 - 1.0;
            p[(axis + 1) % 3] *= if side & 1 == 0 { 1.0 } else { -1.0 };
            p[(axis + 2) % 3] *= if side & 2 == 0 { 1.0 } else { -1.0 };
            points.push(turned(p).map(|c| c as f32));
        }
        let method = IsosurfaceMethod::DualContouring;
        let dual = isosurface(&grid, &IsosurfaceConfig::new().method(method)).unwrap();
        let name = format!("turned by {around_z} and {around_x}, {n}³");
        assert!(dual.is_watertight(), "{name}");
        assert!((dual.volume() / half.map(|h| 2.0 * h).iter().product::<f32>() - 1.0).abs() < 1e-3, "{name}");
        let (cubes, off) = (normals_off(&grid.to_mesh().unwrap(), &truth), normals_off(&dual, &truth));
        println!("{name}: normals {off:.3} degrees off, those of marching cubes {cubes:.2}");
        assert!(off < normals && off < 0.2 * cubes, "{name}: {off} and {cubes}");
        let cell = 2.0 / (n - 1) as f32;
        let to_edges = DistanceQuery::new(&dual).distance(&points).unwrap();
        let (sum, largest) = to_edges.iter().fold((0.0, 0.0f32), |(sum, most), d| (sum + d / cell, most.max(d / cell)));
        println!("{name}: edges {largest:.3} cells off, {:.4} on average", sum / points.len() as f32);
        assert!(largest < farthest && sum / (points.len() as f32) < mean, "{name}: {largest}, {sum}");
    }
}

#[test]
fn dual_contouring_finds_edges_that_are_concave_or_bent_and_leaves_what_is_smooth() {
    let corner =
        shapes::cuboid([0.6, 0.6, 0.4]).difference(shapes::cuboid([0.5, 0.5, 0.6]).translate([0.53, 0.47, 0.0]));
    let lens = shapes::sphere(0.8).intersection(shapes::sphere(0.8).translate([0.7, 0.0, 0.0]));
    for (name, solid, farthest) in [
        ("a corner", corner.rotate(Axis::Z, 0.4).rotate(Axis::X, 0.3), 0.15),
        ("a cylinder", shapes::cylinder(0.5, 0.4).rotate(Axis::X, 0.3), 0.1),
        ("a lens", lens, 0.1),
        ("a ball", shapes::sphere(0.6), 0.03),
        ("a ring", shapes::torus(0.6, 0.2), 0.05),
    ] {
        let grid = solid.to_grid(48).unwrap();
        let method = IsosurfaceMethod::DualContouring;
        let dual = isosurface(&grid, &IsosurfaceConfig::new().method(method)).unwrap();
        assert!(dual.is_watertight(), "{name}");
        let off = |p: &[f32; 3]| solid.distance(*p).abs() * 47.0 / 2.0;
        let largest = dual.vertices().iter().map(off).fold(0.0, f32::max);
        assert!(largest < farthest, "{name}: vertices are {largest} cells off the surface");
    }
}

#[test]
fn dual_contouring_is_closed_on_noise_and_gives_each_sheet_a_vertex() {
    let mut state = 1u32;
    let noise: Vec<f32> = (0..20 * 20 * 20)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let border = [i / 400, i / 20 % 20, i % 20].iter().any(|&c| c == 0 || c == 19);
            if border { 1.0 } else { (state >> 8) as f32 / (1 << 24) as f32 - 0.5 }
        })
        .collect();
    let grid = SdfGrid::from_values(noise, [20; 3]).unwrap();
    let method = IsosurfaceMethod::DualContouring;
    let mesh = isosurface(&grid, &IsosurfaceConfig::new().method(method)).unwrap();
    assert!(mesh.is_closed());
    // Two samples inside, at opposite corners of a cell: their two cubes of quads share no vertex.
    let mut values = vec![1.0; 4 * 4 * 4];
    for place in [21, 42] {
        values[place] = -1.0;
    }
    let pair = SdfGrid::from_values(values, [4; 3]).unwrap();
    let mesh = isosurface(&pair, &IsosurfaceConfig::new().method(method)).unwrap();
    assert!(mesh.is_watertight() && mesh.components().len() == 2 && mesh.vertices().len() == 16);
}

#[test]
fn points_anywhere_have_the_distances_of_the_grid() {
    let mesh = shapes::torus(0.6, 0.25).to_mesh(24).unwrap();
    let query = DistanceQuery::new(&mesh);
    let bounds = [[-1.5; 3], [1.5; 3]];
    let with = |sign| SdfConfig::new().shape([19, 20, 21]).bounds(bounds).sign(sign);
    let signed = SdfGrid::from_mesh_with(&mesh, &with(SdfSign::Signed)).unwrap();
    let points: Vec<[f32; 3]> =
        (0..signed.values().len()).map(|i| signed.position([i / 420, i / 21 % 20, i % 21])).collect();
    let scale = signed.scale();
    let wanted: Vec<f32> = signed.values().iter().map(|v| v / scale).collect();
    let got = query.signed_distance(&points).unwrap();
    assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5));
    let got = query.distance(&points).unwrap();
    assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b.abs()).abs() < 1e-5));
    assert!(query.distance(&[]).unwrap().is_empty());
    assert!(query.distance(&[[0.0; 3], [f32::NAN, 0.0, 0.0]]).unwrap_err().to_string().contains("at index 1"));
}
