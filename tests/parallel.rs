//! One value used by many threads at once: every worker of a pool gets the answer that one thread gets.

use std::sync::mpsc;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use rayon::prelude::*;
use wavemesh::sparse::*;

/// Fails instead of waiting for good when `body` hangs. The limit is no measurement: it is far beyond what any machine needs.
fn ends<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || sender.send(body()));
    let result = receiver.recv_timeout(Duration::from_secs(900));
    match result {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the threads wait for each other"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(worker.join().unwrap_err()),
    }
}

/// Sites that no other tensor shares, so that every kernel map is new; enough for several tiles of rows.
fn fresh(seed: i32) -> SparseConvTensor {
    let coords: Vec<[i32; 4]> = (0..900).map(|n| [0, n / 90, n / 9 % 10, n % 9 * 2 + seed % 2]).collect();
    let value = |n: usize| ((n * 37 + seed as usize) % 101) as f32 / 50.0 - 1.0;
    let features = Tensor::from_vec((0..900 * 4).map(value).collect(), (900, 4), &Device::Cpu).unwrap();
    SparseConvTensor::from_coords(features, coords, [10, 10, 18], 1).unwrap()
}

/// Layers that need kernel maps of every kind, in both directions.
struct Layers {
    same: SubMConv3d,
    down: SparseConv3d,
    up: SparseInverseConv3d,
    pool: SparseMaxPool3d,
}

impl Layers {
    fn new() -> Self {
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let keyed = |stride: usize| ConvConfig {
            stride: [stride; 3],
            padding: [1; 3],
            indice_key: Some(format!("stride {stride}")),
            ..Default::default()
        };
        let layers = Self {
            same: SubMConv3d::new(4, 4, 3, keyed(1), vb.pp("same")).unwrap(),
            down: SparseConv3d::new(4, 4, 3, keyed(2), vb.pp("down")).unwrap(),
            up: SparseInverseConv3d::new(4, 4, 3, keyed(2), vb.pp("up")).unwrap(),
            pool: SparseMaxPool3d::new(2, PoolConfig::default()).unwrap(),
        };
        for var in vars.all_vars() {
            let values = (0..var.elem_count()).map(|n| (n * 29 % 17) as f32 / 17.0 - 0.5).collect();
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
        }
        layers
    }

    /// The result, and a gradient that went through all layers.
    fn run(&self, x: &SparseConvTensor) -> Vec<f32> {
        let same = self.same.forward(x).unwrap();
        let up = self.up.forward(&self.down.forward(&same).unwrap()).unwrap();
        let pooled = self.pool.forward(&same).unwrap();
        let sum = (up.features().sum_all().unwrap() + pooled.features().sum_all().unwrap()).unwrap();
        let gradients = sum.backward().unwrap();
        let all =
            [up.features(), gradients.get(self.same.weight()).unwrap()].map(|tensor| tensor.flatten_all().unwrap());
        Tensor::cat(&all, 0).unwrap().to_vec1().unwrap()
    }
}

#[test]
fn all_workers_of_a_pool_may_meet_the_same_new_sites() {
    for workers in [8, 16] {
        ends(move || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().unwrap();
            let layers = Layers::new();
            for seed in 0..100 {
                let expected = layers.run(&fresh(seed));
                let x = fresh(seed);
                let found: Vec<_> = pool.install(|| (0..workers).into_par_iter().map(|_| layers.run(&x)).collect());
                assert!(found.iter().all(|found| *found == expected), "{workers} workers, tensor {seed}");
            }
        });
    }
}
