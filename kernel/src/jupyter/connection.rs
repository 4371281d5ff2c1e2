//! The connection file: where the frontend wants the kernel's five sockets, and the key that signs messages.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::zmtp::Endpoint;

/// What a connection file holds. It is not `Debug`, because the key is in it.
#[derive(Deserialize)]
pub struct ConnectionInfo {
    transport: Transport,
    /// An address; over ipc a path.
    ip: String,
    pub shell_port: u16,
    pub iopub_port: u16,
    pub stdin_port: u16,
    pub control_port: u16,
    pub hb_port: u16,
    pub key: String,
    signature_scheme: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tcp,
    Ipc,
}

/// Reads and checks a connection file. No error quotes the file's content, because the key is in it.
pub fn read(path: &Path) -> Result<ConnectionInfo> {
    let text = std::fs::read(path).with_context(|| format!("cannot read the connection file {}", path.display()))?;
    let Ok(info) = serde_json::from_slice::<ConnectionInfo>(&text) else {
        bail!(
            "{} is not a connection file: it must be a JSON object with ip, transport (tcp or ipc), key, signature_scheme, \
             shell_port, iopub_port, stdin_port, control_port and hb_port",
            path.display()
        );
    };
    if !info.key.is_empty() && info.signature_scheme != "hmac-sha256" {
        bail!(
            "the connection file asks for the signature scheme {:?}; this kernel signs with \"hmac-sha256\"",
            info.signature_scheme
        );
    }
    Ok(info)
}

/// The endpoint of one channel. Over ipc `ip` is a path and the port a suffix: `{ip}-{port}`.
pub fn endpoint(info: &ConnectionInfo, port: u16) -> Endpoint {
    match info.transport {
        Transport::Tcp if info.ip.contains(':') && !info.ip.starts_with('[') => {
            Endpoint::Tcp(format!("[{}]:{port}", info.ip))
        }
        Transport::Tcp => Endpoint::Tcp(format!("{}:{port}", info.ip)),
        Transport::Ipc => Endpoint::Ipc(format!("{}-{port}", info.ip).into()),
    }
}
