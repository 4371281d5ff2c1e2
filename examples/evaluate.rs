//! Measures a trained generator against held-out shapes; prints docs/generation.md and writes the pictures next to it.
//!
//!     cargo run --release --example evaluate -- notebooks/models/shapes64.safetensors docs/images > docs/generation.md
//!
//! Compares generated shapes (seeds from 1000) with as many held-out shapes of the same families, by Chamfer distances (squared) between
//! points of their surfaces. It compares two more sets in the same way: training shapes (the best result that a generator can reach), and
//! shapes whose coarse stage is taken from a held-out shape. Numbers after the folder change how many shapes, points and training shapes
//! there are, and the first seed. Edges are compared with those of the same solids on a grid twice as fine. If `mpirun` or torchrun starts the program, each
//! process draws its share of the shapes and compares its share of the pairs.

use std::path::Path;
use std::process::ExitCode;
use std::slice::from_ref;
use std::time::Instant;

use rayon::prelude::*;
use wavemesh::Result;
use wavemesh::candle_core::{DType, Tensor};
use wavemesh::distributed::ProcessGroup;
use wavemesh::mesh::metrics::sample_surface;
use wavemesh::mesh::{EdgeNormals, Mesh};
use wavemesh::notebook::{Axis, MeshPlot, Picture, contact_sheet};
use wavemesh::sdf::{DepthImage, SdfGrid, Viewpoint, iou_of_grids};
use wavemesh::train::{
    Family, GenerateOptions, Generator, SetComparison, ShapeDataset, ShapeViews, Split, chamfer_matrix,
};

/// How many training shapes are searched for the nearest one: all of the shipped generator's.
const TRAINED_ON: usize = 10_000;
const DATA_SEED: u64 = 1;
/// The first seed, unless the command line gives another.
const SEED: usize = 1000;
/// Rows of ten in a picture.
const ROWS: usize = 10;
/// How many held-out shapes are drawn again from pictures of them.
const SHOWN: usize = 100;
/// How many shapes have their edges measured: solids at twice the resolution take long.
const EDGES_OF: usize = 100;
/// How many shapes pass through a network together on a GPU, and when its time is measured.
const BATCH: usize = 50;

/// Prints a line, in one process of the group only.
macro_rules! say {
    ($group:expr, $($text:tt)*) => {
        if $group.is_first() {
            println!($($text)*);
        }
    };
}

type Cloud = Vec<[f32; 3]>;
/// Distances between the shapes of two sets.
type Matrix = Vec<Vec<f64>>;

/// Shapes to compare, and how many of their grids had no surface at all.
struct Set {
    name: &'static str,
    meshes: Vec<Mesh>,
    empty: usize,
    seconds: Option<f64>,
}

fn set(name: &'static str, grids: &[SdfGrid], seconds: Option<f64>) -> Set {
    let meshes: Vec<Mesh> = grids.par_iter().filter_map(|grid| grid.to_mesh().ok()).collect();
    Set { name, empty: grids.len() - meshes.len(), meshes, seconds }
}

fn clouds(meshes: &[Mesh], points: usize, seed: u64) -> Result<Vec<Cloud>> {
    meshes.par_iter().enumerate().map(|(i, m)| Ok(sample_surface(m, points, seed + i as u64)?.points)).collect()
}

/// Generates shapes, class by class in turn; `options` have the first seed. `contexts` hold one for each shape.
fn generated(
    group: &ProcessGroup,
    generator: &Generator,
    count: usize,
    options: &GenerateOptions,
    contexts: Option<&Tensor>,
) -> Result<Vec<SdfGrid>> {
    let classes = generator.classes();
    let each = count / classes.len().max(1);
    let mut of_class = Vec::new();
    for (i, class) in classes.iter().enumerate() {
        let own = group.share(each);
        let seed = options.seed + (i * each + own.start) as u64;
        let options = options.clone().class(class.as_str()).seed(seed).batch_size(batch_size(generator));
        let rows: Vec<u32> = own.clone().map(|shape| (i + shape * classes.len()) as u32).collect();
        let context = contexts.map(|all| all.index_select(&Tensor::new(rows, all.device())?, 0)).transpose()?;
        let options = options.context(context);
        of_class.push(gathered(group, generator, each, generator.generate(own.len(), &options)?)?.into_iter());
    }
    Ok((0..each * classes.len()).filter_map(|i| of_class[i % classes.len()].next()).collect())
}

