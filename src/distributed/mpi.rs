//! [`Mpi`]: MPI as the engine of a group, by the crate `mpi`.
//!
//! Operations are started and then polled (`MPI_Iallreduce`, `MPI_Test`). They are never waited for: a process that has died would make the
//! others wait for ever.

use std::net::TcpListener;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use mpi::ffi;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::AsRaw;
use mpi::{Threading, environment::Universe};

use super::engine::{Engine, Waiting};
use super::launch::{Launch, Launcher};
use super::watch::Meeting;
use crate::sync::lock;
use crate::{Error, Result};

/// The most numbers in one operation: MPI counts in C's int.
const MOST: usize = 1 << 28;
/// How long an operation is polled without a pause.
const EAGER: Duration = Duration::from_millis(2);

/// MPI's world.
pub(super) struct Mpi {
    /// Taken out if MPI must not be finalised.
    universe: Mutex<Option<Universe>>,
    world: SimpleCommunicator,
}

// SAFETY: MPI was started so that any thread may call it, one at a time, and a group makes one call at a time.
unsafe impl Send for Mpi {}
// SAFETY: as above.
unsafe impl Sync for Mpi {}

impl Mpi {
    /// Starts MPI in a process that was started by a launcher of MPI.
    pub fn start(launch: &Launch) -> Result<Self> {
        let started = mpi::initialize_with_threading(Threading::Serialized);
        let (universe, threading) =
            started.ok_or_else(|| needs("to be started by WaveMesh alone, once in a process"))?;
        if threading < Threading::Serialized {
            return Err(needs("an MPI library that threads may use (MPI_THREAD_SERIALIZED)"));
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        if (rank, size) != (launch.rank, launch.world_size) {
            let how = match launch.launcher {
                Launcher::Torchrun => {
                    "torchrun does not start MPI's processes; use `mpirun`, or GPUs with `WAVEMESH_ENGINE=nccl`"
                }
                Launcher::Srun => {
                    "use `srun --mpi=pmix` (`srun --mpi=list` names what this SLURM has), or `mpirun` in the allocation"
                }
                Launcher::Mpirun => "use the `mpirun` of the MPI library that this program is linked to",
            };
            let problem = format!(
                "to be started as one of {} processes, and MPI sees rank {rank} of {size}; {how}",
                launch.world_size
            );
            return Err(needs(problem));
        }
        // SAFETY: the handles belong to MPI.
        check(unsafe { ffi::MPI_Comm_set_errhandler(world.as_raw(), ffi::RSMPI_ERRORS_RETURN) })?;
        Ok(Self { universe: Mutex::new(Some(universe)), world })
    }

    /// Where the watch meets: at the launcher's address, or at the address that rank 0 sends over MPI.
    pub fn meeting(&self, launch: &Launch) -> Result<Meeting> {
        const HOST: usize = 256;
        if let Some((host, port)) = launch.address.clone() {
            return Ok(match launch.rank {
                0 => Meeting::Listener(Meeting::listen(&host, port, launch.one_machine)?),
                _ => Meeting::Address(host, port),
            });
        }
        let mut told = vec![0u8; 2 + HOST];
        let mut own: Result<Option<TcpListener>> = Ok(None);
        if launch.rank == 0 {
            let host = if launch.one_machine {
                "127.0.0.1".into()
            } else {
                mpi::environment::processor_name().unwrap_or_default()
            };
            own = Meeting::listen(&host, 0, launch.one_machine).and_then(|listener| {
                let port = listener.local_addr().map_err(Error::io(&host))?.port();
                told[..2].copy_from_slice(&port.to_le_bytes());
                told[2..][..host.len().min(HOST)].copy_from_slice(&host.as_bytes()[..host.len().min(HOST)]);
                Ok(Some(listener))
            });
        }
        self.broadcast(&mut told, &|| Ok(()))?;
        let port = u16::from_le_bytes([told[0], told[1]]);
        let host = String::from_utf8_lossy(&told[2..]).trim_end_matches('\0').to_string();
        match own? {
            Some(listener) => Ok(Meeting::Listener(listener)),
            None if port == 0 => {
                let problem = "it cannot listen for the others; set MASTER_ADDR to an address of its machine and WAVEMESH_PORT to a free port";
                Err(Error::Group { rank: Some(0), problem: problem.into() })
            }
            None => Ok(Meeting::Address(host, port)),
        }
    }

    fn sum_of<T: Copy + Default>(&self, values: &mut [T], kind: ffi::MPI_Datatype, waiting: Waiting) -> Result<()> {
        for part in values.chunks_mut(MOST) {
            // The operation owns its memory: if it is given up, MPI may still use it.
            let (own, mut all) = (part.to_vec(), vec![T::default(); part.len()]);
            // SAFETY: this is a constant of MPI.
            let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
            // SAFETY: both vectors hold this many numbers of this type, and live until the request is complete or for ever.
            check(unsafe {
                let (from, to) = (own.as_ptr().cast(), all.as_mut_ptr().cast());
                ffi::MPI_Iallreduce(
                    from,
                    to,
                    part.len() as i32,
                    kind,
                    ffi::RSMPI_SUM,
                    self.world.as_raw(),
                    &mut request,
                )
            })?;
            if let Err(error) = complete(&mut request, waiting) {
                std::mem::forget((own, all));
                return Err(error);
            }
            part.copy_from_slice(&all);
        }
        Ok(())
    }
}

impl Engine for Mpi {
    fn name(&self) -> &'static str {
        "mpi"
    }

