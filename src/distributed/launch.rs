//! [`Launch`]: what the environment of a launcher tells about this process.
//!
//! torchrun sets `RANK`, `LOCAL_RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`; Open MPI's `mpirun` sets `OMPI_COMM_WORLD_*`; MPICH's
//! sets `PMI_*`; SLURM's `srun` sets `SLURM_PROCID`, `SLURM_LOCALID` and the variables of its step. If several are set, the first in this
//! order counts: torchrun may have been started by `srun`, and `mpirun` inside an allocation.

use crate::{Error, Result};

const OP: &str = "ProcessGroup::from_environment";

/// The environment variable that holds the port of the group's watch.
pub(super) const PORT_VARIABLE: &str = "WAVEMESH_PORT";

/// The launcher that started the processes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// torchrun, or anything that sets the same variables, such as a Kubernetes job.
    Torchrun,
    /// `mpirun` of Open MPI or MPICH.
    Mpirun,
    /// `srun` of SLURM.
    Srun,
}

/// The place of a process in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub rank: usize,
    /// Its number among those on the same machine, from 0.
    pub local_rank: usize,
    /// Number of processes.
    pub world_size: usize,
}

/// The launcher that started this process as one of several, and the process's place among them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Launch {
    /// The launcher.
    pub launcher: Launcher,
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of this process among those on the same machine, from 0.
    pub local_rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Where rank 0 can be reached: host and port. `None` if MPI has to tell it.
    pub address: Option<(String, u16)>,
    /// Whether all processes are on one machine, according to the launcher.
    pub one_machine: bool,
}

impl Launch {
    /// The launch according to this process's environment; `None` if no launcher started it as one of several.
    ///
    /// ```
    /// use wavemesh::distributed::Launch;
    /// let processes = Launch::detect()?.map_or(1, |launch| launch.world_size);
    /// assert!(processes > 0);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for variables that are missing, are not numbers, or contradict each other.
    pub fn detect() -> Result<Option<Self>> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The same for given variables.
    ///
    /// ```
    /// use wavemesh::distributed::{Launch, Launcher};
    /// let variables = [("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node0"), ("MASTER_PORT", "29500")];
    /// let of = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
    /// let launch = Launch::from_variables(of)?.unwrap();
    /// assert_eq!((launch.launcher, launch.rank, launch.local_rank, launch.world_size), (Launcher::Torchrun, 3, 1, 4));
    /// assert_eq!(launch.address, Some(("node0".into(), 29501))); // torchrun itself listens at 29500
    /// assert_eq!(Launch::from_variables(|_| None)?, None);
    /// # Ok::<(), wavemesh::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`detect`](Self::detect).
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let variables = Variables(&variable);
        let Some((launcher, [rank, world_size, local_rank])) = variables.launcher() else { return Ok(None) };
        let of_all = variables.number(world_size)?;
        let number = variables.number(rank)?;
        if of_all == 0 || number >= of_all {
            let expected = format!("a rank below the number of processes, {world_size}");
            return Err(Error::argument(
                OP,
                "the environment",
                format!("{rank}={number}, {world_size}={of_all}"),
                expected,
            ));
        }
        let local = if variable(local_rank).is_some() { variables.number(local_rank)? } else { 0 };
        let address = if of_all == 1 { None } else { variables.address(launcher)? };
        let here = match launcher {
            Launcher::Mpirun => variables.optional("OMPI_COMM_WORLD_LOCAL_SIZE")?,
            Launcher::Torchrun => variables.optional("LOCAL_WORLD_SIZE")?,
            Launcher::Srun => {
                variables.optional("SLURM_STEP_NUM_NODES")?.map(|nodes| if nodes == 1 { of_all } else { 0 })
            }
        };
        let one_machine = here == Some(of_all);
        Ok(Some(Self { launcher, rank: number, local_rank: local, world_size: of_all, address, one_machine }))
    }
}

