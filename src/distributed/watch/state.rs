//! What a member knows about the others, and which of them it waits for.

use std::time::{Duration, Instant};

use crate::Error;

/// Why a group has failed.
#[derive(Clone)]
pub struct Failure {
    pub rank: Option<usize>,
    pub problem: String,
}

/// What rank 0 knows about a member.
pub struct Member {
    pub heard: Instant,
    pub entered: u64,
    pub left: u64,
    /// The time since which it is in its current operation.
    pub since: Instant,
    pub gone: bool,
}

/// A round of texts.
pub struct Round {
    pub number: u64,
    pub texts: Vec<Option<String>>,
    pub deadline: Instant,
    pub limit: Duration,
    pub what: String,
}

pub struct State {
    pub failure: Option<Failure>,
    pub members: Vec<Member>,
    pub round: Option<Round>,
    /// The number of the last complete round, and its texts.
    pub answers: (u64, Vec<String>),
    /// Whether this process waits for a round.
    pub asking: bool,
}

impl Member {
    pub fn came_to(&mut self, entered: u64, left: u64) {
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

impl State {
    /// The state at the start of a group with this many processes.
    pub fn new(world_size: usize) -> Self {
        let now = Instant::now();
        let member = || Member { heard: now, entered: 0, left: 0, since: now, gone: false };
        Self {
            failure: None,
            members: (0..world_size).map(|_| member()).collect(),
            round: None,
            answers: (0, Vec::new()),
            asking: false,
        }
    }

    /// The process that makes the others wait, as seen by `rank`, which is connected to `peers`.
    pub fn late(&mut self, rank: usize, peers: impl IntoIterator<Item = usize>, timeout: Duration) -> Option<Failure> {
        let Self { members, round, asking, .. } = self;
        let now = Instant::now();
        members[rank].heard = now;
        let seconds = timeout.as_secs_f64();
        let silent = peers.into_iter().find(|&peer| {
            let member = &members[peer];
            !member.gone && now.duration_since(member.heard) > timeout
        });
        if let Some(rank) = silent {
            let problem = format!("it has said nothing for {seconds:.0} s: its process or its machine hangs");
            return Some(Failure { rank: Some(rank), problem });
        }
        if rank > 0 {
            let (own, first) = (&members[rank], &members[0]);
            let left = first.gone && (*asking || own.entered > own.left && own.entered > first.entered);
            return left.then(|| Failure { rank: Some(0), problem: "it left while others waited for it".into() });
        }
        if let Some(round) = round {
            let missing = round.texts.iter().position(Option::is_none).unwrap_or(0);
            if now > round.deadline {
                let problem = format!("it has not reached {} within {:.0} s", round.what, round.limit.as_secs_f64());
                return Some(Failure { rank: Some(missing), problem });
            }
            if members[missing].gone {
                return Some(Failure { rank: Some(missing), problem: format!("it left before {}", round.what) });
            }
        }
        let (waiting, first) =
            members.iter().enumerate().filter(|(_, m)| m.entered > m.left).max_by_key(|(_, m)| m.entered)?;
        let waits = now.duration_since(first.since) > timeout;
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
                "it has not reached operation {at}, in which rank {waiting} has waited for {seconds:.0} s: it hangs"
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
