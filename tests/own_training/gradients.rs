//! Gradients of every layer in f64.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use wavemesh::Result;
use wavemesh::backbones::{SpUNet, SpUNetConfig};
use wavemesh::sparse::*;

use super::{input, parameters, scalar, tensor, variables_of};

/// Like `torch.autograd.gradcheck`: compares the slope along a direction, by central differences, with that of the gradient, for every
/// variable.
fn gradcheck(name: &str, vars: &[(String, Var)], value: impl Fn() -> Tensor) {
    let grads = value().backward().unwrap();
    for (i, (var_name, var)) in vars.iter().enumerate() {
        let direction = tensor(var.dims(), 50 + i);
        let grad = grads.get(var).unwrap_or_else(|| panic!("{name}: {var_name} has no gradient"));
        let slope = scalar(&(grad * &direction).unwrap());
        let own = var.as_detached_tensor().copy().unwrap();
        // Small enough that hardly any ReLU input changes its sign.
        let step = 1e-7;
        let at = |sign: f64| {
            var.set(&(&own + (&direction * (sign * step)).unwrap()).unwrap()).unwrap();
            scalar(&value())
        };
        let found = (at(1.0) - at(-1.0)) / (2.0 * step);
        var.set(&own).unwrap();
        let size = scalar(&(grad.abs().unwrap() * direction.abs().unwrap()).unwrap()).max(1.0);
        assert!(
            (found - slope).abs() <= 1e-6 * size,
            "{name}, {var_name}: {found} by differences, {slope} by the gradient"
        );
    }
}

/// Checks the gradients of a layer with `channels` input channels in training mode, for its features and its parameters.
fn check_layer<M: SparseModule>(name: &str, channels: usize, build: impl FnOnce(VarBuilder) -> Result<M>) {
    let (layer, variables) = variables_of(DType::F64, 3, build);
    let x = input(channels, DType::F64);
    let features = Var::from_tensor(x.features()).unwrap();
    let mut vars = parameters(&variables);
    vars.push(("features".into(), features.clone()));
    gradcheck(name, &vars, || {
        let x = x.replace_feature(features.as_tensor().clone()).unwrap();
        let y = layer.forward_t(&x, true).unwrap();
        let weights = tensor(y.features().dims(), 9);
        (y.features() * weights).unwrap().sum_all().unwrap()
    });
}

#[test]
fn every_layer_has_the_gradients_of_finite_differences_in_f64() {
    let keyed = |key: &str| ConvConfig::new().key(key);
    check_layer("SubMConv3d", 3, |vb| SubMConv3d::new(3, 4, 3, ConvConfig::new(), vb));
    check_layer("SubMConv3d 1x1x1", 3, |vb| SubMConv3d::new(3, 4, 1, ConvConfig::new(), vb));
    check_layer("SparseConv3d", 3, |vb| SparseConv3d::new(3, 4, 3, ConvConfig::new().stride(2).padding(1), vb));
    let strided = ConvConfig::new().stride(2).output_sites(OutputSites::Strided);
    check_layer("SparseConv3d, strided sites", 3, |vb| SparseConv3d::new(3, 4, 2, strided, vb));
    check_layer("SparseConvTranspose3d", 3, |vb| SparseConvTranspose3d::new(3, 2, 2, ConvConfig::new().stride(2), vb));
    check_layer("SparseInverseConv3d", 3, |vb| {
        Ok(SparseSequential::new()
            .add(SparseConv3d::new(3, 4, 3, keyed("down").stride(2).padding(1), vb.pp(0))?)
            .add(SparseInverseConv3d::new(4, 2, 3, keyed("down"), vb.pp(1))?))
    });
    let overlapping = || PoolConfig::new().stride(2).padding(1);
    check_layer("SparseMaxPool3d", 3, |_| SparseMaxPool3d::new(3, overlapping()));
    check_layer("SparseAvgPool3d", 3, |_| SparseAvgPool3d::new(3, overlapping()));
    check_layer("SparseSumPool3d", 3, |_| SparseSumPool3d::new(3, overlapping()));
    check_layer("SparseInversePool3d", 3, |_| {
        Ok(SparseSequential::new()
            .add(SparseAvgPool3d::new(2, PoolConfig::new().key("pool"))?)
            .add(SparseInversePool3d::new(2, "pool")))
    });
    check_layer("BatchNorm", 3, |vb| BatchNorm::new(3, vb));
    check_layer("GroupNorm", 6, |vb| GroupNorm::new(2, 6, 1e-5, vb));
    check_layer("InstanceNorm", 3, |vb| InstanceNorm::new(3, 1e-5, vb));
    check_layer("LayerNorm", 3, |vb| LayerNorm::new(3, 1e-5, vb));
    check_layer("Linear and SiLU", 3, |vb| {
        Ok(SparseSequential::new()
            .add(candle_nn::linear(3, 5, vb)?)
            .add(Activation::Silu)
            .add(Activation::LeakyRelu(0.1)))
    });
    check_layer("SparseGlobalAvgPool", 3, |_| Ok(SparseSequential::new().add(SparseGlobalAvgPool)));
    check_layer("SparseGlobalMaxPool", 3, |_| Ok(SparseSequential::new().add(SparseGlobalMaxPool)));
    let (channels, layers) = (vec![4, 4], vec![1, 1]);
    check_layer("SpUNet", 2, |vb| {
        SpUNet::new(
            &SpUNetConfig::new().in_channels(2).num_classes(3).base_channels(4).channels(channels).layers(layers),
            vb,
        )
    });
}

