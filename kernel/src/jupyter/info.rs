//! Describes this kernel.

use serde_json::{Value, json};

use super::wire::PROTOCOL_VERSION;

/// The content of `kernel_info_reply`. It is available before any compiler is found.
pub fn kernel_info() -> Value {
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "status": "ok",
        "protocol_version": PROTOCOL_VERSION,
        "implementation": "wavemesh-kernel",
        "implementation_version": version,
        "language_info": {
            "name": "rust",
            "version": env!("CARGO_PKG_RUST_VERSION"),
            "mimetype": "text/rust",
            "file_extension": ".rs",
            "pygments_lexer": "rust",
            "codemirror_mode": "rust",
        },
        "banner": format!(
            "WaveMesh {version}: Rust, cell by cell.\n\
             `:help` lists the commands, `?name` shows documentation, `:dep crate = \"1\"` adds a crate."
        ),
        "debugger": false,
        "help_links": [
            { "text": "The Rust book", "url": "https://doc.rust-lang.org/book/" },
            { "text": "Rust by example", "url": "https://doc.rust-lang.org/rust-by-example/" },
            { "text": "The standard library", "url": "https://doc.rust-lang.org/std/" },
            { "text": "candle", "url": "https://docs.rs/candle-core/" },
            { "text": "plotters", "url": "https://docs.rs/plotters/" },
        ],
        "supported_features": [],
    })
}
