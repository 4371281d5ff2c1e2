//! Sets of sites, grids with MinkowskiEngine's rule, and layers with fewer axes.

use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use wavemesh::sparse::*;

/// The device of all tests: a GPU, if the library is built for one and finds one.
static DEVICE: LazyLock<Device> = LazyLock::new(|| wavemesh::device::best_device().unwrap());

const SHAPE: [usize; 3] = [5, 6, 7];

fn vb() -> VarBuilder<'static> {
    VarBuilder::from_varmap(&VarMap::new(), DType::F32, &DEVICE)
}

fn random(rng: &mut StdRng, channels: usize) -> SparseConvTensor {
    let mut sites: Vec<[i32; 4]> =
        (0..2 * 5 * 6 * 7).map(|i| [i / 210, i / 42 % 5, i / 7 % 6, i % 7]).filter(|_| rng.random_bool(0.3)).collect();
    sites.shuffle(rng);
    let values: Vec<f32> = (0..sites.len() * channels).map(|_| rng.random_range(-1.0..1.0)).collect();
    let features = Tensor::from_vec(values, (sites.len(), channels), &DEVICE).unwrap();
    SparseConvTensor::from_coords(features, sites, SHAPE, 2).unwrap()
}

fn dense(x: &SparseConvTensor) -> Vec<f32> {
    x.dense().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn shuffled(x: &SparseConvTensor, rng: &mut StdRng) -> SparseConvTensor {
    let mut rows: Vec<i64> = (0..x.len() as i64).collect();
    rows.shuffle(rng);
    x.select_by_index(&Tensor::new(rows, &DEVICE).unwrap()).unwrap()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= tolerance, "{off}");
}

#[test]
fn unions_sums_and_intersections_are_those_of_the_dense_tensors() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..20 {
        let (a, b) = (random(&mut rng, 2), random(&mut rng, 2));
        let sum = a.union_add(&b).unwrap();
        let expected: Vec<f32> = dense(&a).iter().zip(dense(&b)).map(|(a, b)| a + b).collect();
        assert_eq!(dense(&sum), expected);
        assert!(sum.coords().is_sorted());
        assert_eq!(dense(&b.union_add(&a).unwrap()), expected);
        let both = a.intersect(&b).unwrap();
        assert_eq!(sum.len() + both.len(), a.len() + b.len());
        assert!(both.coords().iter().all(|&site| a.find(site).is_some() && b.find(site).is_some()));
        let cat = a.union_cat(&b).unwrap();
        assert!(cat.same_sites(&sum) && cat.channels() == 4);
        assert_eq!(
            values(&cat.features().narrow(1, 0, 2).unwrap()),
            values(&a.on_sites_of(&sum).unwrap().features().clone())
        );
        let there = a.on_sites_of(&b).unwrap();
        assert!(there.same_sites(&b));
        assert_eq!(values(there.features()), values(&a.sample_at_indices(&b.indices().unwrap()).unwrap()));
    }
}

#[test]
fn rows_are_put_in_another_tensor_s_order() {
    let mut rng = StdRng::seed_from_u64(2);
    let x = random(&mut rng, 3);
    let other = shuffled(&x, &mut rng);
    assert!(!other.same_sites(&x) && other.same_site_set(&x));
    let text = x.add(&other).unwrap_err().to_string();
    assert!(text.contains("in another order") && text.contains("align_to"), "{text}");
    let aligned = other.align_to(&x).unwrap();
    assert!(aligned.same_sites(&x));
    assert_eq!(values(aligned.features()), values(x.features()));
    assert_eq!(dense(&(&x + &aligned).unwrap()), dense(&x).iter().map(|v| 2.0 * v).collect::<Vec<_>>());
    let fewer =
        x.prune(&Tensor::new((0..x.len() as u32).map(|i| i % 2).collect::<Vec<_>>(), &DEVICE).unwrap()).unwrap();
    let text = fewer.align_to(&x).unwrap_err().to_string();
    assert!(text.contains("of which the first has too"), "{text}");
    let text = x.cat_channels(&fewer).unwrap_err().to_string();
    assert!(text.contains("union_cat"), "{text}");
}

