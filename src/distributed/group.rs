//! [`ProcessGroup`]: the processes that train one network together.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde_json::Value;

use super::buckets::sum_in_buckets;
use super::engine::Engine;
use super::facts::difference;
use super::launch::{Launch, Launcher, Place};
use super::watch::{Meeting, Watch};
use crate::device::{best_device, nth_device};
use crate::sparse::AllReduce;
use crate::sync::lock;
use crate::{Error, Result};

/// The environment variable that chooses the engine: `mpi` or `nccl`.
const ENGINE_VARIABLE: &str = "WAVEMESH_ENGINE";
/// The environment variable with the number of seconds after which a missing rank is given up.
const TIMEOUT_VARIABLE: &str = "WAVEMESH_GROUP_TIMEOUT";
/// The default, if the variable is not set.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How much a group has sent, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Number of operations of the engine.
    pub operations: u64,
    /// Bytes that this process has put into sums and received from broadcasts.
    pub bytes: u64,
    /// Seconds spent in these operations, including waiting for others.
    pub seconds: f64,
}

/// The processes that train one network together, as one of them sees them: its own rank, sums over all processes, and an end for all if
/// one fails.
///
/// A program calls [`from_environment`](Self::from_environment) and passes the group to its [`Trainer`](crate::train::Trainer::in_group).
/// If torchrun, `srun` or `mpirun` started it, it is one of several processes; otherwise it is a group of one, whose operations do nothing
/// and cost nothing.
///
/// ```
/// use wavemesh::distributed::ProcessGroup;
/// let group = ProcessGroup::from_environment()?;
/// println!("process {} of {}", group.rank(), group.world_size());
/// let own = group.share(10); // the numbers from 0 to 9 that are this process's
/// let mut sum = [own.len() as f64];
/// group.sum(&mut sum)?;
/// assert_eq!(sum, [10.0]);
/// # Ok::<(), wavemesh::Error>(())
/// ```
///
/// # When something goes wrong
///
/// If a process ends, the group ends at once; if a process hangs, the group ends after `WAVEMESH_GROUP_TIMEOUT` seconds (default 300). Then
/// the operation in which a process waits, or its next one, returns [`Error::Group`] with the rank. TCP connections to rank 0's machine
/// (`MASTER_ADDR`) notice this; they use the port after `MASTER_PORT`, or `WAVEMESH_PORT`.
pub struct ProcessGroup {
    place: Place,
    link: Option<Link>,
    timeout: Duration,
    traffic: Mutex<Traffic>,
}

/// The connection of a process to the others. When it ends, the watch says goodbye before the engine ends.
struct Link {
    watch: Option<Watch>,
    engine: Box<dyn Engine>,
    /// Locked during an operation: one operation at a time.
    turn: Mutex<()>,
}

impl ProcessGroup {
    /// A group of one.
    pub fn alone() -> Arc<Self> {
        let place = Place { rank: 0, local_rank: 0, world_size: 1 };
        Arc::new(Self { place, link: None, timeout: TIMEOUT, traffic: Mutex::default() })
    }

    /// The group in which this process was started; a group of one if no launcher started it as one of several.
    ///
    /// GPUs ([`local_device`](Self::local_device)) use NCCL and processors use MPI, unless `WAVEMESH_ENGINE` (`nccl`, `mpi`) says
    /// otherwise. If it is set, even the only process of a launcher uses the engine, which shows whether the engine works.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// let group = ProcessGroup::from_environment()?;
    /// assert!(group.rank() < group.world_size());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for an environment that contradicts itself; [`Error::Backend`] for an engine that this program was built without
    /// or that is not installed (the error says what to install); [`Error::Group`], which names a missing rank.
    pub fn from_environment() -> Result<Arc<Self>> {
        let wanted = std::env::var(ENGINE_VARIABLE).unwrap_or_default();
        let several = |launch: &Launch| launch.world_size > 1 || !wanted.trim().is_empty();
        let Some(launch) = Launch::detect()?.filter(several) else { return Ok(Self::alone()) };
        let timeout = timeout(std::env::var(TIMEOUT_VARIABLE).ok())?;
        match wanted.trim().to_ascii_lowercase().as_str() {
            "mpi" => Self::over_mpi(&launch, timeout),
            "nccl" => Self::over_nccl(&launch, timeout),
            "" if nth_device(launch.local_rank)?.is_cuda() => Self::over_nccl(&launch, timeout),
            "" => Self::over_mpi(&launch, timeout),
            _ => Err(Error::Unknown { kind: "engine of a group", name: wanted, known: "mpi, nccl".into() }),
        }
    }

