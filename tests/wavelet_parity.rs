//! The transforms give PyWavelets' numbers (tests/fixtures/wavelet.*, made with PyWavelets 1.9 in float64).

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use wavemesh::wavelet::{
    Mode, StationaryConfig, Wavelet, dwt, idwt, iswtn, swtn, swtn_with, wavedecn, wavedecn_axes, waverecn,
};

struct Case {
    name: String,
    wavelet: Wavelet,
    mode: Mode,
    level: usize,
    shape: Vec<usize>,
}

fn fixtures() -> (Vec<Case>, HashMap<String, Tensor>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = std::fs::read_to_string(folder.join("wavelet.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let cases = cases.iter().map(|case| Case {
        name: case["case"].as_str().unwrap().into(),
        wavelet: Wavelet::from_name(case["wavelet"].as_str().unwrap()).unwrap(),
        mode: Mode::from_name(case["mode"].as_str().unwrap()).unwrap(),
        level: case["level"].as_u64().unwrap() as usize,
        shape: case["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect(),
    });
    (cases.collect(), candle_core::safetensors::load(folder.join("wavelet.safetensors"), &Device::Cpu).unwrap())
}

fn values(tensors: &HashMap<String, Tensor>, key: &str) -> Vec<f64> {
    tensors[key].to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest magnitude (at least 1).
fn error(got: impl IntoIterator<Item = f64>, wanted: &[f64]) -> f64 {
    let scale = wanted.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
    let mut count = 0;
    let worst = got.into_iter().zip(wanted).map(|(a, b)| (a - b).abs()).inspect(|_| count += 1).fold(0.0, f64::max);
    assert_eq!(count, wanted.len(), "different numbers of values");
    worst / scale
}

#[test]
fn filters_are_those_of_pywavelets() {
    let (_, tensors) = fixtures();
    let keys: Vec<&String> = tensors.keys().filter(|key| key.starts_with("filters/")).collect();
    assert!(keys.len() >= 40, "four filters of ten wavelets");
    for key in keys {
        let [_, name, filter] = key.split('/').collect::<Vec<_>>()[..] else { panic!("key {key}") };
        let wavelet = Wavelet::from_name(name).unwrap();
        let got = match filter {
            "dec_lo" => wavelet.dec_lo(),
            "dec_hi" => wavelet.dec_hi(),
            "rec_lo" => wavelet.rec_lo(),
            "rec_hi" => wavelet.rec_hi(),
            other => panic!("filter {other}"),
        };
        assert_eq!(got, values(&tensors, key), "{key}");
    }
}

#[test]
fn wavedecn_gives_every_band_of_pywavelets() {
    let (cases, tensors) = fixtures();
    for Case { name, wavelet, mode, level, shape } in cases {
        let input = values(&tensors, &format!("{name}/input"));
        let single: Vec<f32> = input.iter().map(|&v| v as f32).collect();
        let double = wavedecn(&input, &shape, &wavelet, mode, level).unwrap();
        let single = wavedecn(&single, &shape, &wavelet, mode, level).unwrap();
        for key in tensors.keys().filter(|key| key.starts_with(&format!("{name}/")) && !key.ends_with("input")) {
            let (level, band) = match key.split('/').collect::<Vec<_>>()[..] {
                [_, "aaa"] => (1, "aaa"),
                [_, level, band] => (level.strip_prefix("level").unwrap().parse().unwrap(), band),
                _ => panic!("key {key}"),
            };
            let wanted = values(&tensors, key);
            assert_eq!(double.band(level, band).unwrap().shape, tensors[key].dims(), "{key}");
            let e = error(double.band(level, band).unwrap().data.iter().copied(), &wanted);
            assert!(e < 1e-10, "{key} in f64: {e:e}");
            let e = error(single.band(level, band).unwrap().data.iter().map(|&v| v.into()), &wanted);
            assert!(e < 1e-5, "{key} in f32: {e:e}");
        }
    }
}

#[test]
fn waverecn_undoes_wavedecn() {
    let (cases, tensors) = fixtures();
    for Case { name, wavelet, mode, level, shape } in cases {
        let input = values(&tensors, &format!("{name}/input"));
        let back = waverecn(&wavedecn(&input, &shape, &wavelet, mode, level).unwrap()).unwrap();
        // An odd axis comes back with one more sample, as with PyWavelets.
        let even: Vec<usize> = shape.iter().map(|n| n.next_multiple_of(2)).collect();
        assert_eq!(back.shape, even, "{name}");
        let cropped = (0..input.len()).map(|place| {
            let [i, j, k] = [place / (shape[1] * shape[2]), place / shape[2] % shape[1], place % shape[2]];
            back.data[(i * even[1] + j) * even[2] + k]
        });
        // PyWavelets' own filters reconstruct to about 1e-11 (`recon_max_err` in wavelet.json).
        let e = error(cropped, &input);
        assert!(e < 1e-10, "{name}: {e:e}");
    }
}

#[test]
fn every_wavelet_and_mode_agrees_on_short_and_odd_arrays_of_any_dimension() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wavelet_all.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let signal = |n: usize| -> Vec<f64> { (0..n).map(|i| (1.7 * i as f64 + 0.3).sin() + 0.1 * i as f64).collect() };
    let mut wavelets = std::collections::HashSet::new();
    for key in tensors.keys() {
        let wanted = values(&tensors, key);
        let parts: Vec<&str> = key.split('/').collect();
        let (wavelet, mode) = (Wavelet::from_name(parts[1]).unwrap(), Mode::from_name(parts[2]).unwrap());
        wavelets.insert(parts[1].to_string());
        if parts[0] == "dwt" {
            let n: usize = parts[3].parse().unwrap();
            let (approx, details) = dwt(&signal(n), &wavelet, mode).unwrap();
            let back = idwt(&approx, &details, &wavelet, mode).unwrap();
            let e = error([approx, details].concat(), &wanted);
            assert!(e < 1e-10, "{key}: {e:e}");
            let single: Vec<f32> = signal(n).iter().map(|&v| v as f32).collect();
            let (approx, details) = dwt(&single, &wavelet, mode).unwrap();
            let e = error([approx, details].concat().into_iter().map(f64::from), &wanted);
            assert!(e < 1e-5, "{key} in f32: {e:e}");
            // The tabulated filters are rounded, so they do not reconstruct to the last digit; the parity check above is the strict one.
            let e = error(back[..n].iter().copied(), &signal(n));
            assert!(e < 1e-8, "{key} and back: {e:e}");
        } else {
            let level: usize = parts[3].parse().unwrap();
            let shape: Vec<usize> = parts[4].split('x').map(|n| n.parse().unwrap()).collect();
            let coeffs = wavedecn(&signal(shape.iter().product()), &shape, &wavelet, mode, level).unwrap();
            let e = error(coeffs.bands().flat_map(|band| band.data.clone()), &wanted);
            assert!(e < 1e-10, "{key}: {e:e}");
            let single: Vec<f32> = signal(shape.iter().product()).iter().map(|&v| v as f32).collect();
            let coeffs = wavedecn(&single, &shape, &wavelet, mode, level).unwrap();
            let e = error(coeffs.bands().flat_map(|band| &band.data).map(|&v| f64::from(v)), &wanted);
            assert!(e < 1e-5, "{key} in f32: {e:e}");
        }
    }
    let unseen: Vec<String> = Wavelet::names().into_iter().filter(|name| !wavelets.contains(name)).collect();
    assert!(unseen.is_empty(), "no fixture for {unseen:?}");
}

/// tests/fixtures/wavelet_axes.py
#[test]
fn axes_and_the_automatic_level_are_those_of_pywavelets() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wavelet_axes.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let signal = |n: usize| -> Vec<f64> { (0..n).map(|i| (1.7 * i as f64 + 0.3).sin() + 0.1 * i as f64).collect() };
    let numbers = |text: &str| -> Vec<usize> { text.split('x').map(|n| n.parse().unwrap()).collect() };
    assert_eq!(tensors.len(), 24);
    for key in tensors.keys() {
        let [wavelet, mode, level, shape, axes] = key.split('/').collect::<Vec<_>>()[..] else { panic!("key {key}") };
        let (wavelet, mode) = (Wavelet::from_name(wavelet).unwrap(), Mode::from_name(mode).unwrap());
        let (shape, axes) = (numbers(shape), numbers(axes));
        let level: Option<usize> = level.parse().ok();
        let input = signal(shape.iter().product());
        let coeffs = wavedecn_axes(&input, &shape, &axes, &wavelet, mode, level).unwrap();
        let wanted = values(&tensors, key);
        let e = error(coeffs.bands().flat_map(|band| band.data.clone()), &wanted);
        assert!(e < 1e-10, "{key}: {e:e}");
        let back = waverecn(&coeffs).unwrap();
        let place = |index: usize, shape: &[usize], wide: &[usize]| {
            let (mut rest, mut place, mut stride) = (index, 0, 1);
            for (n, wide) in shape.iter().zip(wide).rev() {
                place += rest % n * stride;
                rest /= n;
                stride *= wide;
            }
            place
        };
        let e = error((0..input.len()).map(|i| back.data[place(i, &shape, &back.shape)]), &input);
        assert!(e < 1e-8, "{key} and back: {e:e}");
    }
    let haar = Wavelet::from_name("haar").unwrap();
    let automatic = wavedecn(&signal(64), &[4, 16], &haar, Mode::Zero, None).unwrap();
    assert_eq!(automatic.level(), 2);
    for bad in [&[][..], &[2], &[0, 0]] {
        let said = wavedecn_axes(&signal(64), &[4, 16], bad, &haar, Mode::Zero, 1).unwrap_err().to_string();
        assert!(said.contains("axes") && said.contains("each once"), "{said}");
    }
}

