//! Several processes train one network: on the GPUs of one machine, or over a cluster.
//!
//! A [`ProcessGroup`] is built from the variables that the usual launchers set ([`Launch`]); an [`Engine`] moves the numbers: MPI (feature `mpi`) for
//! processors, NCCL (feature `nccl`) for GPUs, or one of your own. Beside it a watch over TCP ends the group, with an error that names
//! the rank, when a process ends or hangs. [`Trainer::in_group`](crate::train::Trainer::in_group) trains in a group. The book's page on scale
//! has the commands of each launcher.

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