    #[cfg(feature = "mpi")]
    fn over_mpi(launch: &Launch, timeout: Duration) -> Result<Arc<Self>> {
        let engine = super::mpi::Mpi::start(launch)?;
        let meeting = engine.meeting(launch)?;
        Self::linked(launch.place(), Box::new(engine), meeting, timeout)
    }

    #[cfg(not(feature = "mpi"))]
    fn over_mpi(launch: &Launch, _timeout: Duration) -> Result<Arc<Self>> {
        Err(not_built(
            launch,
            "mpi",
            "Open MPI (`apt-get install libopenmpi-dev openmpi-bin`) and `cargo build --release --features mpi`",
        ))
    }

    #[cfg(feature = "nccl")]
    fn over_nccl(launch: &Launch, timeout: Duration) -> Result<Arc<Self>> {
        let device = nth_device(launch.local_rank)?;
        let library = super::nccl::Library::load()?;
        let (place, meeting) = (launch.place(), meeting_at(launch)?);
        let watch = Watch::start(place.rank, place.world_size, meeting, timeout)?;
        // Every process uses the id that rank 0 makes.
        let id = if place.rank == 0 { super::nccl::new_id(&library)? } else { String::new() };
        let ids = watch.exchange(id, "the start of NCCL", timeout)?;
        let engine = watch
            .operation(|waiting| super::nccl::Nccl::start(library, &device, place, &ids[0], waiting))
            .inspect_err(|error| watch.fail(Some(place.rank), &error.to_string()))?;
        Ok(Arc::new(Self::of(place, Box::new(engine), watch, timeout)))
    }

    #[cfg(not(feature = "nccl"))]
    fn over_nccl(launch: &Launch, _timeout: Duration) -> Result<Arc<Self>> {
        Err(not_built(
            launch,
            "nccl",
            "`cargo build --release --features nccl`, and NCCL where it runs (`apt-get install libnccl2`)",
        ))
    }

    /// A group with your own engine. Rank 0 listens at `address` (a host and a port), and the others connect to it. The time-out is
    /// `timeout`, or that of the environment.
    ///
    /// ```
    /// use wavemesh::distributed::{Engine, Place, ProcessGroup, Waiting};
    /// use wavemesh::Result;
    ///
    /// /// An engine for one, which has nobody to wait for.
    /// struct Nobody;
    ///
    /// impl Engine for Nobody {
    ///     fn name(&self) -> &'static str {
    ///         "nobody"
    ///     }
    ///     fn sum(&self, _values: &mut [f64], _waiting: Waiting) -> Result<()> {
    ///         Ok(())
    ///     }
    ///     fn sum_f32(&self, _values: &mut [f32], _waiting: Waiting) -> Result<()> {
    ///         Ok(())
    ///     }
    ///     fn broadcast(&self, _bytes: &mut [u8], _waiting: Waiting) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let place = Place { rank: 0, local_rank: 0, world_size: 1 };
    /// let group = ProcessGroup::with_engine(place, Box::new(Nobody), ("127.0.0.1", 0), None)?;
    /// assert_eq!(group.engine(), Some("nobody"));
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for a rank that is not below the number of processes; [`Error::Group`], which names a missing rank.
    pub fn with_engine(
        place: Place,
        engine: Box<dyn Engine>,
        address: (&str, u16),
        timeout: Option<Duration>,
    ) -> Result<Arc<Self>> {
        if place.rank >= place.world_size {
            let expected = format!("below the {} processes", place.world_size);
            return Err(Error::argument("ProcessGroup::with_engine", "rank", place.rank, expected));
        }
        let timeout = match timeout {
            Some(timeout) => timeout,
            None => self::timeout(std::env::var(TIMEOUT_VARIABLE).ok())?,
        };
        let meeting = match place.rank {
            0 => Meeting::Listener(Meeting::listen(address.0, address.1, true)?),
            _ => Meeting::Address(address.0.to_string(), address.1),
        };
        Self::linked(place, engine, meeting, timeout)
    }