#[test]
fn gradients_go_back_to_the_rows_they_came_from() {
    let mut rng = StdRng::seed_from_u64(3);
    let (a, b) = (random(&mut rng, 2), random(&mut rng, 2));
    let variable = Var::from_tensor(a.features()).unwrap();
    let a = a.replace_feature(variable.as_tensor().clone()).unwrap();
    for y in [a.union_add(&b).unwrap(), a.on_sites_of(&b).unwrap(), a.intersect(&b).unwrap(), a.subdivide(2).unwrap()] {
        let grads = y.features().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let grad = grads.get(&variable).unwrap();
        // Twice the value at each site of the result, summed over the sites that received each row.
        let mut expected = vec![0f32; a.len() * 2];
        let coarse = |site: [i32; 4]| {
            if y.spatial_shape() == SHAPE { site } else { [site[0], site[1] / 2, site[2] / 2, site[3] / 2] }
        };
        for (site, row) in y.coords().iter().zip(y.features().to_vec2::<f32>().unwrap()) {
            if let Some(from) = a.find(coarse(*site)) {
                row.iter().enumerate().for_each(|(c, v)| expected[from as usize * 2 + c] += 2.0 * v);
            }
        }
        close(&values(grad), &expected, 1e-5);
    }
}

#[test]
fn keys_go_along_where_sites_stay_and_errors_say_who_dropped_them() {
    let mut rng = StdRng::seed_from_u64(4);
    let x = random(&mut rng, 2);
    let key = |key: &str| ConvConfig::new().key(key);
    let down = SparseConv3d::new(2, 2, 3, key("down").stride(2).padding(1), vb()).unwrap();
    let up = SparseInverseConv3d::new(2, 2, 3, key("down"), vb()).unwrap();
    let low = down.forward(&x).unwrap();
    assert!(up.forward(&low.replace_feature((low.features() * 2.0).unwrap()).unwrap()).unwrap().same_sites(&x));
    let mask: Vec<u32> = (0..low.len() as u32).map(|i| u32::from(i > 0)).collect();
    let pruned = low.prune(&Tensor::new(mask, &DEVICE).unwrap()).unwrap();
    assert!(pruned.indice_dict().is_empty());
    let text = up.forward(&pruned).unwrap_err().to_string();
    assert!(text.contains("SparseConvTensor::prune") && text.contains("dropped the key"), "{text}");
    // After a move back to the sites of the convolution's output, the inverse layer accepts it.
    assert!(up.forward(&low.replace_feature(pruned.on_sites_of(&low).unwrap().features().clone()).unwrap()).is_ok());
    // Nothing is pruned or dropped.
    let all = Tensor::ones(low.len(), DType::U8, &DEVICE).unwrap();
    assert!(up.forward(&low.prune(&all).unwrap()).is_ok());
    let text = low.prune(&all.to_dtype(DType::F32).unwrap()).unwrap_err().to_string();
    assert!(text.contains("mask"), "{text}");
    assert!(low.prune(&Tensor::ones(low.len() + 1, DType::U8, &DEVICE).unwrap()).is_err());
}

#[test]
fn subdivision_fills_each_cell_of_a_finer_grid() {
    let mut rng = StdRng::seed_from_u64(5);
    let x = random(&mut rng, 2);
    let fine = x.subdivide(2).unwrap();
    assert_eq!((fine.len(), fine.spatial_shape()), (8 * x.len(), [10, 12, 14]));
    for (site, row) in fine.coords().iter().zip(fine.features().to_vec2::<f32>().unwrap()) {
        let from = x.find([site[0], site[1] / 2, site[2] / 2, site[3] / 2]).unwrap();
        assert_eq!(row, x.features().get(from as usize).unwrap().to_vec1::<f32>().unwrap());
    }
    // The mean over its cells gives the original again.
    let back = SparseAvgPool3d::new(2, PoolConfig::default()).unwrap().forward(&fine).unwrap();
    assert!(back.same_site_set(&x));
    close(&values(back.align_to(&x).unwrap().features()), &values(x.features()), 1e-6);
    assert!(x.subdivide(0).is_err() && x.subdivide(1 << 40).is_err());
}

