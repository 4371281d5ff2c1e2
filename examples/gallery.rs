//! Draws every kind of display into its own files `NAME.html`, `NAME.png` and `NAME.txt`, and all of them into `index.html`.
//!
//!     cargo run --release --example gallery -- target/gallery
//!
//! docs/displays.md shows them, and tests/browser tests them in a browser. With `-- --live` it draws nested progress bars and a live plot
//! for two seconds instead, in the frontend that runs it. With `-- --voxels 1000000` it prints the HTML of a viewer of about that many
//! voxels, with `-- --points 1000000` that of a viewer of that many points.

use std::fs;
use std::path::Path;
use std::time::Duration;

use wavemesh::Result;
use wavemesh::notebook::{contact_sheet, escape, grid};
use wavemesh::prelude::*;
use wavemesh::wavelet::WaveletConfig;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("--live") => live(),
        Some("--voxels") => voxels(std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(100_000)),
        Some("--points") => points(std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(1_000_000)),
        Some(folder) => write_all(Path::new(folder)),
        None => Err(Error::Argument {
            op: "gallery",
            name: "folder",
            got: "none".into(),
            expected: "a folder to write into".into(),
        }),
    }
}

fn write_all(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut index = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>WaveMesh's displays</title>\
         <style>body{font:14px system-ui,sans-serif;margin:24px;background:#fff;color:#222}body.dark{background:#111317;color:#d7dbe2}h2{font-size:15px;margin:28px 0 8px}</style>\
         <button onclick=\"document.body.classList.toggle('dark')\">light / dark</button>",
    );
    for (name, bundle) in displays()? {
        let write = |ending: &str, content: &[u8]| {
            let path = folder.join(format!("{name}.{ending}"));
            fs::write(&path, content).map_err(Error::io(&path))
        };
        let html = bundle.to_html();
        write("html", html.as_bytes())?;
        write("txt", bundle.plain().as_bytes())?;
        if let Some(png) = bundle.png_bytes() {
            write("png", &png)?;
        }
        index += &format!("<h2>{}</h2>{html}", escape(name));
    }
    let path = folder.join("index.html");
    fs::write(&path, index).map_err(Error::io(&path))
}

/// Numbers that look random and are the same on every machine.
fn noise(i: usize) -> f32 {
    let x = (i as f32 * 12.9898).sin() * 43758.547;
    x - x.floor() - 0.5
}

/// The shell of a torus in a 48³ grid, with a value that varies like a wave.
fn ring() -> Result<Voxels> {
    let n = 48;
    let (mut sites, mut wave, mut height) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n * n * n {
        let site = [i % n, i / n % n, i / n / n];
        let [x, y, z] = site.map(|v| v as f32 - 23.5);
        let distance = (x.hypot(z) - 15.0).hypot(y) - 6.5;
        if distance.abs() < 0.9 {
            sites.push(site.map(|v| v as i32));
            wave.push((3.0 * z.atan2(x)).sin() + 0.1 * y);
            height.push(y);
        }
    }
    Voxels::new(sites, [n; 3], vec![wave, height])?.named(["wave", "height"])
}

/// A ball that grows out of noise, as in the steps of a diffusion.
fn growing() -> Result<Vec<(String, Voxels)>> {
    let n = 20;
    let state = |step: usize| {
        let part = step as f32 / 7.0;
        let (mut sites, mut values) = (Vec::new(), Vec::new());
        for i in 0..n * n * n {
            let site = [i % n, i / n % n, i / n / n];
            let r = site.map(|v| (v as f32 - 9.5).powi(2)).iter().sum::<f32>().sqrt();
            if part * (7.5 - r) + (1.0 - part) * (12.0 * noise(i) - 4.2) > 0.0 {
                sites.push(site.map(|v| v as i32));
                values.push(r);
            }
        }
        Ok((format!("t = {}", 999 - 999 * step / 7), Voxels::new(sites, [n; 3], vec![values])?.named(["radius"])?))
    };
    (0..8).map(state).collect()
}

