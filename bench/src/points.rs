//! Points: into voxels and back, and attention among sites.

use wavemesh::points::{Interpolation, VoxelConfig, Voxelizer, devoxelize};
use wavemesh::sparse::{AttentionGroups, SparseConvTensor, no_grad, sparse_attention};

use crate::work::{Answer, Case, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    match case.op.as_str() {
        "voxelize" => {
            let points = case.tensor("points")?;
            let config = VoxelConfig::new()
                .voxel_size([0.1, 0.1, 0.2])
                .range([0.0, -40.0, -3.0, 70.4, 40.0, 1.0])
                .max_points_per_voxel(40)
                .max_voxels(120_000);
            let voxelizer = Voxelizer::new(config)?;
            Ok(Work::new(
                move || voxelizer.voxelize(&[&points]),
                |voxels| {
                    let sites: Vec<i64> =
                        voxels.tensor.coords().iter().flat_map(|site| site[1..].iter().map(|&v| v.into())).collect();
                    let answer = Answer::default().values("sites", &sites, &[voxels.tensor.len(), 3])?;
                    answer.tensor("mean", voxels.tensor.features())
                },
            ))
        }
        "devoxelize" => {
            let x = SparseConvTensor::new(case.tensor("features")?, case.tensor("indices")?, [20, 800, 704], 1)?;
            let positions = case.tensor("positions")?;
            Ok(Work::new(
                move || devoxelize(&x, &positions, Interpolation::Trilinear),
                |features| Answer::default().tensor("features", features),
            ))
        }
        "attention" => {
            let [q, k, v] = ["q", "k", "v"].map(|name| case.tensor(name));
            let (q, k, v) = (q?, k?, v?);
            let side = case.param("side")?;
            let features = q.flatten_from(1)?;
            let x = SparseConvTensor::new(features, case.tensor("indices")?, [side; 3], 1)?;
            let groups = AttentionGroups::Windowed { size: [8; 3], shift: [0; 3] };
            Ok(Work::new(
                move || no_grad(|| sparse_attention(&x, &q, &k, &v, &groups)),
                |features| Answer::default().tensor("features", features),
            ))
        }
        _ => Err(case.unknown_op()),
    }
}
