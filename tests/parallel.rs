//! Many threads use one value at the same time: every worker of a pool gets the answer that one thread gets, and nothing is lost.

mod folder;

use std::sync::mpsc;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use rayon::prelude::*;
use wavemesh::Error;
use wavemesh::mesh::Mesh;
use wavemesh::sdf::{SdfGrid, shapes};
use wavemesh::sparse::*;
use wavemesh::task::CancellationToken;
use wavemesh::wavelet::{SparseWavelet, WaveletConfig};

use folder::Folder;

/// Fails if `body` hangs, instead of waiting for ever. The limit is no measurement: it is far longer than any machine needs.
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

/// Sites that no other tensor shares, so that every kernel map is new; there are enough for several tiles of rows.
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
        let keyed = |stride: usize| ConvConfig::new().stride(stride).padding(1).key(format!("stride {stride}"));
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

    /// The result, and a gradient through all layers.
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

#[test]
fn running_statistics_count_the_batches_of_all_threads() {
    let (threads, batches, momentum) = (8, 50, 0.001);
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    let config = BatchNormConfig { momentum, ..Default::default() };
    let norm = BatchNorm::with_config(4, config, vb).unwrap();
    let x = fresh(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..batches).for_each(|_| drop(norm.forward_t(&x, true).unwrap())));
        }
    });
    // Every batch has the same mean; the running mean moves from 0 towards it, each time by a share of the difference.
    let mean: Vec<f32> = x.features().mean(0).unwrap().to_vec1().unwrap();
    let reached = 1.0 - (1.0 - momentum).powi(threads * batches);
    let running: Vec<f32> = norm.running_mean().to_vec1().unwrap();
    for (running, mean) in running.iter().zip(mean) {
        assert!((running - mean * reached as f32).abs() < 1e-4 * mean.abs().max(0.01), "{running} of {mean}");
    }
}

#[test]
fn threads_that_save_to_one_path_leave_a_whole_file() {
    let folder = Folder::new("parallel");
    let meshes: Vec<_> = [16, 20].map(|n| shapes::sphere(0.7).to_mesh(n).unwrap()).into();
    let coefficients = shapes::sphere(0.7).to_grid(16).unwrap().encode(&WaveletConfig::default()).unwrap();
    let (obj, npz) = (folder.join("mesh.obj"), folder.join("wavelet.npz"));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (meshes, coefficients, obj, npz) = (&meshes, &coefficients, &obj, &npz);
            scope.spawn(move || {
                for _ in 0..10 {
                    meshes[thread % 2].save(obj).unwrap();
                    coefficients.save(npz).unwrap();
                }
            });
        }
    });
    let found = Mesh::load(&obj).unwrap();
    assert!(meshes.iter().any(|mesh| mesh.faces().len() == found.faces().len()));
    assert_eq!(SparseWavelet::load(&npz).unwrap(), coefficients);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn one_of_many_computations_is_stopped_and_the_others_go_on() {
    let mesh = shapes::torus(0.6, 0.25).to_mesh(32).unwrap();
    let tokens: Vec<CancellationToken> = (0..4).map(|_| CancellationToken::new()).collect();
    tokens[2].cancel();
    let run = |token: &CancellationToken| token.run(|| SdfGrid::from_mesh(&mesh, 24));
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = tokens.iter().map(|token| scope.spawn(|| run(token))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, result) in results.iter().enumerate() {
        assert_eq!(matches!(result, Err(Error::Interrupted)), n == 2, "computation {n}");
        assert!(n == 2 || result.is_ok());
    }
    assert!(SdfGrid::from_mesh(&mesh, 24).is_ok(), "a stop is not left over for the next call");
}

#[test]
fn a_backend_chosen_for_a_tensor_holds_on_every_thread() {
    let layers = Layers::new();
    let (native, dense) = (fresh(1), fresh(1).on_backend(Backend::Dense));
    let expected = layers.same.forward(&native).unwrap().features().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let found: Vec<_> = pool.install(|| (0..8).into_par_iter().map(|_| layers.same.forward(&dense).unwrap()).collect());
    for y in found {
        assert_eq!(y.backend().unwrap(), Backend::Dense);
        let values = y.features().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