/// All of `count` grids, of which each process makes its share.
fn gathered(group: &ProcessGroup, generator: &Generator, count: usize, own: Vec<SdfGrid>) -> Result<Vec<SdfGrid>> {
    if group.is_alone() {
        return Ok(own);
    }
    let n = generator.representation().config().resolution;
    let place = group.share(count);
    let values: Vec<f32> = own.iter().flat_map(|grid| grid.values().iter().copied()).collect();
    let values = Tensor::from_vec(values, (own.len(), n, n, n), generator.stages()[0].network.device())?;
    let beside = values.pad_with_zeros(0, place.start, count - place.end)?;
    let all = group.sum_tensors(vec![beside])?;
    (0..count).map(|at| SdfGrid::from_tensor(&all[0].get(at)?)).collect()
}

/// Distances between each of `a` and each of `b`; each process computes its share of the rows.
fn distances(group: &ProcessGroup, a: &[Cloud], b: &[Cloud]) -> Result<Matrix> {
    let own = group.share(a.len());
    let mut all = vec![0f64; a.len() * b.len()];
    let rows = all[own.start * b.len()..].chunks_mut(b.len().max(1));
    rows.zip(chamfer_matrix(&a[own], b)?).for_each(|(place, row)| place.copy_from_slice(&row));
    group.sum(&mut all)?;
    Ok(all.chunks(b.len().max(1)).map(<[f64]>::to_vec).collect())
}

/// A batch size that keeps a GPU busy.
fn batch_size(generator: &Generator) -> usize {
    if generator.stages()[0].network.device().is_cpu() { 1 } else { BATCH }
}

/// The seconds of one evaluation of stage 0's network for one shape, and for [`BATCH`]: the median of five.
fn network_seconds(generator: &Generator) -> Result<[f64; 2]> {
    let (network, side) = (&generator.stages()[0].network, generator.representation().grid_of(0));
    let seconds = |batch: usize| -> Result<f64> {
        let shape = (batch, network.config().in_channels, side, side, side);
        let (x, t) =
            (Tensor::ones(shape, DType::F32, network.device())?, Tensor::zeros(batch, DType::F32, network.device())?);
        let mut times = Vec::new();
        for _ in 0..6 {
            let started = Instant::now();
            network.forward(&x, &t, None)?.features().get(0)?.to_vec1::<f32>()?; // reading waits for a GPU
            times.push(started.elapsed().as_secs_f64());
        }
        times.remove(0); // the first one prepares
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    };
    Ok([seconds(1)?, seconds(BATCH)?])
}

fn nearest(matrix: &[Vec<f64>]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().copied().fold(f64::INFINITY, f64::min)).collect()
}

/// For each cloud, the distance to the nearest of `all`. A few points first choose the eight nearest; the exact distances decide among
/// them.
fn nearest_of(clouds: &[Cloud], all: &[Cloud]) -> Result<Vec<f64>> {
    const FEW: usize = 128;
    let few = |clouds: &[Cloud]| clouds.iter().map(|cloud| cloud[..FEW.min(cloud.len())].to_vec()).collect::<Vec<_>>();
    let rough = chamfer_matrix(&few(clouds), &few(all))?;
    let exact = clouds.par_iter().zip(rough).map(|(cloud, row)| {
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
        let best: Vec<Cloud> = order.into_iter().take(8).map(|i| all[i].clone()).collect();
        Ok(nearest(&chamfer_matrix(from_ref(cloud), &best)?)[0])
    });
    exact.collect()
}

/// The median and the smallest of the distances, in thousandths.
fn spread(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [values.len() / 2, 0].map(|at| 1e3 * values.get(at).copied().unwrap_or(f64::NAN))
}