#[cfg(any(feature = "mpi", feature = "nccl"))]
impl Launch {
    pub(super) fn place(&self) -> Place {
        Place { rank: self.rank, local_rank: self.local_rank, world_size: self.world_size }
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// The launcher of this process, and its variables for the rank, the number of processes and the rank on this machine.
    fn launcher(&self) -> Option<(Launcher, [&'static str; 3])> {
        let known = [
            (Launcher::Torchrun, ["RANK", "WORLD_SIZE", "LOCAL_RANK"]),
            (Launcher::Mpirun, ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"]),
            (Launcher::Mpirun, ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"]),
            // The variable of a step, which `srun` starts: a script of `sbatch` has SLURM_NTASKS but is alone.
            (Launcher::Srun, ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"]),
        ];
        // torchrun's two names are so common that one without the other means nothing.
        known.into_iter().find(|(_, [rank, size, _])| self.0(rank).is_some() && self.0(size).is_some())
    }

    fn number(&self, name: &'static str) -> Result<usize> {
        let text = self.0(name).unwrap_or_default();
        text.trim().parse().map_err(|_| Error::argument(OP, name, format!("`{text}`"), "a number of 0 or more"))
    }

    fn optional(&self, name: &'static str) -> Result<Option<usize>> {
        self.0(name).is_some().then(|| self.number(name)).transpose()
    }

    fn port(&self, name: &'static str) -> Result<Option<u16>> {
        let Some(number) = self.optional(name)? else { return Ok(None) };
        let fits = u16::try_from(number).ok().filter(|port| (1..u16::MAX).contains(port));
        fits.map(Some).ok_or_else(|| Error::argument(OP, name, number, "a port, 1 to 65534"))
    }

    fn address(&self, launcher: Launcher) -> Result<Option<(String, u16)>> {
        let own = self.port(PORT_VARIABLE)?;
        // torchrun's own store listens at MASTER_PORT.
        let port = own.or(self.port("MASTER_PORT")?.map(|port| port + 1));
        let host = self.0("MASTER_ADDR");
        match (launcher, host, port) {
            (_, Some(host), Some(port)) => Ok(Some((host, port))),
            (Launcher::Mpirun, ..) => Ok(None),
            (Launcher::Srun, host, port) => {
                let step = self.optional("SLURM_STEP_ID")?.unwrap_or(0);
                let job = self.optional("SLURM_JOB_ID")?.unwrap_or(0);
                // Different jobs on one machine need different ports; SLURM has no better convention for this.
                let port = port.unwrap_or(20_000 + ((job * 31 + step) % 10_000) as u16);
                let listed = self.0("SLURM_STEP_NODELIST").or(self.0("SLURM_JOB_NODELIST"));
                match host.or(listed.as_deref().and_then(first_host)) {
                    Some(host) => Ok(Some((host, port))),
                    None => Err(missing("MASTER_ADDR", "the host of rank 0")),
                }
            }
            (Launcher::Torchrun, None, _) => Err(missing("MASTER_ADDR", "the host of rank 0")),
            (Launcher::Torchrun, Some(_), None) => {
                Err(missing("MASTER_PORT", "a free port of the host of rank 0, less one"))
            }
        }
    }
}

fn missing(name: &'static str, expected: &str) -> Error {
    Error::argument(OP, name, "not set", expected)
}

/// The first host of a list in SLURM's form: `a[03-07,12],b` begins with `a03`.
fn first_host(list: &str) -> Option<String> {
    let list = list.trim();
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let number = match rest.strip_prefix('[') {
        Some(numbers) => &numbers[..numbers.find(['-', ',', ']'])?],
        None => "",
    };
    (!name.is_empty()).then(|| format!("{name}{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Option<Launch>> {
        Launch::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn open_mpi_is_recognised_and_needs_no_address() {
        let mut variables = vec![
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("SLURM_PROCID", "0"),
            ("SLURM_STEP_NUM_TASKS", "1"),
        ];
        let found = launch(&variables).unwrap().unwrap();
        assert_eq!((found.launcher, found.rank, found.local_rank, found.world_size), (Launcher::Mpirun, 1, 1, 2));
        assert!(found.address.is_none() && found.one_machine);
        variables.extend([("MASTER_ADDR", "10.0.0.1"), ("WAVEMESH_PORT", "4000")]);
        assert_eq!(launch(&variables).unwrap().unwrap().address, Some(("10.0.0.1".into(), 4000)));
    }

    #[test]
    fn a_step_of_slurm_is_recognised_and_a_batch_script_is_alone() {
        let script = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "7")];
        assert_eq!(launch(&script).unwrap(), None);
        let step = [
            ("SLURM_PROCID", "2"),
            ("SLURM_STEP_NUM_TASKS", "4"),
            ("SLURM_LOCALID", "0"),
            ("SLURM_STEP_NODELIST", "gpu[03-04,09]"),
            ("SLURM_JOB_ID", "7"),
            ("SLURM_STEP_ID", "1"),
            ("SLURM_STEP_NUM_NODES", "2"),
        ];
        let found = launch(&step).unwrap().unwrap();
        assert_eq!((found.launcher, found.rank, found.world_size), (Launcher::Srun, 2, 4));
        assert_eq!((found.address, found.one_machine), (Some(("gpu03".into(), 20_218)), false));
        for (list, first) in [("a,b", "a"), ("n1", "n1"), ("x[7]", "x7"), ("x[10,12-14],y", "x10"), ("", "")] {
            assert_eq!(first_host(list).unwrap_or_default(), first);
        }
    }

    #[test]
    fn what_is_wrong_in_an_environment_is_named() {
        let error = |variables: &[(&str, &str)]| launch(variables).unwrap_err().to_string();
        assert!(error(&[("RANK", "x"), ("WORLD_SIZE", "2")]).contains("RANK is `x`"));
        assert!(error(&[("RANK", "2"), ("WORLD_SIZE", "2")]).contains("RANK=2, WORLD_SIZE=2"));
        assert!(error(&[("RANK", "0"), ("WORLD_SIZE", "2")]).contains("MASTER_ADDR is not set"));
        assert!(error(&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a")]).contains("MASTER_PORT is not set"));
        let far = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "65536")];
        assert!(error(&far).contains("1 to 65534"));
        assert_eq!(launch(&[("RANK", "0")]).unwrap(), None, "a variable that means something else");
        let one = launch(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap().unwrap();
        assert_eq!((one.world_size, one.address), (1, None), "one process needs nobody's address");
    }
}