    fn sum(&self, values: &mut [f64], waiting: Waiting) -> Result<()> {
        // SAFETY: this is a constant of MPI.
        self.sum_of(values, unsafe { ffi::RSMPI_DOUBLE }, waiting)
    }

    fn sum_f32(&self, values: &mut [f32], waiting: Waiting) -> Result<()> {
        // SAFETY: this is a constant of MPI.
        self.sum_of(values, unsafe { ffi::RSMPI_FLOAT }, waiting)
    }

    fn broadcast(&self, bytes: &mut [u8], waiting: Waiting) -> Result<()> {
        for part in bytes.chunks_mut(MOST) {
            let mut all = part.to_vec();
            // SAFETY: this is a constant of MPI.
            let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
            // SAFETY: the vector holds this many bytes, and lives until the request is complete or for ever.
            check(unsafe {
                let (to, count) = (all.as_mut_ptr().cast(), part.len() as i32);
                ffi::MPI_Ibcast(to, count, ffi::RSMPI_UINT8_T, 0, self.world.as_raw(), &mut request)
            })?;
            if let Err(error) = complete(&mut request, waiting) {
                std::mem::forget(all);
                return Err(error);
            }
            part.copy_from_slice(&all);
        }
        Ok(())
    }

    fn abandon(&self) {
        // MPI_Finalize would wait for processes that are gone.
        std::mem::forget(lock(&self.universe).take());
    }
}

/// Polls an operation until it is complete.
fn complete(request: &mut ffi::MPI_Request, waiting: Waiting) -> Result<()> {
    let started = Instant::now();
    loop {
        let mut done = 0;
        // SAFETY: MPI gave this request, and its status is not requested.
        check(unsafe { ffi::MPI_Test(request, &mut done, ffi::RSMPI_STATUS_IGNORE) })?;
        if done != 0 {
            return Ok(());
        }
        waiting()?;
        // MPI makes progress while it is polled. If there are more processes than processors, they need each other's.
        if started.elapsed() < EAGER {
            thread::yield_now();
        } else {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

fn check(code: i32) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(Error::Backend {
            backend: "mpi",
            needs: format!("its network does not work: MPI reports error {code}"),
        }),
    }
}

fn needs(what: impl std::fmt::Display) -> Error {
    Error::Backend { backend: "mpi", needs: format!("it needs {what}") }
}