#[test]
fn strided_sites_are_every_floor_of_site_by_stride_on_odd_grids_too() {
    let mut rng = StdRng::seed_from_u64(6);
    for backend in [Backend::for_device(&DEVICE).unwrap(), Backend::Dense] {
        let x = random(&mut rng, 2);
        let x = SparseConvTensor::from_coords(x.features().clone(), x.coords().to_vec(), SHAPE, 2).unwrap();
        for (kernel, padding, stride) in [(2, 0, 2), (3, 1, 2), (1, 0, 3), (2, 0, 4), (7, 0, 5)] {
            let mut expected: Vec<[i32; 4]> =
                x.coords().iter().map(|&[b, z, y, x]| [b, z / stride, y / stride, x / stride]).collect();
            expected.sort_unstable();
            expected.dedup();
            let steps = [stride as usize; 3];
            let strided =
                ConvConfig::new().stride(steps).padding(padding).output_sites(OutputSites::Strided).key("down");
            let pool = PoolConfig::new().stride(steps).padding(padding).output_sites(OutputSites::Strided);
            let up = SparseInverseConv3d::new(2, 2, kernel, ConvConfig::new().key("down"), vb()).unwrap();
            with_backend(backend, || {
                let low = SparseConv3d::new(2, 2, kernel, strided, vb()).unwrap().forward(&x).unwrap();
                assert_eq!(low.coords(), expected, "kernel {kernel}, stride {stride}");
                assert_eq!(low.spatial_shape(), SHAPE.map(|n| n.div_ceil(stride as usize)));
                assert!(up.forward(&low).unwrap().same_sites(&x));
                if kernel >= stride as usize && padding == 0 {
                    // Every window contains a site, so every pool has a value.
                    let pooled = SparseMaxPool3d::new(kernel, pool).unwrap().forward(&x).unwrap();
                    assert_eq!(pooled.coords(), expected);
                    assert!(values(pooled.features()).iter().all(|v| v.is_finite()));
                }
            });
        }
    }
}

#[test]
fn negative_coordinates_group_as_floor_does() {
    let sites = [[0i64, -3, 0, 5], [0, -1, -7, 2], [1, 4, 2, -2]];
    let indices = Tensor::new(&sites, &DEVICE).unwrap();
    let features = Tensor::ones((3, 1), DType::F32, &DEVICE).unwrap();
    let (x, origin) = SparseConvTensor::from_signed(features.clone(), &indices, 4).unwrap();
    assert_eq!((origin, x.batch_size()), ([-4, -8, -4], 2));
    let pool = PoolConfig::new().stride(4).output_sites(OutputSites::Strided);
    let low = SparseAvgPool3d::new(4, pool).unwrap().forward(&x).unwrap();
    let mut expected = sites.map(|[b, z, y, x]| [b, z.div_euclid(4), y.div_euclid(4), x.div_euclid(4)]);
    expected.sort_unstable();
    let found: Vec<[i64; 4]> = low
        .coords()
        .iter()
        .map(|&[b, z, y, x]| {
            [b.into(), i64::from(z) + origin[0] / 4, i64::from(y) + origin[1] / 4, i64::from(x) + origin[2] / 4]
        })
        .collect();
    assert_eq!(found, expected);
    assert!(SparseConvTensor::from_signed(features.clone(), &indices, 0).is_err());
    let below = Tensor::new(&[[-1i64, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1]], &DEVICE).unwrap();
    assert!(SparseConvTensor::from_signed(features, &below, 1).unwrap_err().to_string().contains("batch number -1"));
}

#[test]
fn a_view_of_features_is_as_good_as_a_copy() {
    let a = Tensor::arange(0f32, 12.0, &DEVICE).unwrap().reshape((3, 4)).unwrap();
    let sites: Vec<[i32; 4]> = (0..4).map(|i| [0, i, 0, 0]).collect();
    let wide = Tensor::ones((1, 3), DType::F32, &DEVICE).unwrap().broadcast_as((4, 3)).unwrap();
    for view in [a.t().unwrap(), wide] {
        let copy = view.contiguous().unwrap();
        let [x, y] =
            [&view, &copy].map(|f| SparseConvTensor::from_coords(f.clone(), sites.clone(), [4, 1, 1], 1).unwrap());
        assert_eq!(dense(&x), dense(&y));
        let rows = Tensor::new(&[2i64, 0], &DEVICE).unwrap();
        let [x, y] = [&x, &y].map(|x| values(x.select_by_index(&rows).unwrap().features()));
        assert_eq!(x, y);
        let indices = Tensor::new(&[[0i64, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0]], &DEVICE).unwrap();
        let [x, y] = [&view, &copy].map(|f| dense(&SparseConvTensor::coalesce(f, &indices, [4, 1, 1], 1).unwrap()));
        assert_eq!(x, y);
    }
}

