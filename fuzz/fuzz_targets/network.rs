//! Any bytes, read as the file of a network, in our format and in PyTorch's: an error or a network, never a panic.
#![no_main]

use candle_core::Device;
use wavemesh::import::ImportOptions;
use wavemesh::unet::{UNetConfig, WaveMeshUNet};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let write = |extension: &str| {
        let path = std::env::temp_dir().join(format!("wavemesh-fuzz-{}.{extension}", std::process::id()));
        std::fs::write(&path, bytes).map(|()| path)
    };
    if let Ok(path) = write("safetensors") {
        let _ = WaveMeshUNet::load(path, &Device::Cpu);
    }
    if let (Ok(path), Ok(network)) =
        (write("pth"), WaveMeshUNet::seeded(&UNetConfig::plain(1, 1, &[2]), 0, &Device::Cpu))
    {
        let _ = network.load_weights(path, &ImportOptions::default());
    }
});
