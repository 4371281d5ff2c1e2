//! [`Watch`]: the processes of a group see to each other, beside the engine that moves their numbers.
//!
//! Every rank keeps a TCP connection to rank 0 and says once in a while how many of the engine's operations it has come to and which it
//! is through with. So rank 0 notices a process that ended (its connection closed), one that says nothing any more, and one that does not
//! come to an operation in which others wait; it tells everybody, and whoever waits for the engine gives up with an error that names the
//! rank. Short texts that all must know of each other go the same way.
//!
//! Messages are lines of JSON. A connection that does not begin as a member of this group would is closed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::sync::lock;
use crate::{Error, Result};

/// What every member says first; another number when messages change.
const GREETING: &str = "wavemesh group 1";
/// Bytes of a message at most.
const LONGEST: u64 = 64 << 20;
/// How long a goodbye may take.
const PARTING: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
enum Message {
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

/// Why a group has ended before its time.
#[derive(Clone)]
struct Failure {
    rank: Option<usize>,
    problem: String,
}

/// What rank 0 knows of a member.
struct Member {
    heard: Instant,
    entered: u64,
    left: u64,
    /// Since when it has been in the operation that it is in.
    since: Instant,
    gone: bool,
}

/// A round of texts.
struct Round {
    number: u64,
    texts: Vec<Option<String>>,
    deadline: Instant,
    limit: Duration,
    what: String,
}

struct State {
    failure: Option<Failure>,
    members: Vec<Member>,
    round: Option<Round>,
    /// Number of the last round that is complete, and its texts.
    answers: (u64, Vec<String>),
    /// Whether this process waits for a round.
    asking: bool,
}

struct Shared {
    rank: usize,
    world_size: usize,
    timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
    failed: AtomicBool,
    closing: AtomicBool,
    entered: AtomicU64,
    left: AtomicU64,
    /// The connections: of rank 0 to each other rank, of another rank to rank 0.
    peers: Vec<(usize, Mutex<TcpStream>)>,
}

/// A member's part in the watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    rounds: AtomicU64,
    readers: Vec<JoinHandle<()>>,
}

/// Where rank 0 is met.
pub(super) enum Meeting {
    /// Rank 0 listens here.
    Listener(TcpListener),
    /// The others connect to this host and port.
    Address(String, u16),
}

impl Meeting {
    /// What rank 0 of a group does first: it listens at an address that was agreed on. A host's own name may mean its loopback address there;
    /// processes of other machines then find it at any of its addresses.
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

impl Watch {
    /// Meets the others; returns when all are there.
    ///
    /// # Errors
    /// [`Error::Group`] that names the ranks that have not come within `timeout`, or an address that cannot be reached.
    pub fn start(rank: usize, world_size: usize, meeting: Meeting, timeout: Duration) -> Result<Self> {
        let peers = match meeting {
            Meeting::Listener(listener) => gather(&listener, world_size, timeout)?,
            Meeting::Address(host, port) => vec![(0, join(&host, port, rank, world_size, timeout)?)],
        };
        let now = Instant::now();
        let member = || Member { heard: now, entered: 0, left: 0, since: now, gone: false };
        let mut connections = Vec::new();
        let mut writers = Vec::new();
        for (rank, stream) in peers {
            writers.push((rank, Mutex::new(stream.try_clone().map_err(|error| lost(rank, &error))?)));
            connections.push((rank, stream));
        }
        let shared = Arc::new(Shared {
            rank,
            world_size,
            timeout,
            state: Mutex::new(State {
                failure: None,
                members: (0..world_size).map(|_| member()).collect(),
                round: None,
                answers: (0, Vec::new()),
                asking: false,
            }),
            changed: Condvar::new(),
            failed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            entered: AtomicU64::new(0),
            left: AtomicU64::new(0),
            peers: writers,
        });
        let mut readers = Vec::new();
        for (peer, stream) in connections {
            let shared = shared.clone();
            readers.push(spawn(format!("wavemesh-hears-{peer}"), move || shared.listen(peer, stream))?);
        }
        let beating = shared.clone();
        spawn("wavemesh-watch".into(), move || beating.beat())?;
        Ok(Self { shared, rounds: AtomicU64::new(0), readers })
    }

    /// An error once the group has failed.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub fn check(&self) -> Result<()> {
        if !self.shared.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        lock(&self.shared.state).failure.clone().map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Runs an operation in which all members wait for each other.
    ///
    /// # Errors
    /// What the operation returns.
    pub fn operation<T>(&self, body: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<T>) -> Result<T> {
        self.check()?;
        self.shared.entered.fetch_add(1, Ordering::AcqRel);
        let done = body(&|| self.check())?;
        self.shared.left.fetch_add(1, Ordering::AcqRel);
        Ok(done)
    }

