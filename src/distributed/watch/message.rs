//! The messages between the members of a group: lines of JSON.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;

use serde::{Deserialize, Serialize};

/// The first message of every member; the number changes when messages change.
pub const GREETING: &str = "wavemesh group 1";
/// The longest message, in bytes.
const LONGEST: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
pub enum Message {
    Hello {
        greeting: String,
        rank: usize,
        world_size: usize,
    },
    /// How many operations the sender has started, and how many it has completed.
    Beat {
        entered: u64,
        left: u64,
    },
    /// The sender's text in a round, how long all may take to arrive, and a description of the round.
    Say {
        round: u64,
        text: String,
        milliseconds: u64,
        what: String,
    },
    /// The texts of all members.
    All {
        round: u64,
        texts: Vec<String>,
    },
    Failed {
        rank: Option<usize>,
        problem: String,
    },
    /// The sender leaves after this many operations.
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