fn share(meshes: &[Mesh], test: impl Fn(&Mesh) -> bool) -> f64 {
    100.0 * meshes.iter().filter(|mesh| test(mesh)).count() as f64 / meshes.len().max(1) as f64
}

fn one_part(mesh: &Mesh) -> bool {
    mesh.components().len() == 1
}

/// Whether the solid is connected, whatever hollows it has inside; a hollow's surface looks inwards, so its volume is negative.
fn solid_in_one_part(mesh: &Mesh) -> bool {
    mesh.components().iter().filter(|part| part.volume() > 0.0).count() == 1
}

/// Draws a picture of ten columns, with the families in turn.
fn picture(meshes: &[Mesh], path: &Path) -> Result<()> {
    let plot = |mesh: &Mesh| MeshPlot::new(mesh).up(Axis::Z).size(150, 150).axes(false).picture();
    contact_sheet(&meshes.iter().take(10 * ROWS).map(plot).collect::<Result<Vec<_>>>()?, 10)?.save(path)
}

fn run(
    group: &ProcessGroup,
    model: &Path,
    pictures: &Path,
    [shapes, points, trained_on, seed]: [usize; 4],
) -> Result<()> {
    let generator = Generator::load(model, &group.local_device()?)?;
    let families = generator.classes().iter().map(|name| Family::from_name(name)).collect::<Result<Vec<_>>>()?;
    let shapes = shapes / families.len() * families.len();
    let config = generator.representation().config();
    let dataset =
        |count, split, resolution| ShapeDataset::procedural_grids(&families, count, DATA_SEED, split, resolution);
    let train = set("training shapes (the floor)", &dataset(trained_on, Split::Train, config.resolution)?, None);
    let held_out_grids = dataset(shapes, Split::HeldOut, config.resolution)?;
    let held_out = set("held-out shapes", &held_out_grids, None);
    let reference = clouds(&held_out.meshes, points, 1)?;
    let among_reference = distances(group, &reference, &reference)?;
    let train_clouds = clouds(&train.meshes, points, 2)?;

    let started = Instant::now();
    let drawn = GenerateOptions::new().seed(seed as u64);
    let grids = generated(group, &generator, shapes, &drawn.clone().tidy(false), None)?;
    let seconds = started.elapsed().as_secs_f64() / shapes as f64;
    let tidied: Vec<SdfGrid> = grids.par_iter().map(|grid| generator.tidied(grid.clone())).collect();
    let encode = |grid: &SdfGrid| -> Result<Vec<_>> {
        let mut codes = generator.representation().encode(grid)?;
        codes.truncate(1);
        Ok(codes)
    };
    let own = group.share(shapes);
    let coarse = held_out_grids[own.clone()].par_iter().map(encode).collect::<Result<Vec<_>>>()?;
    let options = drawn.clone().seed(drawn.seed + own.start as u64).batch_size(batch_size(&generator));
    let refined = gathered(group, &generator, shapes, generator.refine(coarse, &options)?)?;
    let sets = [
        set("WaveMesh", &tidied, Some(seconds)),
        set("the same, nothing removed", &grids, None),
        set("held-out stage 0, finer stages WaveMesh's", &refined, None),
        Set { meshes: train.meshes[..shapes.min(train.meshes.len())].to_vec(), ..train },
    ];
    if group.is_first() {
        picture(&sets[0].meshes, &pictures.join("generated.png"))?;
        picture(&held_out.meshes, &pictures.join("held_out.png"))?;
    }

    say!(group, "{}", include_str!("evaluate.md").trim_end());
    say!(
        group,
        "\n| {shapes} shapes, {points} points | 1-NNA | COV | MMD ×10³ | to the nearest training shape ×10³: median, least | watertight | in one part | the solid in one part | no surface | s/sample |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    let mut rows = Vec::new();
    for Set { name, meshes, empty, seconds } in &sets {
        let own = clouds(meshes, points, 3)?;
        let (among, between) = (distances(group, &own, &own)?, distances(group, &own, &reference)?);
        let score = SetComparison::new(&among, &between, &among_reference)?;
        let copies = if name.starts_with("training") {
            "itself".into()
        } else {
            let [median, least] = spread(nearest_of(&own, &train_clouds)?);
            format!("{median:.2}, {least:.2}")
        };
        let seconds = seconds.map(|s| format!("{s:.2}")).unwrap_or_default();
        say!(
            group,
            "| {name} | {:.1} % | {:.0} % | {:.2} | {copies} | {:.1} % | {:.1} % | {:.1} % | {empty} | {seconds} |",
            100.0 * score.one_nna,
            100.0 * score.coverage,
            1e3 * score.mmd,
            share(meshes, Mesh::is_watertight),
            share(meshes, one_part),
            share(meshes, solid_in_one_part),
        );
        rows.push((among, between));
    }
    let [median, least] = spread(nearest_of(&reference, &train_clouds)?);
    let twice = clouds(&held_out.meshes, points, 9)?;
    let same = twice.iter().zip(&reference).map(|(a, b)| Ok(chamfer_matrix(from_ref(a), from_ref(b))?[0][0]));
    let [itself, _] = spread(same.collect::<Result<_>>()?);
    say!(
        group,
        "\nHeld-out shapes lie {median:.2} (median) and {least:.2} (least) ×10⁻³ from their nearest training shape; {points} points of a surface \
         lie {itself:.2} ×10⁻³ from {points} others of the same surface, so a copy would show that distance, not 0."
    );
    let own = network_seconds(&generator)?;
    say!(
        group,
        "\nA sample takes {} evaluations of stage 0's network, and {} of each later one's. One evaluation of stage 0's takes {:.2} ms for one shape, {:.2} ms for {}.",
        drawn.sampler.steps(),
        drawn.detail_sampler.steps(),
        1e3 * own[0],
        1e3 * own[1],
        BATCH
    );
    by_family(group, &families, &sets, &held_out_grids, &generator, &rows, &among_reference)?;
    from_pictures(group, &generator, (&held_out_grids, &held_out.meshes, &reference), (&drawn, points), pictures)?;
    let few = EDGES_OF.min(shapes);
    let finer = dataset(few, Split::HeldOut, 2 * config.resolution)?;
    edges(group, [&held_out_grids[..few], &refined[..few]], &generator, &finer)
}

/// A table of shapes that are drawn from pictures of held-out shapes: how near they come to the shape of the picture.
fn from_pictures(
    group: &ProcessGroup,
    generator: &Generator,
    (held_out, held_out_meshes, reference): (&[SdfGrid], &[Mesh], &[Cloud]),
    (drawn, points): (&GenerateOptions, usize),
    folder: &Path,
) -> Result<()> {
    if !generator.stages()[0].network.config().use_attention {
        return Ok(());
    }
    let shown = SHOWN.min(held_out.len());
    let picture = |(at, grid): (usize, &SdfGrid)| {
        // Golden angles, which are spread evenly however many there are.
        let viewpoint = Viewpoint { azimuth: 137.5 * at as f32 % 360.0, elevation: 7.0 * at as f32 % 45.0 };
        grid.depth_image(viewpoint, ShapeViews::SIZE)
    };
    let pictures = held_out[..shown].par_iter().enumerate().map(picture).collect::<Result<Vec<_>>>()?;
    let context = |pictures: &[DepthImage]| -> Result<Tensor> {
        let rows = pictures.iter().map(|picture| picture.patches(ShapeViews::PATCHES)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&rows, 0)?)
    };
    let silhouettes = context(&pictures.iter().map(DepthImage::silhouette).collect::<Vec<_>>())?;
    let depths = context(&pictures)?;
    let options = drawn.clone().batch_size(batch_size(generator));
    say!(group, "\n## From pictures\n");
    say!(
        group,
        "Stage 0 attends to the patches of a picture of {0}×{0} pixels: a depth image, or a silhouette. Here are ten held-out shapes from golden angles, up to 45° above the ground; \
         below each depth image the shape that was drawn from it, without its family, and the held-out shape itself:\n\n\
         ![Depth images, the shapes drawn from them, and the shapes they show](images/from_pictures.png)\n",
        ShapeViews::SIZE
    );
    say!(
        group,
        "| {shown} held-out shapes | mean IoU with the shape | Chamfer distance ×10³: median | in one part |\n| --- | ---: | ---: | ---: |"
    );
    for (name, grids) in [
        ("told the family alone", generated(group, generator, shown, drawn, None)?),
        ("told a silhouette", generator.generate(shown, &options.clone().context(silhouettes))?),
        ("told a depth image", generator.generate(shown, &options.clone().context(depths.clone()))?),
        (
            "the same, guided by 2",
            generator.generate(shown, &options.clone().context(depths.clone()).guidance_scale(2.0))?,
        ),
        ("told a depth image and the family", generated(group, generator, shown, drawn, Some(&depths))?),
    ] {
        let ious = grids.par_iter().zip(held_out).map(|(a, b)| iou_of_grids(a, b)).collect::<Result<Vec<_>>>()?;
        let made = set(name, &grids, None);
        if name == "told a depth image" && group.is_first() {
            sheet_of_pictures(&pictures, [&made.meshes, held_out_meshes], folder)?;
        }
        let own = clouds(&made.meshes, points, 3)?;
        let apart = own.iter().zip(reference).map(|(a, b)| Ok(chamfer_matrix(from_ref(a), from_ref(b))?[0][0]));
        let [median, _] = spread(apart.collect::<Result<_>>()?);
        let iou = ious.iter().sum::<f64>() / ious.len() as f64;
        say!(group, "| {name} | {iou:.3} | {median:.2} | {:.1} % |", share(&made.meshes, one_part));
    }
    Ok(())
}

