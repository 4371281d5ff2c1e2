//! Sparse convolution: kernel maps, a layer's forward pass, and its forward and backward passes together.

use std::cell::RefCell;
use std::time::Instant;

use candle_core::{DType, Tensor, Var};
use wavemesh::prelude::VarBuilder;
use wavemesh::sparse::{ConvConfig, KernelMap, Size3, SparseConv3d, SparseConvTensor, SparseModule, SubMConv3d};

use crate::shares::median;
use crate::work::{Answer, Case, Error, Result, Work, device};

pub fn prepare(case: &Case) -> Result<Work> {
    let side: usize = case.param("side")?;
    let features = case.tensor("features")?;
    let coords: Vec<[i32; 4]> =
        case.values::<f64>("indices")?.as_chunks().0.iter().map(|site| site.map(|v: f64| v as i32)).collect();
    let fresh = move || SparseConvTensor::from_coords(features.clone(), coords.clone(), [side; 3], 1);
    if case.op == "map" {
        let (channels, stride) = (1, case.param::<usize>("stride")?);
        let config = ConvConfig::new().stride(stride).padding(1);
        let vb = VarBuilder::zeros(DType::F32, &device()?);
        let subm = SubMConv3d::new(channels, channels, 3, config.clone(), vb.clone())?;
        let strided = SparseConv3d::new(channels, channels, 3, config, vb)?;
        // Tensors may be made before the time is taken. For a strided map, they then have a submanifold one, as in a network.
        let made: Vec<SparseConvTensor> =
            (0..case.option::<usize>("made")?).map(|_| fresh()).collect::<Result<_, _>>()?;
        if stride > 1 {
            made.iter().try_for_each(|x| subm.kernel_map(x).map(|_| ()))?;
        }
        let made = RefCell::new(made);
        let run = move || -> Result<KernelMap, Error> {
            let ready = made.borrow_mut().pop();
            let x = ready.map_or_else(&fresh, Ok)?;
            Ok(if stride == 1 { subm.kernel_map(&x)? } else { strided.kernel_map(&x)? })
        };
        return Ok(Work::new(run, move |map| pairs(map, (side - 1) / stride + 1)));
    }
    let weight = Var::from_tensor(&case.tensor("weight")?)?;
    let layer = layer(&weight)?;
    let x = fresh()?;
    match case.op.as_str() {
        "forward" => {
            layer.forward_t(&x, false)?;
            Ok(Work::new(move || layer.forward_t(&x, false), answer))
        }
        "first_forward" => Ok(Work::new(move || layer.forward_t(&fresh()?, false), answer)),
        "forward_backward" => {
            let leaf = Var::from_tensor(x.features())?;
            let x = x.replace_feature(leaf.as_tensor().clone())?;
            let forward = {
                let (x, layer) = (x.replace_feature(x.features().detach())?, self::layer(&Var::from_tensor(&weight)?)?);
                move || layer.forward_t(&x, false).map(|_| ())
            };
            let run = move || -> Result<[Tensor; 3]> {
                let y = layer.forward_t(&x, true)?;
                let grads = y.features().backward()?; // from a gradient of ones
                let of = |var: &Var| grads.get(var).cloned().ok_or("no gradient");
                Ok([y.features().detach(), of(&leaf)?, of(&weight)?])
            };
            let times = times_as_long(|| run().map(|_| ()), || Ok(forward()?))?;
            let times = (times * 100.0).round() / 100.0;
            Ok(Work::new(run, move |[y, x_grad, weight_grad]| {
                let answer = Answer::default().tensor("features", y)?.tensor("x_grad", x_grad)?;
                Ok(answer.tensor("weight_grad", weight_grad)?.fact("× the forward pass alone", times))
            }))
        }
        _ => Err(case.unknown_op()),
    }
}

fn layer(weight: &Var) -> Result<SubMConv3d> {
    let (outputs, kz, ky, kx, inputs) = weight.dims5()?;
    let named = [("weight".to_owned(), weight.as_tensor().clone())].into();
    let config = ConvConfig::new().bias(false);
    Ok(SubMConv3d::new(
        inputs,
        outputs,
        Size3::from([kz, ky, kx]),
        config,
        VarBuilder::from_tensors(named, weight.dtype(), weight.device()),
    )?)
}

fn answer(y: &SparseConvTensor) -> Result<Answer> {
    Answer::default().tensor("features", y.features())
}

/// The number of pairs and the sum of their hashes, for each offset.
fn pairs(map: &KernelMap, side: usize) -> Result<Answer> {
    let outputs = map.output_coords();
    let hash = |(i, o): (usize, usize)| {
        let [_, z, y, x] = outputs[o].map(|v| v as usize);
        (((z * side + y) * side + x) * 2_654_435_761 + i * 40_503) % (1 << 32)
    };
    let offsets = 0..map.kernel_size().iter().product();
    let rows: Vec<i64> = offsets
        .flat_map(|offset| {
            let pairs = map.pairs(offset);
            [pairs.len() as i64, pairs.into_iter().map(hash).sum::<usize>() as i64]
        })
        .collect();
    Answer::default().values("pairs", &rows, &[rows.len() / 2, 2])
}

/// How many times as long as `part` the function `work` takes: the ratio of their medians. The runs alternate, so that both see the same
/// machine; each run comes just after one of `part`, so that both see the same caches.
fn times_as_long(work: impl Fn() -> Result<()>, part: impl Fn() -> Result<()>) -> Result<f64> {
    const RUNS: usize = 31;
    let timed = |run: &dyn Fn() -> Result<()>| -> Result<f64> {
        part()?;
        let started = Instant::now();
        run()?;
        Ok(started.elapsed().as_secs_f64())
    };
    // The first run of each is a warm-up.
    let pairs: Vec<[f64; 2]> = (0..=RUNS).map(|_| Ok([timed(&work)?, timed(&part)?])).collect::<Result<_>>()?;
    let [work, part] = [0, 1].map(|side| median(pairs[1..].iter().map(|pair| pair[side]).collect()));
    Ok(work / part)
}