/// A random 2-D tensor, and a dense tensor with the same values on a variable.
fn flat(rng: &mut StdRng) -> (SparseConvTensor, Var) {
    let cells: Vec<i64> = (0..2 * 9 * 7).filter(|_| rng.random_bool(0.4)).collect();
    let indices: Vec<i64> = cells.iter().flat_map(|i| [i / 63, i / 7 % 9, i % 7]).collect();
    let values: Vec<f32> = (0..cells.len() * 3).map(|_| rng.random_range(-1.0..1.0)).collect();
    let features = Tensor::from_vec(values, (cells.len(), 3), &DEVICE).unwrap();
    let indices = Tensor::from_vec(indices, (cells.len(), 3), &DEVICE).unwrap();
    let x = SparseConvTensor::new(features, indices, [9, 7], 2).unwrap();
    let dense = Var::from_tensor(&x.dense().unwrap()).unwrap();
    (x, dense)
}

#[test]
fn layers_of_two_axes_are_dense_convolutions_read_at_their_sites() {
    let mut rng = StdRng::seed_from_u64(7);
    let (x, grid) = flat(&mut rng);
    assert_eq!((x.ndim(), x.indices().unwrap().dims()[1], x.dense().unwrap().dims()), (2, 3, &[2, 3, 9, 7][..]));
    let weights = |weight: &Tensor| weight.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap(); // (out, in, ky, kx)
    let read = |dense: &Tensor, y: &SparseConvTensor| {
        let (b, c, h, w) = dense.dims4().unwrap();
        let rows = dense.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().reshape((b * h * w, c)).unwrap();
        let keys: Vec<u32> =
            y.coords().iter().map(|s| (s[0] as usize * h * w + s[2] as usize * w + s[3] as usize) as u32).collect();
        rows.index_select(&Tensor::new(keys, &DEVICE).unwrap(), 0).unwrap()
    };
    let plain = ConvConfig::new().bias(false);
    let subm = SubMConv2d::new(3, 4, 3, plain.clone(), vb()).unwrap();
    assert_eq!(subm.weight().dims(), [4, 3, 3, 3]);
    let y = subm.forward(&x).unwrap();
    assert!(y.same_sites(&x));
    let expected = read(&grid.conv2d(&weights(subm.weight()), 1, 1, 1, 1).unwrap(), &y);
    close(&values(y.features()), &values(&expected), 1e-5);

    let keyed = plain.clone().stride([2, 2]).padding([1, 1]).key("down");
    let down = SparseConv2d::new(3, 4, 3, keyed, vb()).unwrap();
    let variable = Var::from_tensor(x.features()).unwrap();
    let low = down.forward(&x.replace_feature(variable.as_tensor().clone()).unwrap()).unwrap();
    assert_eq!((low.spatial_shape(), low.ndim()), ([1, 5, 4], 2));
    let expected = read(&grid.conv2d(&weights(down.weight()), 1, 2, 1, 1).unwrap(), &low);
    close(&values(low.features()), &values(&expected), 1e-5);
    // Gradients are the same too.
    let grads = low.features().sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let dense_grads = expected.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    close(&values(grads.get(&variable).unwrap()), &values(&read(dense_grads.get(&grid).unwrap(), &x)), 1e-4);

    let back = plain.clone().key("down");
    assert!(SparseInverseConv2d::new(4, 3, 3, back, vb()).unwrap().forward(&low).unwrap().same_sites(&x));
    let wider = SparseConvTranspose2d::new(4, 2, (2, 2), plain.clone().stride([2, 2]), vb()).unwrap();
    assert_eq!(wider.forward(&low).unwrap().spatial_shape(), [1, 10, 8]);
    let pooled = SparseMaxPool2d::new(2, PoolConfig::default()).unwrap().forward(&x).unwrap();
    assert_eq!(pooled.spatial_shape(), [1, 4, 3]);
    // A tensor with other axes is refused, and the message names it.
    let text =
        SubMConv3d::new(3, 4, 3, ConvConfig::new().bias(false), vb()).unwrap().forward(&x).unwrap_err().to_string();
    assert!(text.contains("2-D tensor") && text.contains("SubMConv3d"), "{text}");
    let round = SparseConvTensor::from_dense(&x.dense_channels_last().unwrap()).unwrap();
    assert!(round.same_sites(&x));
}

#[test]
fn layers_of_one_axis_work_on_rows() {
    let features = Tensor::new(&[[1f32], [2.0], [4.0]], &DEVICE).unwrap();
    let indices = Tensor::new(&[[0i64, 0], [0, 1], [0, 5]], &DEVICE).unwrap();
    let x = SparseConvTensor::new(features, indices, [6], 1).unwrap();
    let weight = Tensor::new(&[[[1f32], [10.0], [100.0]]], &DEVICE).unwrap(); // (out, x, in)
    let vb = VarBuilder::from_tensors([("weight".to_string(), weight)].into(), DType::F32, &DEVICE);
    let conv = SubMConv1d::new(1, 1, 3, ConvConfig::new().bias(false), vb).unwrap();
    let y = conv.forward(&x).unwrap();
    assert_eq!(values(y.features()), [10.0 + 200.0, 1.0 + 20.0, 40.0]);
    assert_eq!(y.dense().unwrap().dims(), [1, 1, 6]);
    let pooled = SparseMaxPool1d::new(2, PoolConfig::default()).unwrap().forward(&x).unwrap();
    assert_eq!(pooled.indices().unwrap().to_vec2::<i64>().unwrap(), [[0, 0], [0, 2]]);
}

