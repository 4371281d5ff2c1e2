//! Reads mesh files and measures meshes.

use wavemesh::mesh::Mesh;

use crate::work::{Answer, Case, Result, Work};

pub fn prepare(case: &Case) -> Result<Work> {
    match case.op.as_str() {
        "read" => {
            let format: String = case.param("format")?;
            let folder = tempfile::tempdir()?;
            let name = format!("mesh.{format}");
            std::fs::write(folder.path().join(&name), case.values::<u8>("file")?)?;
            let run = move || -> Result<_> {
                let mesh = Mesh::load(folder.path().join(&name))?;
                let (area, volume, watertight) = (mesh.area(), mesh.volume(), mesh.is_watertight());
                Ok((mesh, area, volume, watertight))
            };
            Ok(Work::new(run, |(mesh, area, volume, watertight)| {
                let counts = [mesh.vertices().len() as i64, mesh.faces().len() as i64, i64::from(*watertight)];
                let answer = Answer::default().values("area", &[*area], &[1])?.values("volume", &[*volume], &[1])?;
                answer.values("counts", &counts, &[3])
            }))
        }
        _ => Err(case.unknown_op()),
    }
}
