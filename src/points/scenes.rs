//! Synthetic labelled scenes, for trying a network for points without a download: a street scanned by a LiDAR, and a scanned room.

use candle_core::{Device, Tensor};
use rand::Rng;

use super::cloud::PointCloud;
use crate::{Result, random};

/// Points, and the class of each.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The points, in metres, z up.
    pub cloud: PointCloud,
    /// The classes (points,), `i64`, as indices into [`classes`](Self::classes).
    pub labels: Tensor,
    /// Names of the classes.
    pub classes: [&'static str; 4],
}

impl Scene {
    fn new(rows: Vec<f32>, labels: Vec<i64>, classes: [&'static str; 4]) -> Result<Self> {
        let count = labels.len();
        let points = Tensor::from_vec(rows, (count, 3), &Device::Cpu)?;
        let labels = Tensor::from_vec(labels, count, &Device::Cpu)?;
        Ok(Self { cloud: PointCloud::new(&points, &[])?, labels, classes })
    }
}

/// A box, given by its lowest and highest corner (x, y, z), with a class.
struct Block {
    low: [f32; 3],
    high: [f32; 3],
    class: i64,
}

impl Block {
    fn new(low: [f32; 3], high: [f32; 3], class: i64) -> Self {
        Self { low, high, class }
    }

    /// How far along a ray the box begins, if the ray meets it.
    fn enter(&self, from: [f32; 3], along: [f32; 3]) -> Option<f32> {
        let (mut near, mut far) = (0f32, f32::INFINITY);
        for a in 0..3 {
            let (p, q) = ((self.low[a] - from[a]) / along[a], (self.high[a] - from[a]) / along[a]);
            near = near.max(p.min(q));
            far = far.min(p.max(q));
        }
        (near < far && near > 0.0).then_some(near)
    }
}

/// A street seen by a scanner 1.8 m above it, with 32 beams in 720 directions up to 30 m: road, cars, houses and poles, at places that
/// depend on `seed`. About 20,000 points, with errors of up to 2 cm along their rays.
///
/// ```
/// let street = wavemesh::points::street(0)?;
/// assert!(street.cloud.len() > 15_000);
/// assert_eq!(street.classes, ["road", "car", "house", "pole"]);
/// # Ok::<(), wavemesh::Error>(())
/// ```
///
/// # Errors
/// An error of candle.
pub fn street(seed: u64) -> Result<Scene> {
    let mut rng = random::rng(seed, 0);
    let mut blocks = vec![Block::new([-1e3, -1e3, -1.0], [1e3, 1e3, 0.0], 0)];
    for side in [-1f32, 1.0] {
        for i in 0..4 {
            let (x, y) = (rng.random_range(-20.0..16.0), side * rng.random_range(3.5..5.0));
            blocks.push(Block::new([x, y - 0.9, 0.1], [x + 4.2, y + 0.9, 1.5], 1));
            let (x, y) = (i as f32 * 11.0 - 22.0, side * rng.random_range(9.0..11.0));
            let (width, height) = (rng.random_range(6.0..10.0), rng.random_range(4.0..7.0));
            blocks.push(Block::new([x, y - 2.0, 0.0], [x + width, y + 2.0, height], 2));
            let (x, y) = (rng.random_range(-22.0..22.0), side * 6.8);
            blocks.push(Block::new([x, y, 0.0], [x + 0.25, y + 0.25, 5.0], 3));
        }
    }
    let (from, mut rows, mut labels) = ([0.0, 0.0, 1.8], Vec::new(), Vec::new());
    for beam in 0..32 {
        let up = (-24.0 + beam as f32 * 1.1).to_radians();
        for step in 0..720 {
            let around = (step as f32 / 2.0 + 0.01).to_radians();
            let along = [up.cos() * around.cos(), up.cos() * around.sin(), up.sin() + 1e-6];
            let met = blocks.iter().filter_map(|block| Some((block.enter(from, along)?, block.class)));
            let first = met.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(range, _)| *range < 30.0);
            if let Some((range, class)) = first {
                let range = range + rng.random_range(-0.02..0.02);
                rows.extend((0..3).map(|a| from[a] + along[a] * range));
                labels.push(class);
            }
        }
    }
    Scene::new(rows, labels, ["road", "car", "house", "pole"])
}

/// A scanned room of 5 × 4 × 2.5 m with 900 points per square metre: floor, walls, a table and chairs, at places that depend on `seed`.
/// About 87,000 points, with errors of up to 4 mm.
///
/// ```
/// let room = wavemesh::points::room(0)?;
/// assert_eq!(room.labels.dims(), [room.cloud.len()]);
/// # Ok::<(), wavemesh::Error>(())
/// ```
///
/// # Errors
/// An error of candle.
pub fn room(seed: u64) -> Result<Scene> {
    let mut rng = random::rng(seed, 1);
    let mut blocks = vec![
        Block::new([0.0, 0.0, -0.1], [5.0, 4.0, 0.0], 0),
        Block::new([-0.1, 0.0, 0.0], [0.0, 4.0, 2.5], 1),
        Block::new([0.0, 4.0, 0.0], [5.0, 4.1, 2.5], 1),
    ];
    let (x, y) = (rng.random_range(1.0..2.8), rng.random_range(0.8..2.0));
    blocks.push(Block::new([x, y, 0.7], [x + 1.4, y + 0.8, 0.75], 2));
    for (dx, dy) in [(0.0, 0.0), (1.33, 0.0), (0.0, 0.73), (1.33, 0.73)] {
        blocks.push(Block::new([x + dx, y + dy, 0.0], [x + dx + 0.07, y + dy + 0.07, 0.7], 2));
    }
    for _ in 0..3 {
        let (x, y) = (rng.random_range(0.2..4.2), rng.random_range(0.2..3.2));
        blocks.push(Block::new([x, y, 0.42], [x + 0.42, y + 0.42, 0.46], 3));
        blocks.push(Block::new([x, y, 0.46], [x + 0.42, y + 0.05, 0.95], 3));
        for (dx, dy) in [(0.0, 0.0), (0.38, 0.0), (0.0, 0.38), (0.38, 0.38)] {
            blocks.push(Block::new([x + dx, y + dy, 0.0], [x + dx + 0.04, y + dy + 0.04, 0.42], 3));
        }
    }
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for Block { low, high, class } in blocks {
        let side: [f32; 3] = std::array::from_fn(|a| high[a] - low[a]);
        for axis in 0..3 {
            let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
            for end in [low[axis], high[axis]] {
                for _ in 0..(side[u] * side[v] * 900.0) as usize + 4 {
                    let mut point = [0f32; 3];
                    point[axis] = end;
                    point[u] = low[u] + side[u] * rng.random::<f32>();
                    point[v] = low[v] + side[v] * rng.random::<f32>();
                    rows.extend(point.map(|at| at + rng.random_range(-0.004..0.004)));
                    labels.push(class);
                }
            }
        }
    }
    Scene::new(rows, labels, ["floor", "wall", "table", "chair"])
}
