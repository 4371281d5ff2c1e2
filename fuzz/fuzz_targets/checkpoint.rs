//! Any bytes, read as a checkpoint of PyTorch or safetensors: an error or tensors, never a panic.
#![no_main]

use wavemesh::import::Checkpoint;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Checkpoint::from_bytes("fuzz.pth", bytes);
});
