//! The common part of a watch's threads, which write, read, and look for late members.

use std::io::BufReader;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{Message, receive, send};
use super::state::{Failure, Round, State};
use crate::sync::lock;

pub struct Shared {
    pub rank: usize,
    pub world_size: usize,
    pub timeout: Duration,
    pub state: Mutex<State>,
    pub changed: Condvar,
    pub failed: AtomicBool,
    pub closing: AtomicBool,
    pub entered: AtomicU64,
    pub left: AtomicU64,
    /// The connections: from rank 0 to each other rank, or from another rank to rank 0.
    pub peers: Vec<(usize, Mutex<TcpStream>)>,
}

impl Shared {
    pub fn new(rank: usize, world_size: usize, timeout: Duration, peers: Vec<(usize, Mutex<TcpStream>)>) -> Self {
        Self {
            rank,
            world_size,
            timeout,
            state: Mutex::new(State::new(world_size)),
            changed: Condvar::new(),
            failed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            entered: AtomicU64::new(0),
            left: AtomicU64::new(0),
            peers,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn tell(&self, rank: usize, message: &Message) {
        let Some((_, stream)) = self.peers.iter().find(|(peer, _)| *peer == rank) else { return };
        // If a connection does not accept the message, the thread that reads from it notices.
        let _ = send(&mut lock(stream), message);
    }

    pub fn fail(&self, failure: Failure) {
        if self.state().failure.is_some() {
            return;
        }
        // Tell the others first: this process may leave as soon as it knows.
        for (peer, _) in &self.peers {
            self.tell(*peer, &Message::Failed { rank: failure.rank, problem: failure.problem.clone() });
        }
        self.state().failure.get_or_insert(failure);
        self.failed.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Stores a member's text. When the last one arrives, rank 0 sends all of them to everybody.
    pub fn said(&self, from: usize, number: u64, text: String, (limit, what): (Duration, &str)) {
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
            texts
        };
        // Tell the others first: this process may leave as soon as it knows.
        for (peer, _) in &self.peers {
            self.tell(*peer, &Message::All { round: number, texts: complete.clone() });
        }
        self.state().answers = (number, complete);
        self.changed.notify_all();
    }

    /// Reads what a peer sends until the connection ends.
    pub fn listen(&self, peer: usize, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let message = match receive(&mut stream) {
                Ok(Some(message)) => message,
                Ok(None) | Err(_) => {
                    let gone = self.state().members[peer].gone || self.closing.load(Ordering::Acquire);
                    if !gone {
                        let problem = "its process ended: its connection closed unexpectedly".to_string();
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

    /// Reports this process's progress, and looks for members that are late.
    pub fn beat(&self) {
        let interval = (self.timeout / 5).min(Duration::from_secs(1));
        let mut last = Instant::now();
        while !self.closing.load(Ordering::Acquire) && !self.failed.load(Ordering::Acquire) {
            if last.elapsed() > 2 * interval + Duration::from_secs(1) {
                // This process was paused for a while: messages that arrived in the meantime have not been read yet.
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
            let peers = self.peers.iter().map(|(peer, _)| *peer);
            let late = self.state().late(self.rank, peers, self.timeout);
            if let Some(failure) = late {
                self.fail(failure);
            }
            thread::sleep(interval);
        }
    }
}
