//! The sockets of a kernel: the server's side of [ZMTP 3.0](https://rfc.zeromq.org/spec/23/) with the NULL mechanism.
//!
//! [`handshake`] is how a connection begins, [`framing`] what it consists of.
//!
//! A kernel only ever binds, and needs three kinds of socket: ROUTER (shell, control, stdin), XPUB (iopub) and an echo
//! (heartbeat). General ZeroMQ crates leave four things open that a kernel must promise, so this file speaks the
//! protocol itself:
//! - a frame's announced length is never trusted: memory grows with the bytes that arrive, up to a limit;
//! - a subscriber that stops reading has a bounded backlog and does not hold up the others (see [`outbox`](super::outbox));
//! - a new subscriber can be greeted alone, before anything else reaches it (`iopub_welcome`);
//! - everything sent is on the wire before the process ends ([`Socket::drain`]).

mod framing;
mod handshake;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;

use self::framing::{Received, read_message, write_all};
use self::handshake::handshake;
use super::outbox::{Frames, Outbox};

/// How long a peer may take to introduce itself.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a leaving peer may still take messages from its outbox.
const FAREWELL: Duration = Duration::from_secs(2);
/// Connections one socket holds at a time; a frontend needs one.
const MAX_PEERS: usize = 512;
/// Subscriptions of one peer; a frontend has one.
const MAX_SUBSCRIPTIONS: usize = 4096;

/// What a socket is to its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives from many peers, answers each by its identity.
    Router,
    /// Sends back what it receives: the heartbeat.
    Echo,
    /// Publishes to the peers that subscribed to a prefix of the first frame.
    XPub,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Router => "ROUTER",
            Role::Echo => "REP",
            Role::XPub => "XPUB",
        }
    }

    fn accepts(self, peer: &[u8]) -> bool {
        match self {
            Role::Router => matches!(peer, b"DEALER" | b"REQ" | b"ROUTER"),
            Role::Echo => matches!(peer, b"REQ" | b"DEALER"),
            Role::XPub => matches!(peer, b"SUB" | b"XSUB"),
        }
    }

    /// The largest message a peer may send, in bytes.
    fn limit(self) -> usize {
        match self {
            Role::Router => 512 << 20,
            Role::Echo | Role::XPub => 64 << 10,
        }
    }
}

/// What a peer sent.
pub enum Event {
    /// A whole message; `identity` is where an answer goes.
    Message { identity: Bytes, frames: Vec<Bytes> },
    /// A peer of an XPUB socket subscribed to messages that begin with `topic`.
    Subscribed { identity: Bytes, topic: Bytes },
    /// A peer of an XPUB socket takes a subscription back.
    Unsubscribed { identity: Bytes, topic: Bytes },
}

/// Where a socket listens.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// Address and port, as in `127.0.0.1:5555`.
    Tcp(String),
    /// Path of a Unix socket.
    Ipc(PathBuf),
}

struct Peer {
    serial: u64,
    outbox: Arc<Outbox>,
    subscriptions: Mutex<Vec<Bytes>>,
}

struct Shared {
    role: Role,
    peers: Mutex<HashMap<Bytes, Arc<Peer>>>,
    events: mpsc::Sender<Event>,
    serial: AtomicU64,
    socket_file: Option<PathBuf>,
}

