//! Golden images: every kind of picture, as a person last saw and approved it.
//!
//! The images are in tests/fixtures/golden. On a difference, the test writes its picture to the target folder. Look at both; if the new one
//! is right, `WAVEMESH_GOLDEN=write cargo test --release --test golden` replaces the image.

use std::path::{Path, PathBuf};

use wavemesh::notebook::{Picture, Theme, contact_sheet, figure};
use wavemesh::prelude::*;

/// A pixel differs if a channel is off by more than this, because rounding differs a little between processors.
const CHANNEL: u8 = 16;
/// Of a thousand pixels, this many may differ: pixels on edges.
const PER_MILLE: usize = 2;

fn check(name: &str, picture: &Picture) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/golden/{name}.png"));
    // Both go through the palette of at most 256 colours that notebooks get.
    let drawn = picture.png().unwrap();
    if std::env::var("WAVEMESH_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &drawn).unwrap();
        return;
    }
    let golden = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (golden, ours) = (Picture::from_png(&golden).unwrap(), Picture::from_png(&drawn).unwrap());
    let same_size = (golden.width(), golden.height()) == (ours.width(), ours.height());
    let pixels = golden.rgb().chunks(3).zip(ours.rgb().chunks(3));
    let differing = pixels.filter(|(a, b)| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > CHANNEL)).count();
    let allowed = PER_MILLE * golden.rgb().len() / 3 / 1000;
    if !same_size || differing > allowed {
        let wrong = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(&wrong, &drawn).unwrap();
        panic!(
            "{name}: {differing} pixels differ, {allowed} may; drawn is {}, golden {}",
            wrong.display(),
            file.display()
        );
    }
}

/// A knot of voxels with two channels: the values of one lie around zero, those of the other start at zero.
fn knot() -> Voxels {
    let (mut sites, mut angle, mut height) = (Vec::new(), Vec::new(), Vec::new());
    let [nx, ny, nz] = [24i32, 16, 20];
    for site in (0..nx * ny * nz).map(|i| [i % nx, i / nx % ny, i / nx / ny]) {
        let [x, y, z] = [site[0] as f32 - 11.5, site[1] as f32 - 7.5, site[2] as f32 - 9.5];
        let turn = z.atan2(x);
        let distance = (x.hypot(z) - 7.0).hypot(y - 3.0 * (2.0 * turn).sin());
        if distance < 2.6 {
            sites.push(site);
            angle.push((3.0 * turn).cos());
            height.push(site[1] as f32);
        }
    }
    Voxels::new(sites, [24, 16, 20], vec![angle, height]).unwrap().named(["cos 3φ", "height"]).unwrap()
}

fn plot() -> VoxelPlot {
    VoxelPlot::new(&knot()).unwrap().size(320, 240)
}

fn card(value: &impl Rich) -> Picture {
    Picture::from_png(&value.rich().png_bytes().unwrap()).unwrap()
}

/// A rounded box with a hole.
fn solid() -> shapes::Solid {
    shapes::cuboid([0.5, 0.35, 0.6])
        .difference(shapes::cylinder(0.25, 2.0))
        .union(shapes::sphere(0.2).translate([0.5, 0.35, 0.6]))
}

#[test]
fn voxels_by_colormap() {
    let maps =
        [Colormap::Viridis, Colormap::Magma, Colormap::Cividis, Colormap::Coolwarm, Colormap::Grey, Colormap::Turbo];
    let one = |(i, map): (usize, Colormap)| {
        plot()
            .channel(usize::from(map != Colormap::Coolwarm))
            .colormap(map)
            .title(map.name())
            .size(260, 200)
            .axes(i % 2 == 0)
            .picture()
            .unwrap()
    };
    check("voxels_colormaps", &contact_sheet(&maps.into_iter().enumerate().map(one).collect::<Vec<_>>(), 3).unwrap());
}

#[test]
fn voxels_by_camera() {
    let camera = |azimuth, elevation, perspective, up| Camera { azimuth, elevation, perspective, up, zoom: 1.0 };
    let views = [
        ("default", Camera::default()),
        ("from below", camera(-60.0, -30.0, true, Axis::Y)),
        ("parallel", camera(-60.0, 25.0, false, Axis::Y)),
        ("from above", camera(0.0, 90.0, true, Axis::Y)),
        ("z up", camera(30.0, 20.0, true, Axis::Z)),
        ("x up, near", Camera { zoom: 1.6, ..camera(120.0, 40.0, true, Axis::X) }),
    ];
    let one = |(title, camera): (&str, Camera)| {
        plot().camera(camera).title(title).color_bar(false).size(240, 200).picture().unwrap()
    };
    check("voxels_cameras", &contact_sheet(&views.map(one), 3).unwrap());
}

#[test]
fn voxels_translucent() {
    check("voxels_alpha", &plot().alpha(0.3).title("alpha 0.3").picture().unwrap());
}

#[test]
fn voxels_clipped() {
    check("voxels_clip", &plot().clip(Axis::Z, 0..10).clip(Axis::Y, 3..16).title("z < 10, y ≥ 3").picture().unwrap());
}

