//! Procedural families: solids with correct distances, in one piece, closed and inside the cube.

use wavemesh::sdf::SdfGrid;
use wavemesh::sdf::shapes::{prism, revolution, sphere};
use wavemesh::train::{Family, ProceduralShape, Representation, RepresentationConfig};

/// Number of shapes to test in each family.
const EACH: u64 = 12;

fn grids(family: Family, resolution: usize) -> Vec<SdfGrid> {
    (100..100 + EACH).map(|seed| ProceduralShape::new(family, seed).sdf(resolution).unwrap()).collect()
}

#[test]
fn every_solid_is_in_one_closed_part_inside_the_cube() {
    for family in Family::DETAILED {
        for (seed, grid) in grids(family, 64).iter().enumerate() {
            let mesh = grid.to_mesh().unwrap();
            assert!(mesh.is_watertight(), "{} {seed} is open", family.name());
            assert_eq!(mesh.components().len(), 1, "parts of {} {seed}", family.name());
        }
    }
}

#[test]
fn a_shelf_reaches_the_legs_of_its_table() {
    // A third of the tables with four legs have a shelf, and a quarter of those legs lean.
    for seed in 0..60 {
        let mesh = ProceduralShape::new(Family::Table, seed).sdf(64).unwrap().to_mesh().unwrap();
        assert_eq!(mesh.components().len(), 1, "parts of table {seed}");
    }
}

#[test]
fn distances_change_no_faster_than_the_place() {
    for family in Family::ALL {
        for seed in 0..4 {
            let solid = ProceduralShape::new(family, seed);
            // Fine steps along a skew line that crosses the cube, and short steps in all directions.
            for i in 0..400 {
                let at = |k: usize| ((i * (37 + 11 * k) + 7 * k) % 400) as f32 / 200.0 - 1.0;
                let p = [at(0), at(1), at(2)];
                let d = solid.distance(p);
                for (axis, step) in [(0, 0.01f32), (1, -0.013), (2, 0.017)] {
                    let mut q = p;
                    q[axis] += step;
                    let change = (solid.distance(q) - d).abs();
                    assert!(change <= step.abs() + 1e-5, "{} {seed} at {p:?}: {change} in {step}", family.name());
                }
            }
        }
    }
}

#[test]
fn outside_a_solid_the_distance_is_that_to_its_surface() {
    // Parts are joined by their smallest distance, and cut by their largest. The first is exact outside; the second is not where the cut
    // meets the surface. Near the surface both are exact.
    for family in Family::DETAILED {
        let solid = ProceduralShape::new(family, 5);
        let surface = solid.sdf(96).unwrap().to_mesh().unwrap();
        let (mut near, mut off) = (0, 0);
        for point in surface.vertices().iter().step_by(97) {
            near += 1;
            off += usize::from(solid.distance(*point).abs() > 0.4 * 2.0 / 95.0);
        }
        assert!(near > 20 && off * 20 <= near, "{}: {off} of {near} vertices lie off the surface", family.name());
    }
}

#[test]
fn seeds_give_other_solids_of_a_family() {
    for family in Family::DETAILED {
        let mut values: Vec<Vec<u32>> =
            grids(family, 16).iter().map(|grid| grid.values().iter().map(|v| v.to_bits()).collect()).collect();
        values.sort();
        values.dedup();
        assert_eq!(values.len(), EACH as usize, "{}", family.name());
    }
}

#[test]
fn three_stages_keep_every_family_at_64() {
    let config = RepresentationConfig::new().resolution(64).levels(3).shell(Some(2.0));
    let shapes: Vec<SdfGrid> =
        Family::DETAILED.into_iter().map(|family| ProceduralShape::new(family, 3).sdf(64).unwrap()).collect();
    let representation = Representation::fit(&config, &shapes).unwrap();
    for (shape, family) in shapes.iter().zip(Family::DETAILED) {
        let kept = representation.decode(&representation.encode(shape).unwrap()).unwrap();
        let iou = wavemesh::sdf::iou_of_grids(&kept, shape).unwrap();
        assert!(iou >= 0.995, "{}: {iou}", family.name());
    }
}

#[test]
fn prisms_and_revolutions_have_exact_distances() {
    // A prism over a square is a box: its corner is √3 · 0.1 away from a point that is 0.1 further on every axis.
    let cube = prism(&[[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]], 0.5);
    assert!((cube.distance([0.6; 3]) - 0.1 * 3f32.sqrt()).abs() < 1e-6);
    assert!((cube.distance([0.0, 0.0, 0.3]) + 0.2).abs() < 1e-6);
    // Both orders of the corners are right.
    let turned = prism(&[[-0.5, 0.5], [0.5, 0.5], [0.5, -0.5], [-0.5, -0.5]], 0.5);
    assert_eq!(cube.distance([0.1, 0.2, 0.0]), turned.distance([0.1, 0.2, 0.0]));
    // Half a polygon with many sides, turned around its axis, makes a ball.
    let half: Vec<[f32; 2]> = (0..=512)
        .map(|i| (std::f32::consts::PI * (i as f32 / 512.0 - 0.5)).sin_cos())
        .map(|(sin, cos)| [0.6 * cos, 0.6 * sin])
        .collect();
    let (swept, exact) = (revolution(&half), sphere(0.6));
    for p in [[0.0, 0.0, 0.0], [0.7, 0.1, 0.05], [0.3, -0.9, 0.4], [-0.6, 0.0, 0.19]] {
        assert!((swept.distance(p) - exact.distance(p)).abs() < 1e-4, "{p:?}");
    }
}