/// Draws depth images, the shapes that were drawn from them, and the shapes of which they were taken, in three rows of ten.
fn sheet_of_pictures(images: &[DepthImage], [made, real]: [&[Mesh]; 2], folder: &Path) -> Result<()> {
    const SIDE: u32 = 150;
    let plot = |mesh: &Mesh| MeshPlot::new(mesh).up(Axis::Z).size(SIDE, SIDE).axes(false).picture();
    let rows = images.iter().take(10).map(|image| Picture::of_depth(image, SIDE));
    let rows = rows.chain(made.iter().take(10).map(plot)).chain(real.iter().take(10).map(plot));
    contact_sheet(&rows.collect::<Result<Vec<_>>>()?, 10)?.save(folder.join("from_pictures.png"))
}

/// A table of edges: how well a plain grid, the representation and the generated finer stages keep them.
fn edges(
    group: &ProcessGroup,
    [plain, refined]: [&[SdfGrid]; 2],
    generator: &Generator,
    finer: &[SdfGrid],
) -> Result<()> {
    let references = finer.par_iter().map(SdfGrid::to_mesh).collect::<Result<Vec<_>>>()?;
    let mean = |of: &(dyn Fn(usize) -> Result<Mesh> + Sync)| -> Result<[f64; 2]> {
        let angles = |at: usize| EdgeNormals::new().error(&of(at)?, &references[at]);
        let angles = (0..references.len()).into_par_iter().map(angles).collect::<Result<Vec<_>>>()?;
        let angles: Vec<f64> = angles.into_iter().flatten().collect();
        Ok([angles.iter().sum::<f64>() / angles.len() as f64, angles.iter().copied().fold(0.0, f64::max)])
    };
    let representation = generator.representation();
    let n = representation.config().resolution;
    let EdgeNormals { radius, bend, samples, .. } = EdgeNormals::new();
    say!(group, "\n## Edges\n");
    say!(
        group,
        "| the first {} held-out shapes | mean angle between normals | the worst shape's |\n| --- | ---: | ---: |",
        references.len()
    );
    for (name, [angle, worst]) in [
        (format!("a {n}³ grid of exact distances"), mean(&|at| plain[at].to_mesh())?),
        (
            "the representation".into(),
            mean(&|at| representation.decode(&representation.encode(&plain[at])?)?.to_mesh())?,
        ),
        ("held-out stage 0, finer stages WaveMesh's".into(), mean(&|at| refined[at].to_mesh())?),
    ] {
        say!(group, "| {name} | {angle:.1}° | {worst:.1}° |");
    }
    say!(
        group,
        "\nNormals are those of {samples} points of the same solid on a {0}³ grid near which it turns by more than {bend}° within {radius}, and of the nearest \
         points of each surface (`EdgeNormals`). A shape that is generated whole has no such reference.",
        2 * n
    );
    Ok(())
}