#[test]
fn voxels_small_by_depth_in_the_dark() {
    let dark = plot().voxel_size(0.6).color_by(ColorBy::Depth).theme(Theme::Dark).fit_occupied().title("depth");
    check("voxels_dark", &dark.picture().unwrap());
}

#[test]
fn voxels_side_by_side() {
    let (a, b) =
        (plot().title("channel").range(-2.0, 2.0), plot().color_by(ColorBy::Position(Axis::X)).title("position"));
    check("voxels_side_by_side", &card(&hstack(&[&a, &b])));
}

#[test]
fn voxels_with_values_that_are_not_numbers() {
    let strange = Voxels::new(
        vec![[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]],
        [4, 1, 1],
        vec![vec![0.0, f32::NAN, f32::INFINITY, 1.0]],
    );
    check("voxels_nan", &VoxelPlot::new(&strange.unwrap()).unwrap().size(320, 200).picture().unwrap());
}

#[test]
fn meshes() {
    let mesh = solid().to_mesh(40).unwrap();
    let height: Vec<f32> = mesh.vertices().iter().map(|v| v[1]).collect();
    let plot = || MeshPlot::new(&mesh).size(300, 240);
    let plots = [
        plot().title("shaded"),
        plot().title("wires").wireframe(true),
        plot().title("values").values(height),
        plot().title("translucent").alpha(0.5).theme(Theme::Dark),
    ];
    check("meshes", &contact_sheet(&plots.map(|plot| plot.picture().unwrap()), 2).unwrap());
}

#[test]
fn slices() {
    let grid = solid().to_grid(40).unwrap();
    check("slices_contour", &SliceGrid::new(&grid).unwrap().contour(0.0).panel(130).picture().unwrap());
    let cells = SliceGrid::new(&grid)
        .unwrap()
        .along(Axis::Y, 6)
        .columns(3)
        .panel(110)
        .colormap(Colormap::RdBu)
        .theme(Theme::Dark);
    check("slices_cells", &cells.picture().unwrap());
}

#[test]
fn sheets() {
    let frames = (1..=8).map(|n| {
        plot()
            .clip(Axis::X, 0..3 * n)
            .axes(false)
            .color_bar(false)
            .title(format!("{n}"))
            .size(120, 110)
            .picture()
            .unwrap()
    });
    check("contact_sheet", &contact_sheet(&frames.collect::<Vec<_>>(), 4).unwrap());
}

#[test]
fn cards() {
    let grid = solid().to_grid(32).unwrap();
    check("card_sdf", &card(&grid));
    check("card_mesh", &card(&solid().to_mesh(32).unwrap()));
    check("card_wavelet", &card(&grid.encode(&WaveletConfig::new().level(2)).unwrap()));
    let knot = knot();
    let rows = Tensor::from_vec(knot.channels()[0].clone(), (knot.len(), 1), &Device::Cpu).unwrap();
    let sites = knot.sites().iter().map(|&[x, y, z]| [0, z, y, x]).collect();
    check("card_sparse", &card(&SparseConvTensor::from_coords(rows, sites, [20, 16, 24], 1).unwrap()));
    let values = (0..3 * 24 * 32).map(|i| match i {
        100 => f32::NAN,
        900 => f32::INFINITY,
        _ => ((i % 32) as f32 * 0.3).sin() * (i / 32) as f32,
    });
    check("card_tensor", &card(&Tensor::from_iter(values, &Device::Cpu).unwrap().reshape((3, 24, 32)).unwrap()));
}

#[test]
fn schedules() {
    let with = |schedule| GaussianDiffusion::new(&DiffusionConfig::new().schedule(schedule), &Device::Cpu).unwrap();
    check("schedule_linear", &card(&with(BetaSchedule::Linear)));
    check("schedule_cosine", &card(&with(BetaSchedule::Cosine)));
}

#[test]
fn curves() {
    let fill = |mut plot: LivePlot| {
        for step in 0..300 {
            let t = f64::from(step);
            plot.push("loss", (0.02 + (-t / 60.0).exp()) * (1.0 + 0.5 * (t * 1.7).sin()));
            if step % 25 == 0 {
                plot.push_at("validation", t, 0.03 + (-t / 70.0).exp());
            }
        }
        card(&plot)
    };
    check("live_plot", &fill(LivePlot::new("training").size(480, 260)));
    check(
        "live_plot_log",
        &fill(LivePlot::new("training").log_scale(true).smooth(0.9).size(480, 260).theme(Theme::Dark)),
    );
}

#[test]
fn drawings() {
    use plotters::prelude::*;
    let drawn = figure((320, 200), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .caption("a plotters chart: ½ + √x", ("sans-serif", 17))
            .x_label_area_size(36)
            .y_label_area_size(44)
            .build_cartesian_2d(0f32..4.0, 0f32..2.6)?;
        chart.configure_mesh().x_desc("x").y_desc("½ + √x").draw()?;
        chart.draw_series(LineSeries::new(
            (0..=400).map(|i| i as f32 / 100.0).map(|x| (x, 0.5 + x.sqrt())),
            BLUE.stroke_width(2),
        ))?;
        chart.draw_series((1..4).map(|x| Circle::new((x as f32, 0.5 + (x as f32).sqrt()), 4, RED.filled())))?;
        Ok(())
    });
    check("figure", drawn.unwrap().picture().unwrap());
}
