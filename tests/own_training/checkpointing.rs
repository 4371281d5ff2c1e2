//! Gradient checkpointing: less memory, the same numbers.

use candle_core::{DType, Var};
use wavemesh::sparse::*;

use super::{bits, blocks, input, parameters, tensor, variables_of};

#[test]
fn checkpoints_give_the_values_gradients_and_statistics_of_the_module_bit_for_bit() {
    let run = |checkpoints: u32| {
        let (network, variables) = variables_of(DType::F32, 7, |vb| match checkpoints {
            0 => blocks(&vb, |block| block),
            1 => blocks(&vb, GradientCheckpoint::new),
            _ => Ok(SparseSequential::new().add(GradientCheckpoint::new(blocks(&vb, GradientCheckpoint::new)?))),
        });
        let x = input(3, DType::F32);
        let features = Var::from_tensor(x.features()).unwrap();
        let y = network.forward_t(&x.replace_feature(features.as_tensor().clone()).unwrap(), true).unwrap();
        let grads = (y.features() * tensor(y.features().dims(), 4).to_dtype(DType::F32).unwrap())
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        let mut found = vec![("y".to_string(), bits(y.features())), ("x".into(), bits(grads.get(&features).unwrap()))];
        for (name, var) in parameters(&variables) {
            found.push((name, bits(grads.get(&var).unwrap())));
        }
        let data = variables.data().lock().unwrap();
        let mut running: Vec<_> = data.iter().filter(|(name, _)| name.contains("running")).collect();
        running.sort_by_key(|(name, _)| *name);
        found.extend(running.into_iter().map(|(name, var)| (name.clone(), bits(var))));
        found
    };
    let plain = run(0);
    assert_eq!(plain.len(), 2 + 10 + 4);
    for depth in [1, 2] {
        for ((name, expected), (_, found)) in plain.iter().zip(run(depth)) {
            assert!(*expected == found, "{name} at depth {depth}");
        }
    }
}

#[test]
fn a_checkpoint_leaves_no_tape_within_itself() {
    let (block, _variables) = variables_of(DType::F32, 7, |vb| blocks(&vb, |block| block));
    let x = input(3, DType::F32);
    let nodes = |block: &dyn SparseModule| block.forward_t(&x, true).unwrap().features().sorted_nodes().len();
    let plain = nodes(&block);
    let checkpoint = GradientCheckpoint::new(block);
    // A stub for each parameter, the parameters, their concatenation, and the operation itself.
    assert!(nodes(&checkpoint) <= 2 * 10 + 2, "{} of {plain}", nodes(&checkpoint));
    assert!(!no_grad(|| checkpoint.forward(&x)).unwrap().features().track_op());
    assert!(format!("{:?}", SparseSequential::new().add(checkpoint)).contains("GradientCheckpoint(SparseSequential"));
}
