//! Several processes train one network: on the GPUs of one machine, or over a cluster.
//!
//! A [`ProcessGroup`] is built from the variables that the usual launchers set ([`Launch`]). An [`Engine`] moves the numbers: MPI (feature
//! `mpi`) for processors, NCCL (feature `nccl`) for GPUs, or your own. In addition, a watch over TCP ends the group if a process ends or
//! hangs, with an error that names the rank. [`Trainer::in_group`](crate::train::Trainer::in_group) trains in a group. The book's page on
//! scale has the commands for each launcher.

mod buckets;
mod engine;
mod facts;
mod group;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod watch;

pub use engine::{Engine, Waiting};
pub use group::{ProcessGroup, Traffic};
pub use launch::{Launch, Launcher, Place};