    /// Everybody's texts, by rank, when all have come to this round within `limit`.
    ///
    /// # Errors
    /// [`Error::Group`] that names a rank that has not come.
    pub fn exchange(&self, text: String, what: &str, limit: Duration) -> Result<Vec<String>> {
        let shared = &self.shared;
        let round = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        if shared.rank == 0 {
            shared.said(0, round, text, (limit, what));
        } else {
            let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            shared.tell(0, &Message::Say { round, text, milliseconds, what: what.to_string() });
        }
        let mut state = lock(&shared.state);
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone().into());
            }
            state.asking = state.answers.0 != round;
            if !state.asking {
                return Ok(std::mem::take(&mut state.answers.1));
            }
            state = shared.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Ends the group: everybody else's next operation, or the one that they wait in, returns this as an error.
    pub fn fail(&self, rank: Option<usize>, problem: &str) {
        self.shared.fail(Failure { rank, problem: problem.to_string() });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let shared = &self.shared;
        if thread::panicking() {
            self.fail(Some(shared.rank), "it panicked");
        }
        shared.closing.store(true, Ordering::Release);
        for (peer, stream) in &shared.peers {
            shared.tell(*peer, &Message::Bye { entered: shared.entered.load(Ordering::Acquire) });
            let _ = lock(stream).shutdown(Shutdown::Write);
        }
        // What others still say is read to its end: closing before would take our last words back from them.
        let until = Instant::now() + PARTING;
        while Instant::now() < until && self.readers.iter().any(|reader| !reader.is_finished()) {
            thread::sleep(Duration::from_millis(2));
        }
        for (_, stream) in &shared.peers {
            let _ = lock(stream).shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn tell(&self, rank: usize, message: &Message) {
        let Some((_, stream)) = self.peers.iter().find(|(peer, _)| *peer == rank) else { return };
        // A connection that does not take it is noticed by who reads from it.
        let _ = send(&mut lock(stream), message);
    }

    fn fail(&self, failure: Failure) {
        if self.state().failure.is_some() {
            return;
        }
        // The others first: who learns of it here may leave at once.
        for (peer, _) in &self.peers {
            self.tell(*peer, &Message::Failed { rank: failure.rank, problem: failure.problem.clone() });
        }
        self.state().failure.get_or_insert(failure);
        self.failed.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Notes a member's text; the last one's makes rank 0 tell all of them to everybody.
    fn said(&self, from: usize, number: u64, text: String, (limit, what): (Duration, &str)) {
        let complete = {
            let mut state = self.state();
            let round = state.round.get_or_insert_with(|| Round {
                number,
                texts: vec![None; self.world_size],
                deadline: Instant::now()
                    .checked_add(limit)
                    .unwrap_or_else(|| Instant::now() + Duration::from_secs(1 << 30)),
                limit,
                what: what.to_string(),
            });
            if round.number != number || round.what != what {
                let problem = format!(
                    "it is at {what} (round {number}), and another rank at {} (round {}): all must run the same program",
                    round.what, round.number
                );
                drop(state);
                return self.fail(Failure { rank: Some(from), problem });
            }
            round.texts[from] = Some(text);
            if round.texts.iter().any(Option::is_none) {
                return;
            }
            let texts: Vec<String> = round.texts.drain(..).flatten().collect();
            state.round = None;
            state.answers = (number, texts.clone());
            texts
        };
        self.changed.notify_all();
        for (peer, _) in &self.peers {
            self.tell(*peer, &Message::All { round: number, texts: complete.clone() });
        }
    }

    /// Reads what a peer says until its connection ends.
    fn listen(&self, peer: usize, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let message = match receive(&mut stream) {
                Ok(Some(message)) => message,
                Ok(None) | Err(_) => {
                    let gone = self.state().members[peer].gone || self.closing.load(Ordering::Acquire);
                    if !gone {
                        let problem = "its process ended: its connection closed without a goodbye".to_string();
                        self.fail(Failure { rank: Some(peer), problem });
                    }
                    return;
                }
            };
            let mut state = self.state();
            let member = &mut state.members[peer];
            member.heard = Instant::now();
            match message {
                Message::Beat { entered, left } => member.came_to(entered, left),
                Message::Say { round, text, milliseconds, what } => {
                    drop(state);
                    self.said(peer, round, text, (Duration::from_millis(milliseconds), &what));
                }
                Message::All { round, texts } => {
                    (state.answers, state.asking) = ((round, texts), false);
                    drop(state);
                    self.changed.notify_all();
                }
                Message::Failed { rank, problem } => {
                    drop(state);
                    self.fail(Failure { rank, problem });
                }
                Message::Bye { entered } => (member.entered, member.left, member.gone) = (entered, entered, true),
                Message::Hello { .. } => {}
            }
        }
    }

    /// Says how far this process is, and looks for those that are not.
    fn beat(&self) {
        let interval = (self.timeout / 5).min(Duration::from_secs(1));
        let mut last = Instant::now();
        while !self.closing.load(Ordering::Acquire) && !self.failed.load(Ordering::Acquire) {
            if last.elapsed() > 2 * interval + Duration::from_secs(1) {
                // This process was stopped for a while: what the others said in the meantime is still to be read.
                let mut state = self.state();
                state
                    .members
                    .iter_mut()
                    .for_each(|member| (member.heard, member.since) = (Instant::now(), Instant::now()));
            }
            last = Instant::now();
            let (entered, left) = (self.entered.load(Ordering::Acquire), self.left.load(Ordering::Acquire));
            self.state().members[self.rank].came_to(entered, left);
            for (peer, _) in &self.peers {
                self.tell(*peer, &Message::Beat { entered, left });
            }
            if let Some(failure) = self.look() {
                self.fail(failure);
            }
            thread::sleep(interval);
        }
    }

    /// Whoever keeps the others waiting.
    fn look(&self) -> Option<Failure> {
        let mut state = self.state();
        let State { members, round, asking, .. } = &mut *state;
        let now = Instant::now();
        members[self.rank].heard = now;
        let seconds = self.timeout.as_secs_f64();
        let watched = self.peers.iter().map(|(peer, _)| *peer).find(|&peer| {
            let member = &members[peer];
            !member.gone && now.duration_since(member.heard) > self.timeout
        });
        if let Some(rank) = watched {
            let problem = format!("it has said nothing for {seconds:.0} s: its process or its machine hangs");
            return Some(Failure { rank: Some(rank), problem });
        }
        if self.rank > 0 {
            let (own, first) = (&members[self.rank], &members[0]);
            let left = first.gone && (*asking || own.entered > own.left && own.entered > first.entered);
            return left.then(|| Failure { rank: Some(0), problem: "it left while others waited for it".into() });
        }
        if let Some(round) = round {
            let missing = round.texts.iter().position(Option::is_none).unwrap_or(0);
            if now > round.deadline {
                let problem = format!("it has not come to {} within {:.0} s", round.what, round.limit.as_secs_f64());
                return Some(Failure { rank: Some(missing), problem });
            }
            if members[missing].gone {
                return Some(Failure { rank: Some(missing), problem: format!("it left before {}", round.what) });
            }
        }
        let (waiting, first) =
            members.iter().enumerate().filter(|(_, m)| m.entered > m.left).max_by_key(|(_, m)| m.entered)?;
        let waits = now.duration_since(first.since) > self.timeout;
        let (late, last) = members.iter().enumerate().min_by_key(|(_, m)| m.entered)?;
        let at = first.entered;
        if last.entered < at && last.gone {
            return Some(Failure {
                rank: Some(late),
                problem: format!("it left before operation {at}, in which rank {waiting} waits"),
            });
        }
        if !waits {
            return None;
        }
        Some(if last.entered < at {
            let problem = format!(
                "it has not come to operation {at}, in which rank {waiting} has waited for {seconds:.0} s: it hangs"
            );
            Failure { rank: Some(late), problem }
        } else {
            let problem = format!(
                "all ranks have waited in operation {at} for {seconds:.0} s: the network between them does not work"
            );
            Failure { rank: None, problem }
        })
    }
}

impl Member {
    fn came_to(&mut self, entered: u64, left: u64) {
        if (entered, left) != (self.entered, self.left) {
            (self.entered, self.left, self.since) = (entered, left, Instant::now());
        }
    }
}

impl From<Failure> for Error {
    fn from(Failure { rank, problem }: Failure) -> Self {
        Self::Group { rank, problem }
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let failed = |error| Error::Group { rank: None, problem: format!("a thread cannot be started: {error}") };
    thread::Builder::new().name(name).spawn(body).map_err(failed)
}

fn lost(rank: usize, error: &std::io::Error) -> Error {
    Error::Group { rank: Some(rank), problem: format!("the connection to it is lost: {error}") }
}

fn send(stream: &mut TcpStream, message: &Message) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// The next message; `None` at the end.
fn receive(stream: &mut impl BufRead) -> std::io::Result<Option<Message>> {
    let mut line = Vec::new();
    let read = stream.take(LONGEST).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// What both ends of a connection do with it.
fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(false)?;
    // Nobody waits for long for one that does not read.
    stream.set_write_timeout(Some(Duration::from_secs(5)))
}

/// Rank 0 waits for all others.
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
                None => {} // somebody else's connection
            },
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(failed(error)),
        }
        if Instant::now() > until {
            let missing: Vec<usize> =
                (1..world_size).filter(|rank| found.iter().all(|(known, _)| known != rank)).collect();
            let problem = format!(
                "rank{} {missing:?} of {world_size} did not come within {:.0} s",
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

/// The rank and the number of processes that a new connection begins with.
fn greeted(mut stream: &TcpStream) -> Option<(usize, usize)> {
    const LONGEST: usize = 200;
    set_up(stream).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    // A byte at a time: what follows the greeting is for another reader.
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

/// Another rank finds rank 0, which may not be there yet.
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