/// A table of families: their parts of the matrices, and how much the representation keeps.
fn by_family(
    group: &ProcessGroup,
    families: &[Family],
    sets: &[Set],
    held_out: &[SdfGrid],
    generator: &Generator,
    matrices: &[(Matrix, Matrix)],
    among_reference: &[Vec<f64>],
) -> Result<()> {
    say!(group, "\n## Family by family\n");
    let levels = generator.representation().stages();
    let stages = (1..=levels).map(|n| format!(" IoU of {n} stage{} |", if n > 1 { "s" } else { "" }));
    say!(group, "| | 1-NNA | floor | in one part | floor |{}", stages.collect::<String>());
    say!(group, "| --- | ---: | ---: | ---: | ---: |{}", " ---: |".repeat(levels));
    let mut least = vec![1f64; levels];
    for (at, family) in families.iter().enumerate() {
        let part = |matrix: &[Vec<f64>]| -> Matrix {
            let row = |row: &Vec<f64>| row.iter().skip(at).step_by(families.len()).copied().collect();
            matrix.iter().skip(at).step_by(families.len()).map(row).collect()
        };
        let one_nna = |set: usize| -> Result<String> {
            if sets[set].empty > 0 {
                return Ok("".into()); // the rows are no longer in turn
            }
            let (among, between) = &matrices[set];
            let score = SetComparison::new(&part(among), &part(between), &part(among_reference))?;
            Ok(format!("{:.0} %", 100.0 * score.one_nna))
        };
        let own =
            |set: usize| -> Vec<Mesh> { sets[set].meshes.iter().skip(at).step_by(families.len()).cloned().collect() };
        let floor = sets.len() - 1;
        let whole = [0, floor].map(|set| format!("{:.0} %", share(&own(set), one_part)));
        let mut sums = vec![0f64; levels];
        let grids: Vec<&SdfGrid> = held_out.iter().skip(at).step_by(families.len()).collect();
        for grid in &grids {
            let codes = generator.representation().encode(grid)?;
            for stages in 1..=levels {
                let iou = iou_of_grids(&generator.representation().decode(&codes[..stages])?, grid)?;
                sums[stages - 1] += iou / grids.len() as f64;
                least[stages - 1] = least[stages - 1].min(iou);
            }
        }
        let kept: String = sums.iter().map(|iou| format!(" {iou:.3} |")).collect();
        let [whole, whole_floor] = whole;
        say!(group, "| {} | {} | {} | {whole} | {whole_floor} |{kept}", family.name(), one_nna(0)?, one_nna(floor)?);
    }
    let least: String = least.iter().map(|iou| format!(" {iou:.3} |")).collect();
    say!(group, "| least of all | | | | |{least}");
    say!(group, "\n*IoU*: what the representation itself keeps of held-out shapes, their mean.");
    Ok(())
}

fn main() -> ExitCode {
    wavemesh::let_candle_rest();
    wavemesh::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| arguments.get(at).map_or(Some(default), |text| text.parse().ok());
    let numbers = [number(2, 500), number(3, 2048), number(4, TRAINED_ON), number(5, SEED)];
    let ([Some(shapes), Some(points), Some(trained_on), Some(seed)], 2..=6) = (numbers, arguments.len()) else {
        eprintln!("usage: evaluate GENERATOR FOLDER-OF-PICTURES [SHAPES [POINTS [TRAINING-SHAPES [SEED]]]]");
        return ExitCode::FAILURE;
    };
    let done = ProcessGroup::from_environment().and_then(|group| {
        let [model, pictures] = [&arguments[0], &arguments[1]].map(Path::new);
        run(&group, model, pictures, [shapes, points, trained_on, seed]).inspect_err(|error| group.fail(error))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
