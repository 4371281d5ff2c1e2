//! Mesh to distance grid, and grid to mesh.

use wavemesh::mesh::Mesh;
use wavemesh::sdf::{SdfConfig, SdfGrid, SdfSign};

use crate::work::{Answer, Case, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    match case.op.as_str() {
        "distance" => {
            let vertices = case.values::<f32>("vertices")?.as_chunks().0.to_vec();
            let faces = case.values::<i64>("faces")?.as_chunks::<3>().0.iter().map(|f| f.map(|v| v as u32)).collect();
            let mesh = Mesh::new(vertices, faces)?;
            let sign = if case.option("unsigned")? { SdfSign::Unsigned } else { SdfSign::Signed };
            let config = SdfConfig::new().shape([case.param("n")?; 3]).sign(sign);
            let answer = |sdf: &SdfGrid| Answer::default().values("distance", sdf.values(), &sdf.shape());
            Ok(Work::new(move || SdfGrid::from_mesh_with(&mesh, &config), answer))
        }
        "marching_cubes" => {
            let &[nx, ny, nz] = case.tensor("grid")?.dims() else { return Err("the grid must have three axes".into()) };
            let sdf = SdfGrid::from_values(case.values("grid")?, [nx, ny, nz])?;
            Ok(Work::new(
                move || sdf.to_mesh(),
                |mesh: &Mesh| {
                    let answer = Answer::default().values("area", &[mesh.area()], &[1])?;
                    Ok(answer.values("volume", &[mesh.volume()], &[1])?.fact("triangles", mesh.faces().len()))
                },
            ))
        }
        _ => Err(case.unknown_op()),
    }
}