    fn linked(place: Place, engine: Box<dyn Engine>, meeting: Meeting, timeout: Duration) -> Result<Arc<Self>> {
        match Watch::start(place.rank, place.world_size, meeting, timeout) {
            Ok(watch) => Ok(Arc::new(Self::of(place, engine, watch, timeout))),
            Err(error) => {
                engine.abandon();
                Err(error)
            }
        }
    }

    fn of(place: Place, engine: Box<dyn Engine>, watch: Watch, timeout: Duration) -> Self {
        let link = Link { watch: Some(watch), engine, turn: Mutex::new(()) };
        Self { place, link: Some(link), timeout, traffic: Mutex::default() }
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.place.rank
    }

    /// Number of this process among those on the same machine, from 0.
    pub fn local_rank(&self) -> usize {
        self.place.local_rank
    }

    /// Number of processes.
    pub fn world_size(&self) -> usize {
        self.place.world_size
    }

    /// Whether this process writes files and shows messages: rank 0.
    pub fn is_first(&self) -> bool {
        self.place.rank == 0
    }

    /// Whether there is no other process.
    pub fn is_alone(&self) -> bool {
        self.link.is_none()
    }

    /// The engine's name; `None` for a group of one.
    pub fn engine(&self) -> Option<&'static str> {
        self.link.as_ref().map(|link| link.engine.name())
    }

    /// How long to wait for a missing rank before it is given up.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The device of this process: the GPU with its number on this machine, or the processor. `WAVEMESH_DEVICE` may choose another.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// let device = ProcessGroup::from_environment()?.local_device()?;
    /// assert!(device.is_cpu() || device.is_cuda());
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`best_device`].
    pub fn local_device(&self) -> Result<Device> {
        if self.is_alone() { best_device() } else { nth_device(self.place.local_rank) }
    }

    /// This process's part of `count` things. The parts are ranges without overlap that together contain everything. If the things cannot
    /// be divided evenly, the first processes get one more.
    pub fn share(&self, count: usize) -> Range<usize> {
        let Place { rank, world_size, .. } = self.place;
        let start = |rank: usize| rank * (count / world_size) + rank.min(count % world_size);
        start(rank)..start(rank + 1)
    }

    /// Replaces each value by the sum of the values of all processes, which must all call this with the same number of values.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// let group = ProcessGroup::from_environment()?;
    /// let mut processes = [1.0];
    /// group.sum(&mut processes)?;
    /// assert_eq!(processes, [group.world_size() as f64]);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Group`] if a process has failed.
    pub fn sum(&self, values: &mut [f64]) -> Result<()> {
        let bytes = size_of_val(values);
        self.operation(bytes, |engine, waiting| engine.sum(values, waiting)).unwrap_or(Ok(()))
    }

    /// Whether `here` is true in any process.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// let group = ProcessGroup::from_environment()?;
    /// assert!(group.any(group.is_first())?);
    /// assert!(!group.any(false)?);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`sum`](Self::sum).
    pub fn any(&self, here: bool) -> Result<bool> {
        let mut count = [f64::from(u8::from(here))];
        self.sum(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// The sums of f32 tensors over all processes, computed in buckets of 25 MB. A group of one returns the tensors unchanged.
    ///
    /// ```
    /// use wavemesh::distributed::ProcessGroup;
    /// use wavemesh::prelude::*;
    /// # fn main() -> wavemesh::Result<()> {
    /// let group = ProcessGroup::from_environment()?;
    /// let ones = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
    /// let sums = group.sum_tensors(vec![ones])?;
    /// assert_eq!(sums[0].to_vec2::<f32>()?, [[group.world_size() as f32; 3]; 2]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`sum`](Self::sum).
    pub fn sum_tensors(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
        if self.is_alone() {
            return Ok(tensors);
        }
        let bytes = tensors.iter().map(|tensor| 4 * tensor.elem_count()).sum();
        // Time in which a GPU still computes does not count as the group's.
        tensors.first().map_or(Ok(()), |tensor| tensor.device().synchronize())?;
        let sum = |vectors| {
            let summed = self.operation(bytes, |engine, waiting| engine.sum_vectors(vectors, waiting));
            summed.unwrap_or_else(|| Ok(Vec::new()))
        };
        sum_in_buckets(&tensors, sum)
    }

    /// The bytes of rank 0, in every process. Only rank 0 calls `own`; an error of it ends the group.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// let group = ProcessGroup::from_environment()?;
    /// let text = group.broadcast(|| Ok(b"read by one".to_vec()))?;
    /// assert_eq!(text, b"read by one");
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`sum`](Self::sum), and that of `own`.
    pub fn broadcast(&self, own: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let mut bytes = if self.is_first() { own().inspect_err(|error| self.fail(error))? } else { Vec::new() };
        if self.is_alone() {
            return Ok(bytes);
        }
        // An f64 represents exactly every number of bytes that a machine can hold.
        let mut count = [bytes.len() as f64];
        self.sum(&mut count)?;
        bytes.resize(count[0] as usize, 0);
        self.operation(bytes.len(), |engine, waiting| engine.broadcast(&mut bytes, waiting)).unwrap_or(Ok(()))?;
        Ok(bytes)
    }

    /// Waits until every process has arrived, but no longer than `limit`.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// let group = ProcessGroup::from_environment()?;
    /// group.barrier(std::time::Duration::from_secs(60))?;
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Group`], which names a rank that has not arrived.
    pub fn barrier(&self, limit: Duration) -> Result<()> {
        self.exchange(String::new(), "a barrier", limit).map(drop)
    }

    /// Runs `body` in one process of each machine, and after that (at most `limit` later) in the others: the first one fills a cache that
    /// the others read.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// let group = ProcessGroup::from_environment()?;
    /// let made = group.first_on_each_machine(std::time::Duration::from_secs(600), || Ok(7))?;
    /// assert_eq!(made, 7);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`barrier`](Self::barrier), and that of `body`, which ends the group.
    pub fn first_on_each_machine<T>(&self, limit: Duration, body: impl Fn() -> Result<T>) -> Result<T> {
        let body = || body().inspect_err(|error| self.fail(error));
        if self.place.local_rank == 0 {
            let done = body()?;
            self.barrier(limit)?;
            return Ok(done);
        }
        self.barrier(limit)?;
        body()
    }

    /// Compares what all processes must have in common with that of rank 0.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// let group = ProcessGroup::from_environment()?;
    /// group.agree("the settings", &serde_json::json!({ "classes": 3 }))?;
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Group`] in every process, which names a rank that differs and the place of the first difference.
    pub fn agree(&self, what: &str, facts: &Value) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        let texts = self.exchange(facts.to_string(), what, self.timeout)?;
        let parse = |text: &String| serde_json::from_str::<Value>(text).unwrap_or_default();
        let first = parse(&texts[0]);
        for (rank, text) in texts.iter().enumerate().skip(1) {
            if let Some((place, first, other)) = difference(&first, &parse(text)) {
                let place = if place.is_empty() { what.to_string() } else { format!("`{place}` of {what}") };
                let problem = format!("{place} is {other}, and rank 0 has {first}; start all with the same");
                let error = Error::Group { rank: Some(rank), problem };
                self.fail(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The texts of all processes, by rank.
    fn exchange(&self, text: String, what: &str, limit: Duration) -> Result<Vec<String>> {
        match self.watch() {
            Some(watch) => watch.exchange(text, what, limit),
            None => Ok(vec![text]),
        }
    }

    fn watch(&self) -> Option<&Watch> {
        self.link.as_ref().and_then(|link| link.watch.as_ref())
    }

    /// Ends the group because of an error in this process: the others get [`Error::Group`] with this rank and the error. A program calls
    /// this before it returns with an error of its own; a [`Trainer`](crate::train::Trainer) does so by itself.
    pub fn fail(&self, error: &Error) {
        let Some(watch) = self.watch() else { return };
        match error {
            Error::Group { rank, problem } => watch.fail(*rank, problem),
            own => watch.fail(Some(self.place.rank), &format!("it stopped with an error: {own}")),
        }
    }

    /// Returns an error if another process has failed. A long loop without sums should call this now and then.
    ///
    /// ```
    /// # use wavemesh::distributed::ProcessGroup;
    /// ProcessGroup::from_environment()?.check()?;
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Group`] if a process has failed.
    pub fn check(&self) -> Result<()> {
        self.watch().map_or(Ok(()), Watch::check)
    }

    /// How much has been sent so far.
    pub fn traffic(&self) -> Traffic {
        *lock(&self.traffic)
    }

    /// Runs an operation of the engine; `None` in a group of one.
    fn operation<T>(
        &self,
        bytes: usize,
        body: impl FnOnce(&dyn Engine, &dyn Fn() -> Result<()>) -> Result<T>,
    ) -> Option<Result<T>> {
        let link = self.link.as_ref()?;
        let watch = link.watch.as_ref()?;
        let _turn = lock(&link.turn);
        let started = Instant::now();
        // An error of the engine itself ends the group, with this rank.
        let done = watch.operation(|waiting| body(&*link.engine, waiting)).inspect_err(|error| self.fail(error));
        let mut traffic = lock(&self.traffic);
        traffic.operations += 1;
        traffic.bytes += bytes as u64;
        traffic.seconds += started.elapsed().as_secs_f64();
        Some(done)
    }
}

impl AllReduce for ProcessGroup {
    fn all_reduce(&self, values: &mut [f64]) -> Result<()> {
        self.sum(values)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let failed = self.watch.as_ref().is_some_and(|watch| watch.check().is_err()) || std::thread::panicking();
        self.watch = None;
        if failed {
            self.engine.abandon();
        }
    }
}

/// Where the processes meet, if the launcher gives an address.
#[cfg(feature = "nccl")]
fn meeting_at(launch: &Launch) -> Result<Meeting> {
    if launch.world_size == 1 {
        return Ok(Meeting::Listener(Meeting::listen("127.0.0.1", 0, true)?));
    }
    let Some((host, port)) = launch.address.clone() else {
        let expected = "the host of rank 0, and WAVEMESH_PORT or MASTER_PORT, a free port there: `mpirun -x MASTER_ADDR=… -x MASTER_PORT=…`";
        return Err(Error::argument("ProcessGroup::from_environment", "MASTER_ADDR", "not set", expected));
    };
    Ok(match launch.rank {
        0 => Meeting::Listener(Meeting::listen(&host, port, launch.one_machine)?),
        _ => Meeting::Address(host, port),
    })
}

#[cfg(any(not(feature = "mpi"), not(feature = "nccl")))]
fn not_built(launch: &Launch, engine: &'static str, needs: &str) -> Error {
    let Launch { rank, world_size, launcher, .. } = launch;
    let by = match launcher {
        Launcher::Torchrun => "torchrun",
        Launcher::Mpirun => "mpirun",
        Launcher::Srun => "srun",
    };
    let needs = format!(
        "{by} started this process as rank {rank} of {world_size}, and this program was built without the feature `{engine}`; it needs {needs}"
    );
    Error::Backend { backend: engine, needs }
}

fn timeout(text: Option<String>) -> Result<Duration> {
    let Some(text) = text else { return Ok(TIMEOUT) };
    let seconds = text.trim().parse::<f64>().ok().filter(|seconds| *seconds >= 0.1);
    let found = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    found.ok_or_else(|| {
        Error::argument("ProcessGroup::from_environment", TIMEOUT_VARIABLE, format!("`{text}`"), "seconds, 0.1 or more")
    })
}