/// tests/fixtures/wavelet_stationary.py
#[test]
fn the_stationary_transform_and_its_inverse_are_those_of_pywavelets() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wavelet_stationary.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let keys: Vec<&String> = tensors.keys().filter(|key| !key.ends_with("inverse")).collect();
    assert_eq!(keys.len(), 25 + 18 + 4);
    let numbers = |text: &str| -> Vec<usize> { text.split('x').map(|n| n.parse().unwrap()).collect() };
    for key in keys {
        let [wavelet, level, shape, options @ ..] = &key.split('/').collect::<Vec<_>>()[..] else {
            panic!("key {key}")
        };
        let wavelet = Wavelet::from_name(wavelet).unwrap();
        let (level, shape): (usize, _) = (level.parse().unwrap(), numbers(shape));
        let mut config = StationaryConfig::new();
        if let Some(axes) = options.first() {
            config = config.axes(numbers(axes)).trim_approx(options.contains(&"trim")).norm(options.contains(&"norm"));
        }
        let start = options.iter().find_map(|option| option.strip_prefix("start"));
        if let Some(start) = start {
            config = config.start_level(start.parse().unwrap());
        }
        let count: usize = shape.iter().product();
        let input: Vec<f64> = (0..count).map(|i| (1.7 * i as f64 + 0.3).sin() + 0.1 * i as f64).collect();
        let mut coeffs = swtn_with(&input, &shape, &wavelet, level, &config).unwrap();
        let e = error(coeffs.levels.iter().flatten().flat_map(|band| band.data.clone()), &values(&tensors, key));
        assert!(e < 1e-10, "{key}: {e:e}");
        let single: Vec<f32> = input.iter().map(|&v| v as f32).collect();
        let bands = swtn_with(&single, &shape, &wavelet, level, &config).unwrap().levels;
        let e = error(bands.iter().flatten().flat_map(|b| &b.data).map(|&v| v.into()), &values(&tensors, key));
        assert!(e < 1e-5, "{key} in f32: {e:e}");
        let e = error(iswtn(&coeffs).unwrap().data, &input);
        assert!(e < 1e-8, "{key} and back: {e:e}");
        if start.is_some() {
            continue; // PyWavelets has no inverse of it
        }
        for (number, band) in (1..).zip(coeffs.levels.iter_mut().flatten()) {
            band.data.iter_mut().for_each(|v| *v /= f64::from(number));
        }
        let e = error(iswtn(&coeffs).unwrap().data, &values(&tensors, &format!("{key}/inverse")));
        assert!(e < 1e-10, "{key} of bands that are no array's: {e:e}");
    }
    let haar = Wavelet::from_name("haar").unwrap();
    for (shape, level) in [(&[8, 6][..], 2), (&[8, 8], 0), (&[8, 8], 64), (&[64], 7)] {
        let said = swtn(&vec![0.0f32; shape.iter().product()], shape, &haar, level).unwrap_err().to_string();
        assert!(said.contains("multiples of 2^level"), "{said}");
    }
    for start in [3, 64, usize::MAX] {
        let said = swtn_with(&[0.0f32; 8], &[8], &haar, 1, &StationaryConfig::new().start_level(start)).unwrap_err();
        assert!(said.to_string().contains("multiples of 2^(start_level + level)"), "{said}");
    }
    assert!(swtn(&[0.0f32; 5], &[8], &haar, 1).is_err());
    let trimmed = swtn_with(&[1.0f32; 16], &[4, 4], &haar, 2, &StationaryConfig::new().trim_approx(true)).unwrap();
    let lengths = ["aa", "dd"].map(|name| [2, 1].map(|level| trimmed.band(level, name).map(|band| band.data.len())));
    assert_eq!(lengths, [[Some(16), None], [Some(16), Some(16)]]);
    for axes in [&[][..], &[2], &[0, 0]] {
        let said = swtn_with(&[0.0f32; 16], &[4, 4], &haar, 1, &StationaryConfig::new().axes(axes)).unwrap_err();
        assert!(said.to_string().contains("each once"), "{said}");
    }
    // An axis that is not transformed may have any length.
    assert!(swtn_with(&[0.0f32; 15], &[3, 5], &haar, 1, &StationaryConfig::new().axes([0])).is_err());
    assert!(swtn_with(&[0.0f32; 20], &[4, 5], &haar, 2, &StationaryConfig::new().axes([0])).is_ok());
    let mut coeffs = swtn(&[0.0f32; 16], &[4, 4], &haar, 1).unwrap();
    coeffs.levels[0].pop();
    assert!(iswtn(&coeffs).unwrap_err().to_string().contains("4 bands"));
}

#[test]
fn wrong_arguments_are_named() {
    let haar = Wavelet::from_name("haar").unwrap();
    let message = |error: wavemesh::Error| error.to_string();
    assert!(message(Wavelet::from_name("db21").unwrap_err()).contains("`db21`"));
    assert!(message(Mode::from_name("mirror").unwrap_err()).contains("symmetric"));
    assert!(message(wavedecn(&[0.0f32; 5], &[2, 3], &haar, Mode::Zero, 1).unwrap_err()).contains("[2, 3]"));
    assert!(message(wavedecn::<f32>(&[], &[0], &haar, Mode::Zero, 1).unwrap_err()).contains("[0]"));
    assert!(message(wavedecn(&[0.0f32; 4], &[4], &haar, Mode::Zero, usize::MAX).unwrap_err()).contains("at most 64"));
    assert!(idwt(&[1.0f32], &[1.0, 2.0], &haar, Mode::Zero).is_err());
    let mut coeffs = wavedecn(&[0.0f64; 64], &[4, 4, 4], &haar, Mode::Zero, 2).unwrap();
    coeffs.details[0].pop();
    assert!(message(waverecn(&coeffs).unwrap_err()).contains("7 bands"));
}
