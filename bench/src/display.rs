//! Displays: what a notebook receives when a value shows itself.

use wavemesh::mesh::Mesh;
use wavemesh::notebook::{MeshPlot, MeshViewer, MimeBundle, Rich, SliceGrid, VoxelPlot, VoxelViewer, Voxels};
use wavemesh::prelude::SparseConvTensor;

use crate::work::{Answer, Case, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    match case.op.as_str() {
        "voxel_plot" => {
            let voxels = voxels(case)?;
            let shown = voxels.len();
            shows(shown, move || Ok(VoxelPlot::new(&voxels)?.size(800, 600).rich()), png)
        }
        "voxel_viewer" => {
            let voxels = voxels(case)?;
            let shown = voxels.len();
            shows(shown, move || Ok(VoxelViewer::new(&voxels)?.rich()), html)
        }
        "sparse_card" => {
            let voxels = voxels(case)?;
            let shown = voxels.len();
            let features = case.tensor("values")?.reshape((shown, 1))?;
            let sites = voxels.sites().iter().map(|&[x, y, z]| [0, z, y, x]).collect();
            let tensor = SparseConvTensor::from_coords(features, sites, voxels.shape(), 1)?;
            shows(shown, move || Ok(tensor.rich()), html)
        }
        "mesh_plot" => {
            let mesh = mesh(case)?;
            let shown = mesh.faces().len();
            shows(shown, move || Ok(MeshPlot::new(&mesh).size(800, 600).rich()), png)
        }
        "mesh_viewer" => {
            let mesh = mesh(case)?;
            let shown = mesh.faces().len();
            shows(shown, move || Ok(MeshViewer::new(&mesh).rich()), html)
        }
        "tensor_card" => {
            let tensor = case.tensor("values")?;
            shows(tensor.elem_count(), move || Ok(tensor.rich()), html)
        }
        "slice_grid" => {
            let grid = case.tensor("grid")?;
            shows(grid.elem_count(), move || Ok(SliceGrid::new(&grid)?.rich()), png)
        }
        _ => Err(case.unknown_op()),
    }
}

fn voxels(case: &Case) -> Result<Voxels> {
    let sites = case.values::<i32>("sites")?.as_chunks().0.to_vec();
    let side: usize = case.param("side")?;
    Ok(Voxels::new(sites, [side; 3], vec![case.values("values")?])?)
}

fn mesh(case: &Case) -> Result<Mesh> {
    let vertices = case.values::<f32>("vertices")?.as_chunks().0.to_vec();
    let faces = case.values::<i64>("faces")?.as_chunks::<3>().0.iter().map(|f| f.map(|v| v as u32)).collect();
    Ok(Mesh::new(vertices, faces)?)
}

/// Work that makes a display; the table lists `bytes` of what the page shows.
fn shows(
    shown: usize,
    make: impl FnMut() -> wavemesh::Result<MimeBundle> + 'static,
    bytes: fn(&MimeBundle) -> usize,
) -> Result<Work> {
    Ok(Work::new(make, move |bundle: &MimeBundle| {
        Ok(Answer::default().values("shown", &[shown as i64], &[1])?.fact("bytes", bytes(bundle)))
    }))
}

fn html(bundle: &MimeBundle) -> usize {
    bundle.get("text/html").map_or(0, str::len)
}

fn png(bundle: &MimeBundle) -> usize {
    bundle.png_bytes().map_or(0, |file| file.len())
}
