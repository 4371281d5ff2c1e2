//! How the members of a group find each other.

use std::io::Read;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{GREETING, Message, send};
use crate::{Error, Result};

/// Where the members meet rank 0.
pub enum Meeting {
    /// Rank 0 listens here.
    Listener(TcpListener),
    /// The others connect to this host and port.
    Address(String, u16),
}

impl Meeting {
    /// The connections to the others: from rank 0 to each other rank, or from another rank to rank 0.
    pub fn peers(self, rank: usize, world_size: usize, timeout: Duration) -> Result<Vec<(usize, TcpStream)>> {
        match self {
            Self::Listener(listener) => gather(&listener, world_size, timeout),
            Self::Address(host, port) => Ok(vec![(0, join(&host, port, rank, world_size, timeout)?)]),
        }
    }

    /// The first step of rank 0: it listens at an agreed address. A host's own name may mean its loopback address there; if there are other
    /// machines, rank 0 then listens at all of its addresses.
    pub fn listen(host: &str, port: u16, one_machine: bool) -> Result<TcpListener> {
        let loopback = || {
            let mut addresses = (host, port).to_socket_addrs().ok()?;
            Some(addresses.all(|address| address.ip().is_loopback()))
        };
        let at = if !one_machine && loopback() == Some(true) { "0.0.0.0" } else { host };
        TcpListener::bind((at, port)).map_err(|error| {
            let problem = format!(
                "it cannot listen at {at}:{port}: {error}; set MASTER_ADDR to an address of rank 0's machine and WAVEMESH_PORT to a free port"
            );
            Error::Group { rank: Some(0), problem }
        })
    }
}

/// Settings of a connection, for both ends.
fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(false)?;
    // Do not wait long for a member that does not read.
    stream.set_write_timeout(Some(Duration::from_secs(5)))
}

/// Rank 0 waits for all other ranks.
fn gather(listener: &TcpListener, world_size: usize, timeout: Duration) -> Result<Vec<(usize, TcpStream)>> {
    let failed = |error: std::io::Error| Error::Group { rank: Some(0), problem: format!("it cannot listen: {error}") };
    listener.set_nonblocking(true).map_err(failed)?;
    let until = Instant::now() + timeout;
    let mut found: Vec<(usize, TcpStream)> = Vec::new();
    while found.len() + 1 < world_size {
        match listener.accept() {
            Ok((stream, _)) => match greeted(&stream) {
                Some((rank, size)) if size != world_size => {
                    let problem = format!("it was started as one of {size} processes, rank 0 as one of {world_size}");
                    return Err(refuse(found, stream, rank, problem));
                }
                Some((rank, _)) if rank == 0 || rank >= world_size || found.iter().any(|(known, _)| *known == rank) => {
                    let problem = "two processes were started with this rank".to_string();
                    return Err(refuse(found, stream, rank, problem));
                }
                Some((rank, _)) => found.push((rank, stream)),
                None => {} // a connection from somebody else
            },
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(failed(error)),
        }
        if Instant::now() > until {
            let missing: Vec<usize> =
                (1..world_size).filter(|rank| found.iter().all(|(known, _)| known != rank)).collect();
            let problem = format!(
                "rank{} {missing:?} of {world_size} did not start within {:.0} s",
                if missing.len() > 1 { "s" } else { "" },
                timeout.as_secs_f64()
            );
            for (_, stream) in &mut found {
                let _ = send(stream, &Message::Failed { rank: missing.first().copied(), problem: problem.clone() });
            }
            return Err(Error::Group { rank: missing.first().copied(), problem });
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    Ok(found)
}

/// The rank and the number of processes with which a new connection begins.
fn greeted(mut stream: &TcpStream) -> Option<(usize, usize)> {
    const LONGEST: usize = 200;
    set_up(stream).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    // Read byte by byte: what follows the greeting is for another reader.
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < LONGEST && stream.read(&mut byte).ok()? == 1 {
        if byte == *b"\n" {
            stream.set_read_timeout(None).ok()?;
            return match serde_json::from_slice(&line).ok()? {
                Message::Hello { greeting, rank, world_size } if greeting == GREETING => Some((rank, world_size)),
                _ => None,
            };
        }
        line.extend(byte);
    }
    None
}

fn refuse(mut found: Vec<(usize, TcpStream)>, stream: TcpStream, rank: usize, problem: String) -> Error {
    found.push((rank, stream));
    for (_, stream) in &mut found {
        let _ = send(stream, &Message::Failed { rank: Some(rank), problem: problem.clone() });
    }
    Error::Group { rank: Some(rank), problem }
}

/// Another rank connects to rank 0, which may not be listening yet.
fn join(host: &str, port: u16, rank: usize, world_size: usize, timeout: Duration) -> Result<TcpStream> {
    let until = Instant::now() + timeout;
    loop {
        let tried = (host, port).to_socket_addrs().and_then(|addresses| {
            let mut last = std::io::Error::other("it has no address");
            for address in addresses {
                match TcpStream::connect_timeout(&address, Duration::from_secs(5).min(timeout)) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        });
        let greeted = tried.and_then(|mut stream| {
            set_up(&stream)?;
            send(&mut stream, &Message::Hello { greeting: GREETING.into(), rank, world_size })?;
            Ok(stream)
        });
        match greeted {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > until => {
                let problem = format!(
                    "it cannot be reached at {host}:{port} from rank {rank} within {:.0} s: {error}",
                    timeout.as_secs_f64()
                );
                return Err(Error::Group { rank: Some(0), problem });
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
