//! What the kernel's `:vars` shows about a value of the library: its shape, and the bytes that it holds on the heap.

use std::any::Any;

use candle_core::Tensor;

use crate::mesh::Mesh;
use crate::sdf::SdfGrid;
use crate::sparse::SparseConvTensor;

/// The bytes that a value holds on the heap, and its shape, for the main types; `None` for others.
///
/// # Examples
///
/// ```
/// use candle_core::{DType, Device, Tensor};
///
/// let zeros = Tensor::zeros((2, 3), DType::F64, &Device::Cpu)?;
/// assert_eq!(wavemesh::notebook::describe(&zeros), Some((48, "2 × 3".to_owned())));
/// assert_eq!(wavemesh::notebook::describe(&"text"), None);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn describe(value: &dyn Any) -> Option<(usize, String)> {
    if let Some(tensor) = value.downcast_ref::<Tensor>() {
        return Some((bytes_of(tensor), product(tensor.dims())));
    }
    if let Some(grid) = value.downcast_ref::<SdfGrid>() {
        return Some((size_of_val(grid.values()), product(&grid.shape())));
    }
    if let Some(mesh) = value.downcast_ref::<Mesh>() {
        let (vertices, faces) = (mesh.vertices(), mesh.faces());
        let shape = format!("{} vertices, {} faces", vertices.len(), faces.len());
        return Some((size_of_val(vertices) + size_of_val(faces), shape));
    }
    let tensor = value.downcast_ref::<SparseConvTensor>()?;
    let shape = format!("{} sites × {} channels", tensor.len(), tensor.channels());
    Some((bytes_of(tensor.features()) + size_of_val(tensor.coords()), shape))
}

fn bytes_of(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

/// `2 × 3`; empty for a scalar.
fn product(sides: &[usize]) -> String {
    let sides: Vec<String> = sides.iter().map(usize::to_string).collect();
    if sides.is_empty() { "scalar".to_owned() } else { sides.join(" × ") }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::sdf::shapes;

    #[test]
    fn shapes_and_bytes_are_those_of_what_a_value_holds() -> crate::Result<()> {
        let tensor = Tensor::zeros((4, 1, 2), DType::F32, &Device::Cpu)?;
        assert_eq!(describe(&tensor), Some((32, "4 × 1 × 2".to_owned())));
        assert_eq!(describe(&Tensor::new(1u8, &Device::Cpu)?), Some((1, "scalar".to_owned())));
        let mesh = Mesh::new(vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], vec![[0, 1, 2]])?;
        assert_eq!(describe(&mesh), Some((48, "3 vertices, 1 faces".to_owned())));
        let grid = SdfGrid::from_mesh(&shapes::sphere(0.5).to_mesh(8)?, 16)?;
        assert_eq!(describe(&grid), Some((4 * 16 * 16 * 16, "16 × 16 × 16".to_owned())));
        assert_eq!(describe(&7u8), None);
        Ok(())
    }
}