/// A bound socket. Clones share it.
#[derive(Clone)]
pub struct Socket(Arc<Shared>);

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(path) = &self.socket_file {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Socket {
    /// Binds to `endpoint` and serves connections in the background. What peers send arrives on the receiver, which
    /// holds back the senders when it is full.
    pub async fn bind(role: Role, endpoint: &Endpoint) -> io::Result<(Socket, mpsc::Receiver<Event>)> {
        let (events, receiver) = mpsc::channel(256);
        let shared = |socket_file| {
            Socket(Arc::new(Shared { role, peers: Mutex::default(), events, serial: AtomicU64::new(1), socket_file }))
        };
        let socket = match endpoint {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let socket = shared(None);
                let accepting = socket.clone();
                tokio::spawn(async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => {
                                let _ = stream.set_nodelay(true);
                                accepting.clone().serve(stream.into_split());
                            }
                            Err(error) => accept_failed(&error).await,
                        }
                    }
                });
                socket
            }
            Endpoint::Ipc(path) => {
                remove_stale(path).await;
                let listener = UnixListener::bind(path)?;
                // Over tcp everyone on the machine can connect, and the key decides who is believed; for a file, permissions decide.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                let socket = shared(Some(path.clone()));
                let accepting = socket.clone();
                tokio::spawn(async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => accepting.clone().serve(stream.into_split()),
                            Err(error) => accept_failed(&error).await,
                        }
                    }
                });
                socket
            }
        };
        Ok((socket, receiver))
    }

    /// Removes the file of an ipc socket; called when the kernel ends.
    pub fn unlink(&self) {
        if let Some(path) = &self.0.socket_file {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Sends to one peer. Messages to a peer that has gone are dropped, as ROUTER sockets do.
    pub fn send(&self, identity: &Bytes, frames: Frames) {
        if let Some(peer) = self.peer(identity) {
            peer.outbox.push(frames);
        }
    }

    /// Publishes to all subscribers. Waits while one of them has a full backlog and still reads.
    pub async fn publish(&self, frames: Frames) {
        let Some(topic) = frames.first() else { return };
        let subscribers: Vec<Arc<Peer>> = lock(&self.0.peers)
            .values()
            .filter(|peer| lock(&peer.subscriptions).iter().any(|prefix| topic.starts_with(prefix)))
            .cloned()
            .collect();
        for peer in subscribers {
            if peer.outbox.room_for(frames.size()).await {
                peer.outbox.push(frames.clone());
            }
        }
    }

    /// Lets messages that begin with `topic` through to `identity`.
    pub fn subscribe(&self, identity: &Bytes, topic: Bytes) {
        if let Some(peer) = self.peer(identity) {
            let mut subscriptions = lock(&peer.subscriptions);
            if subscriptions.len() < MAX_SUBSCRIPTIONS {
                subscriptions.push(topic);
            }
        }
    }

    /// Takes one subscription back.
    pub fn unsubscribe(&self, identity: &Bytes, topic: &Bytes) {
        if let Some(peer) = self.peer(identity) {
            let mut subscriptions = lock(&peer.subscriptions);
            if let Some(at) = subscriptions.iter().position(|held| held == topic) {
                subscriptions.swap_remove(at);
            }
        }
    }

    /// Waits until every peer has received what was sent, but not longer than `limit`.
    pub async fn drain(&self, limit: Duration) {
        let peers: Vec<Arc<Peer>> = lock(&self.0.peers).values().cloned().collect();
        let _ = tokio::time::timeout(limit, async {
            for peer in peers {
                peer.outbox.drained().await;
            }
        })
        .await;
    }

    fn peer(&self, identity: &Bytes) -> Option<Arc<Peer>> {
        lock(&self.0.peers).get(identity).cloned()
    }

    fn serve<R, W>(self, (reader, writer): (R, W))
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        if lock(&self.0.peers).len() >= MAX_PEERS {
            return;
        }
        tokio::spawn(async move {
            // A peer that breaks the protocol or leaves ends its own connection and nothing else.
            let _ = self.connection(reader, writer).await;
        });
    }

    async fn connection<R, W>(&self, mut reader: R, mut writer: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let announced = tokio::time::timeout(HANDSHAKE, handshake(self.0.role, &mut reader, &mut writer)).await??;
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let identity = if announced.is_empty() {
            // The identities that the socket assigns itself begin with a zero byte.
            Bytes::from([&[0][..], &serial.to_be_bytes()[..]].concat())
        } else {
            announced
        };
        let peer = Arc::new(Peer { serial, outbox: Arc::default(), subscriptions: Mutex::default() });
        // A frontend that comes back under its old identity takes the place of its dead connection.
        if let Some(replaced) = lock(&self.0.peers).insert(identity.clone(), peer.clone()) {
            replaced.outbox.close();
        }
        let outbox = peer.outbox.clone();
        let mut writing = tokio::spawn(async move {
            let _ = write_all(writer, &outbox).await;
            outbox.close();
        });
        let result = tokio::select! {
            result = self.receive(&mut reader, &identity, &peer) => result,
            () = peer.outbox.closed() => Ok(()),
        };
        peer.outbox.close();
        if tokio::time::timeout(FAREWELL, &mut writing).await.is_err() {
            writing.abort();
        }
        let mut peers = lock(&self.0.peers);
        if peers.get(&identity).is_some_and(|current| current.serial == peer.serial) {
            peers.remove(&identity);
        }
        result
    }

    async fn receive<R: AsyncRead + Unpin>(&self, reader: &mut R, identity: &Bytes, peer: &Peer) -> io::Result<()> {
        let mut reader = tokio::io::BufReader::with_capacity(64 * 1024, reader);
        loop {
            let frames = match read_message(&mut reader, self.0.role.limit()).await? {
                Received::Message(frames) => frames,
                Received::Command(body) => {
                    if let Some(context) = body.strip_prefix(b"\x04PING").and_then(|rest| rest.get(2..)) {
                        peer.outbox.push(Frames::command([b"\x04PONG", context].concat()));
                    }
                    continue;
                }
            };
            let identity = identity.clone();
            let event = match self.0.role {
                Role::Router => Event::Message { identity, frames },
                Role::Echo => {
                    peer.outbox.push(Frames::from(frames));
                    continue;
                }
                Role::XPub => match frames.first().and_then(|frame| frame.split_first()) {
                    Some((1, topic)) => Event::Subscribed { identity, topic: Bytes::copy_from_slice(topic) },
                    Some((0, topic)) => Event::Unsubscribed { identity, topic: Bytes::copy_from_slice(topic) },
                    _ => continue,
                },
            };
            if self.0.events.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// A shortage of file descriptors passes; trying again at once would only waste processor time.
async fn accept_failed(error: &io::Error) {
    crate::jupyter::log!("a connection could not be accepted: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Removes the socket file of a kernel that was killed, so that the kernel restarted in its place can bind. A file on which somebody
/// listens is left alone; binding then fails and says why.
async fn remove_stale(path: &PathBuf) {
    if let Err(error) = UnixStream::connect(path).await
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        let _ = std::fs::remove_file(path);
    }
}