#[test]
fn a_layer_runs_onto_given_sites() {
    let mut rng = StdRng::seed_from_u64(8);
    let (x, target) = (random(&mut rng, 2), random(&mut rng, 1));
    for backend in [Backend::for_device(&DEVICE).unwrap(), Backend::Dense] {
        with_backend(backend, || {
            let conv = SubMConv3d::new(2, 3, 3, ConvConfig::default(), vb()).unwrap();
            let y = conv.forward_onto(&x, &target).unwrap();
            assert!(y.same_sites(&target));
            // The same as a submanifold layer on all sites of both, read at the target's sites.
            let both = x.union_cat(&target).unwrap();
            let both = both.replace_feature(both.features().narrow(1, 0, 2).unwrap()).unwrap();
            let expected = conv.forward(&both).unwrap().sample_at_indices(&target.indices().unwrap()).unwrap();
            close(&values(y.features()), &values(&expected), 1e-5);
        });
    }
    let config = ConvConfig::new().stride(2).bias(false);
    let down = SparseConv3d::new(2, 3, 2, config, vb()).unwrap();
    let low = down.forward(&x).unwrap();
    let again = down.forward_onto(&x, &low).unwrap();
    close(&values(again.features()), &values(low.features()), 0.0);
    let variable = Var::from_tensor(x.features()).unwrap();
    let x = x.replace_feature(variable.as_tensor().clone()).unwrap();
    let grads = [down.forward(&x).unwrap(), down.forward_onto(&x, &low).unwrap()]
        .map(|y| values(y.features().sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&variable).unwrap()));
    close(&grads[0], &grads[1], 1e-6);
    let other =
        SparseConvTensor::from_coords(Tensor::ones((1, 1), DType::F32, &DEVICE).unwrap(), vec![[0; 4]], SHAPE, 1)
            .unwrap();
    assert!(down.forward_onto(&x, &other).unwrap_err().to_string().contains("batch size 1"));
}

#[test]
fn sums_and_the_way_back_of_pools() {
    let mut rng = StdRng::seed_from_u64(9);
    let x = random(&mut rng, 2);
    for (kernel, stride) in [(2, 2), (3, 1), (1, 2)] {
        let config = PoolConfig::new().stride(stride).key("pool");
        let sum = SparseSumPool3d::new(kernel, config.clone()).unwrap().forward(&x).unwrap();
        // A convolution with ones computes the sum too.
        let ones = Tensor::ones((1, kernel, kernel, kernel, 1), DType::F32, &DEVICE).unwrap();
        let vb = VarBuilder::from_tensors([("weight".to_string(), ones)].into(), DType::F32, &DEVICE);
        let config = ConvConfig::new().stride(stride).bias(false);
        let conv = SparseConv3d::new(1, 1, kernel, config, vb).unwrap();
        for c in 0..2 {
            let channel = x.replace_feature(x.features().narrow(1, c, 1).unwrap()).unwrap();
            let expected = conv.forward(&channel).unwrap();
            assert!(expected.same_sites(&sum));
            close(&values(&sum.features().narrow(1, c, 1).unwrap()), &values(expected.features()), 1e-5);
        }
        let back = SparseInversePool3d::new(kernel, "pool").forward(&sum).unwrap();
        assert!(back.same_sites(&x));
        if kernel == stride {
            for (site, row) in x.coords().iter().zip(back.features().to_vec2::<f32>().unwrap()) {
                let low = sum.find([site[0], site[1] / 2, site[2] / 2, site[3] / 2]);
                let expected =
                    low.map_or(vec![0.0; 2], |low| sum.features().get(low as usize).unwrap().to_vec1().unwrap());
                assert_eq!(row, expected);
            }
        }
        assert!(values(back.features()).iter().all(|v| v.is_finite()));
    }
    assert!(SparseInversePool3d::new(2, "nothing").forward(&x).unwrap_err().to_string().contains("`nothing`"));
}