fn displays() -> Result<Vec<(&'static str, MimeBundle)>> {
    let cpu = Device::Cpu;
    let mut matrix: Vec<f32> =
        (0..48 * 80).map(|i| ((i % 80) as f32 * 0.14).sin() * (i / 80) as f32 / 30.0 + 0.4 * noise(i)).collect();
    (matrix[1000], matrix[2000], matrix[3000]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    let matrix = Tensor::from_vec(matrix, (48, 80), &cpu)?;
    let small = Tensor::new(&[[1.5f32, -2.0, 0.0], [f32::NAN, 4.25, -0.5]], &cpu)?;
    let volume = Tensor::from_vec(
        (0..2 * 16 * 24 * 32).map(|i| (i % 32 + i / 32 % 24) as f32 + 8.0 * noise(i)).collect(),
        (2, 16, 24, 32),
        &cpu,
    )?;

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("notebooks/meshes");
    let bunny = Mesh::load(folder.join("bunny.obj"))?;
    let gear = Mesh::load(folder.join("gearwheel.bin.stl"))?;
    let sdf = SdfGrid::from_mesh(&bunny, 64)?;
    let coefficients = sdf.encode(&WaveletConfig::default())?;
    let sparse = coefficients.to_sparse_tensor(&cpu)?;
    let unet = WaveMeshUNet::seeded(&UNetConfig::plain(sparse.channels(), sparse.channels(), &[16, 32]), 0, &cpu)?;
    let diffusion = GaussianDiffusion::new(&DiffusionConfig::default(), &cpu)?;

    let ring = ring()?;
    let rows: Vec<f32> = (0..ring.len()).flat_map(|i| ring.channels().iter().map(move |values| values[i])).collect();
    let occupied = SparseConvTensor::from_coords(
        Tensor::from_vec(rows, (ring.len(), 2), &cpu)?,
        ring.sites().iter().map(|&[x, y, z]| [0, z, y, x]).collect(),
        [48; 3],
        1,
    )?;
    let plot = |title: &str| Ok::<_, Error>(VoxelPlot::new(&ring)?.title(title).size(420, 340));
    let voxel_plots = [
        plot("channel 0, coolwarm")?,
        plot("depth, viridis")?.color_by(ColorBy::Depth),
        plot("clipped at z < 24, magma")?.clip(Axis::Z, 0..24).channel(1).colormap(Colormap::Magma),
        plot("alpha 0.25, parallel, z up")?.alpha(0.25).camera(Camera {
            perspective: false,
            up: Axis::Z,
            ..Default::default()
        }),
    ];
    let voxel_plots: Vec<&dyn Rich> = voxel_plots.iter().map(|plot| plot as &dyn Rich).collect();
    let height: Vec<f32> = bunny.vertices().iter().map(|v| (v[0].hypot(v[2]) - 2.0).sin()).collect();
    let mesh_plots = [
        MeshPlot::new(&bunny).title("shaded").size(420, 340),
        MeshPlot::new(&bunny).title("wireframe").wireframe(true).size(420, 340),
        MeshPlot::new(&bunny)
            .title("a value at each vertex")
            .values(height.clone())
            .colormap(Colormap::Viridis)
            .size(420, 340),
        MeshPlot::new(&gear)
            .title("dark, alpha 0.5")
            .alpha(0.5)
            .theme(notebook::Theme::Dark)
            .up(Axis::Z)
            .size(420, 340),
    ];
    let mesh_plots: Vec<&dyn Rich> = mesh_plots.iter().map(|plot| plot as &dyn Rich).collect();
    let steps = growing()?;
    let thumbnail = |(label, voxels): &(String, Voxels)| {
        VoxelPlot::new(voxels)?.title(label).axes(false).color_bar(false).size(160, 160).picture()
    };
    let sheet = contact_sheet(&steps.iter().map(thumbnail).collect::<Result<Vec<_>>>()?, 4)?;
    let mut curves = LivePlot::new("training").smooth(0.9).log_scale(true);
    for step in 0..400 {
        let t = step as f64;
        curves.push("loss", (0.02 + (-t / 90.0).exp()) * (1.0 + 0.8 * f64::from(noise(step))));
        if step % 20 == 0 {
            curves.push_at("validation", t, 0.03 + 1.1 * (-t / 80.0).exp());
        }
    }
    let lines = notebook::plot([3, 5, 8, 12, 20, 35, 60], [9.1, 5.2, 3.0, 2.2, 1.9, 1.8, 1.8])
        .name("DDIM")
        .line("DDPM", [3, 5, 8, 12, 20, 35, 60], [19.0, 12.5, 7.1, 4.4, 2.6, 2.0, 1.8])
        .title("error by steps")
        .x_label("steps")
        .y_label("Chamfer distance (×10⁻³)")
        .log_x(true)
        .log_y(true)
        .size(420, 280);
    let counts = notebook::bars(["aaa2", "aad2", "ada2", "add2"], [512, 210, 198, 64])
        .title("coefficients kept")
        .y_label("number")
        .size(320, 280);
    let shapes = ShapeDataset::procedural(&Family::PLAIN, 10, 1, Split::Train, &DatasetConfig::default())?;
    let drawn = figure((420, 260), |root| {
        use plotters::prelude::*;
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .caption("any plotters drawing", ("sans-serif", 18))
            .x_label_area_size(24)
            .y_label_area_size(36)
            .build_cartesian_2d(0f32..10.0, -1.1f32..1.1)?;
        chart.configure_mesh().light_line_style(TRANSPARENT).y_labels(5).draw()?;
        chart.draw_series(LineSeries::new(
            (0..=50).map(|i| i as f32 / 5.0).map(|x| (x, x.sin())),
            BLUE.stroke_width(2),
        ))?;
        Ok(())
    })?;
    let frames = || steps.iter().map(|(label, voxels)| (label.as_str(), voxels));

    let street = wavemesh::points::street(0)?;

    Ok(vec![
        ("tensor", matrix.rich()),
        ("tensor_small", small.rich()),
        ("tensor_rank4", volume.rich()),
        ("sparse", occupied.rich()),
        ("wavelet", coefficients.rich()),
        ("sdf", sdf.rich()),
        ("mesh", bunny.rich()),
        ("model", unet.summary(&sparse)?.rich()),
        ("diffusion", diffusion.rich()),
        ("backend", backend_info().rich()),
        ("voxel_plot", grid(&voxel_plots, 2)?.rich()),
        ("mesh_plot", grid(&mesh_plots, 2)?.rich()),
        ("slice_grid", SliceGrid::new(&sdf)?.along(Axis::Z, 8).contour(0.0).panel(140).rich()),
        ("contact_sheet", sheet.rich()),
        ("shape_sheet", ShapeSheet::new(&shapes.grids()?).titles(Family::PLAIN.map(|f| f.name()).repeat(2)).rich()),
        ("voxel_viewer", VoxelViewer::new(&ring)?.title("a ring").rich()),
        ("voxel_sequence", VoxelViewer::sequence(frames())?.title("out of the noise").rich()),
        ("mesh_viewer", MeshViewer::new(&bunny).title("the bunny").rich()),
        ("mesh_values", MeshViewer::new(&bunny).values(height).title("a value at each vertex").rich()),
        (
            "point_viewer",
            PointViewer::new(&street.cloud)?.classes(&street.labels, &street.classes)?.title("a street").rich(),
        ),
        ("point_values", PointViewer::new(&street.cloud)?.title("its heights").rich()),
        ("live_plot", curves.rich()),
        ("plot", hstack(&[&lines, &counts]).rich()),
        ("dataset", shapes.rich()),
        ("figure", drawn.rich()),
        ("hstack", hstack(&[&small, &drawn]).rich()),
        ("error", VoxelPlot::new(&ring)?.channel(7).rich()),
    ])
}

/// A viewer of about `n` voxels: the shell of a ball, two voxels thick, with a smooth value.
fn voxels(n: usize) -> Result<()> {
    let radius = (n as f64 / (4.0 * std::f64::consts::PI * 2.2)).sqrt() as f32;
    let side = 2 * radius as usize + 6;
    let middle = (side - 1) as f32 / 2.0;
    let (mut sites, mut values) = (Vec::new(), Vec::new());
    for i in 0..side.pow(3) {
        let site = [i % side, i / side % side, i / side / side];
        let r = site.map(|v| (v as f32 - middle).powi(2)).iter().sum::<f32>().sqrt();
        if (r - radius).abs() < 1.1 {
            sites.push(site.map(|v| v as i32));
            values.push((0.1 * site[0] as f32).sin() + (0.07 * site[1] as f32).cos());
        }
    }
    let voxels = Voxels::new(sites, [side; 3], vec![values])?;
    println!("{}", VoxelViewer::new(&voxels)?.rich().to_html());
    Ok(())
}

/// A viewer of `n` points: hilly ground, coloured by its height.
fn points(n: usize) -> Result<()> {
    let side = (n as f64).sqrt().ceil() as usize;
    let rows: Vec<f32> = (0..n)
        .flat_map(|i| {
            let (x, y) = ((i % side) as f32 / side as f32, (i / side) as f32 / side as f32);
            let z = 0.1 * (8.0 * x).sin() * (6.0 * y).cos() + 0.03 * (31.0 * x).sin() + 0.002 * noise(i);
            [100.0 * x, 100.0 * y, 100.0 * z]
        })
        .collect();
    let cloud = PointCloud::new(&Tensor::from_vec(rows, (n, 3), &Device::Cpu)?, &[])?;
    println!("{}", PointViewer::new(&cloud)?.title("hills").rich().to_html());
    Ok(())
}

/// Shows nested bars and a plot while they change.
fn live() -> Result<()> {
    let mut plot = LivePlot::new("training").smooth(0.8).log_scale(true);
    for epoch in progress(0..4).label("epochs") {
        for (bar, batch) in progress(0..50).label("batches").with_bar() {
            let step = 50 * epoch + batch;
            let loss = (0.02 + (-(step as f64) / 40.0).exp()) * (1.0 + 0.6 * f64::from(noise(step)));
            bar.set_postfix(format!("loss {loss:.4}"));
            plot.push("loss", loss);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}