#[test]
fn layers_of_two_axes_have_builders_and_gradients_too() {
    let (layer, variables) = variables_of(DType::F64, 5, |vb| {
        let down = ConvConfig::new().stride([2, 1]).padding((1, 1)).key("down");
        Ok(SparseSequential::new()
            .add(SubMConv2d::new(2, 3, 3, ConvConfig::new().key("a").bias(false), vb.pp(0))?)
            .add(SparseConv2d::new(3, 4, 3, down, vb.pp(1))?)
            .add(SparseMaxPool2d::new(2, PoolConfig::new().stride(1).from_zero(false))?))
    });
    let sites: Vec<i64> = (0..30).filter(|i| i % 4 != 3).flat_map(|i| [0, i / 6, i % 6]).collect();
    let rows = sites.len() / 3;
    let sites = Tensor::from_vec(sites, (rows, 3), &Device::Cpu).unwrap();
    let features = Var::from_tensor(&tensor(&[rows, 2], 2)).unwrap();
    let mut vars = parameters(&variables);
    vars.push(("features".into(), features.clone()));
    gradcheck("2-D", &vars, || {
        let x = SparseConvTensor::new(features.as_tensor().clone(), sites.clone(), [5, 6], 1).unwrap();
        let y = layer.forward_t(&x, true).unwrap();
        (y.features() * tensor(y.features().dims(), 9)).unwrap().sum_all().unwrap()
    });
    let line = SparseConv1d::new(2, 3, 3, ConvConfig::new().stride(2), VarBuilder::zeros(DType::F64, &Device::Cpu));
    assert_eq!(line.unwrap().kernel_size(), [3]);
}

#[test]
fn attention_has_the_gradients_of_finite_differences_in_f64() {
    let x = input(1, DType::F64);
    let vars: Vec<(String, Var)> = ["queries", "keys", "values"]
        .iter()
        .enumerate()
        .map(|(i, name)| (name.to_string(), Var::from_tensor(&tensor(&[x.len(), 2, 3], 20 + i)).unwrap()))
        .collect();
    for groups in [AttentionGroups::Full, AttentionGroups::Serialized { curve: Curve::Hilbert, length: 8 }] {
        gradcheck("attention", &vars, || {
            let y = sparse_attention(&x, &vars[0].1, &vars[1].1, &vars[2].1, &groups).unwrap();
            (&y * tensor(y.dims(), 9)).unwrap().sum_all().unwrap()
        });
    }
}
