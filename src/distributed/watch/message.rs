//! What the members of a group say to each other: lines of JSON.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;

use serde::{Deserialize, Serialize};

/// What every member says first; another number when messages change.
pub const GREETING: &str = "wavemesh group 1";
/// Bytes of a message at most.
const LONGEST: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
pub enum Message {
    Hello {
        greeting: String,
        rank: usize,
        world_size: usize,
    },
    /// Operations that the sender has come to, and that it is through with.
    Beat {
        entered: u64,
        left: u64,
    },
    /// The sender's text in a round, how long it may take for all to come, and what the round is.
    Say {
        round: u64,
        text: String,
        milliseconds: u64,
        what: String,
    },
    /// Everybody's texts.
    All {
        round: u64,
        texts: Vec<String>,
    },
    Failed {
        rank: Option<usize>,
        problem: String,
    },
    /// The sender leaves; the operations that it has come to.
    Bye {
        entered: u64,
    },
}

pub fn send(stream: &mut TcpStream, message: &Message) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// The next message; `None` at the end.
pub fn receive(stream: &mut impl BufRead) -> std::io::Result<Option<Message>> {
    let mut line = Vec::new();
    let read = stream.take(LONGEST).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}
