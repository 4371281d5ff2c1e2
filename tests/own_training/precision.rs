//! Mixed precision.

use candle_core::{DType, Tensor};
use candle_nn::{VarBuilder, VarMap};
use wavemesh::Result;
use wavemesh::sparse::*;

use super::{blocks, input, parameters, scalar, tensor, variables_of};

/// Layers in f64 with outputs and gradients rounded to half precision: what mixed precision should compute.
struct Rounded(SparseSequential, DType);

impl SparseModule for Rounded {
    fn forward_t(&self, x: &SparseConvTensor, train: bool) -> Result<SparseConvTensor> {
        let round = |x: SparseConvTensor| x.replace_feature(x.features().to_dtype(self.1)?.to_dtype(DType::F64)?);
        self.0.layers().try_fold(round(x.clone())?, |x, layer| round(layer.forward_t(&x, train)?))
    }
}

/// The output of a network of these parameters in training, and the gradient of each.
fn output_and_gradients(network: &SparseSequential, variables: &VarMap, dtype: DType) -> Vec<(String, Tensor)> {
    let y = network.forward_t(&input(3, dtype), true).unwrap();
    assert_eq!(y.dtype(), dtype);
    let direction = tensor(y.features().dims(), 4).to_dtype(dtype).unwrap();
    let grads = (y.features() * direction).unwrap().sum_all().unwrap().backward().unwrap();
    let mut found = vec![("y".to_string(), y.features().detach())];
    for (name, var) in parameters(variables) {
        let grad = grads.get(&var).unwrap().clone();
        assert_eq!(grad.dtype(), dtype, "{name}");
        found.push((name, grad));
    }
    found
}

#[test]
fn mixed_precision_rounds_features_and_nothing_else() {
    let (_, drawn) = variables_of(DType::F32, 7, |vb| blocks(&vb, |block| block));
    // Networks with the same parameters.
    let with = |dtype, wrap: &dyn Fn(VarBuilder) -> Result<SparseSequential>| {
        let (network, variables) = variables_of(dtype, 7, wrap);
        for (name, var) in parameters(&variables) {
            let drawn = drawn.data().lock().unwrap()[&name].to_dtype(dtype).unwrap();
            var.set(&drawn).unwrap();
        }
        output_and_gradients(&network, &variables, dtype)
    };
    let length = |t: &Tensor| scalar(&t.to_dtype(DType::F64).unwrap().sqr().unwrap()).sqrt();
    let off = |a: &Tensor, b: &Tensor| length(&(a.to_dtype(DType::F64).unwrap() - b).unwrap()) / length(b);
    let exact = with(DType::F64, &|vb| blocks(&vb, |block| block));
    for dtype in [DType::F16, DType::BF16] {
        let rounded = with(DType::F64, &|vb| blocks(&vb, |block| Rounded(block, dtype)));
        let mixed = with(DType::F32, &|vb| {
            Ok(SparseSequential::new().add(MixedPrecision::new(blocks(&vb, |block| block)?, dtype)?))
        });
        for (((name, mixed), (_, rounded)), (_, exact)) in mixed.iter().zip(&rounded).zip(&exact) {
            let (rounding, difference) = (off(rounded, exact), off(mixed, rounded));
            println!("{name} in {dtype:?}: rounding {rounding:.1e}, difference {difference:.1e}");
            assert!(rounding > 0.0 && difference < rounding, "{name} in {dtype:?}: {difference:.1e} of {rounding:.1e}");
        }
    }
    let (conv, _) = variables_of(DType::F32, 7, |vb| SubMConv3d::new(1, 1, 1, ConvConfig::new(), vb));
    assert!(MixedPrecision::new(conv, DType::F64).unwrap_err().to_string().contains("f16 or bf16"));
}
