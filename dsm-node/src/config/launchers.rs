//! How the usual launchers tell a process its place: Slurm, Open MPI, PMI (MPICH and Intel MPI), torchrun, Kubernetes.
//! Each gives a rank and a count; where rank 0 listens is derived where the launcher says enough, so that all ranks
//! derive the same, and otherwise the error names the variable to set. Our own variables are not this file's business.

use super::environment::Environment;
use super::values;
use crate::error::{Error, Result};

/// Ports that are derived from a job's name lie here: above the registered services that clusters run, below 32768,
/// where the kernel starts to hand ports out by itself.
const PORTS_FIRST: u64 = 20_000;

/// How many ports are derived from.
const PORTS_COUNT: u64 = 10_000;

/// The port of rank 0 in a Kubernetes `StatefulSet`, where every pod has an address of its own.
const KUBERNETES_PORT: u16 = 7300;

/// What a launcher says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The launcher's name, for messages.
    pub launcher: &'static str,
    /// This process's rank.
    pub rank: u32,
    /// How many processes it started.
    pub nodes: u32,
    /// Where they meet.
    pub meeting: Meeting,
}

/// Where the ranks of one launcher meet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Meeting {
    /// At this address.
    At(String),
    /// All on one machine; the number is the job's, and the same at all ranks.
    OneMachine(u64),
    /// The launcher does not say enough.
    Unknown,
}

/// The place that a launcher gave this process, if one did. `nodes` is what `DSM_NODES` or the program says.
pub(super) fn find(env: &Environment, nodes: Option<u32>) -> Result<Option<Place>> {
    let open_mpi = open_mpi(env)?;
    let pmi = pmi(env)?;
    // `mpirun` inside a Slurm allocation starts one daemon per machine through Slurm: Slurm's numbers then count the
    // daemons, and those of the launcher inside it count the ranks.
    let inner = open_mpi.or(pmi);
    let slurm = slurm(env)?.filter(|slurm| {
        inner.as_ref().is_none_or(|inner| (inner.rank, inner.nodes) == (slurm.rank, slurm.nodes))
    });
    if let Some(place) = slurm.or(inner) {
        return Ok(Some(place));
    }
    match torchrun(env)? {
        Some(place) => Ok(Some(place)),
        None => kubernetes(env, nodes),
    }
}

/// A port that all ranks of the job numbered `job` derive alike.
pub(super) fn port_of(job: u64) -> u64 {
    PORTS_FIRST + job % PORTS_COUNT
}

impl Place {
    /// The error of a launcher that does not say where the ranks meet.
    pub(super) fn nowhere_to_meet(&self) -> Error {
        Error::Config(format!(
            "{} does not say where rank 0 runs; set DSM_RENDEZVOUS=host:port to a free port on rank 0's machine, \
             the same on all {} nodes",
            self.launcher, self.nodes
        ))
    }
}

fn slurm(env: &Environment) -> Result<Option<Place>> {
    // A batch script has SLURM_PROCID=0 as well, but is no task of a step: what it runs without srun is alone.
    let count = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"];
    let (Some(rank), Some(hosts)) = (env.get("SLURM_PROCID"), env.get("SLURM_STEP_NODELIST")) else {
        return Ok(None);
    };
    let Some((count_name, count)) = count.iter().find_map(|name| env.get(name).map(|value| (*name, value)))
    else {
        return Ok(None);
    };
    let (rank, nodes) = placed("SLURM_PROCID", rank, count_name, count)?;
    let job = hash(&[env.get("SLURM_JOB_ID"), env.get("SLURM_STEP_ID")]);
    let first = first_host(hosts);
    let meeting = if first == hosts || env.get("SLURM_STEP_NUM_NODES") == Some("1") {
        Meeting::OneMachine(job)
    } else {
        Meeting::At(format!("{first}:{}", port_of(job)))
    };
    Ok(Some(Place { launcher: "Slurm", rank, nodes, meeting }))
}

fn open_mpi(env: &Environment) -> Result<Option<Place>> {
    let names = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"];
    mpi(env, "Open MPI", names, ["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"])
}

fn pmi(env: &Environment) -> Result<Option<Place>> {
    let names = ["PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"];
    mpi(env, "PMI", names, ["PMI_JOBID", "PMI_KVSNAME"])
}

/// An MPI launcher: `names` are its variables for rank, size and local size, `jobs` those that may name the job.
fn mpi(
    env: &Environment,
    launcher: &'static str,
    names: [&'static str; 3],
    jobs: [&str; 2],
) -> Result<Option<Place>> {
    let [rank_name, size_name, local_name] = names;
    let (Some(rank), Some(size)) = (env.get(rank_name), env.get(size_name)) else { return Ok(None) };
    let (rank, nodes) = placed(rank_name, rank, size_name, size)?;
    let meeting = if env.get(local_name) == Some(size) {
        let named = jobs.iter().find_map(|job| env.get(job));
        Meeting::OneMachine(named.map_or(u64::from(env.parent), |job| hash(&[Some(job)])))
    } else {
        Meeting::Unknown
    };
    Ok(Some(Place { launcher, rank, nodes, meeting }))
}

fn torchrun(env: &Environment) -> Result<Option<Place>> {
    let (Some(rank), Some(size), Some(host), Some(port)) =
        (env.get("RANK"), env.get("WORLD_SIZE"), env.get("MASTER_ADDR"), env.get("MASTER_PORT"))
    else {
        return Ok(None);
    };
    let (rank, nodes) = placed("RANK", rank, "WORLD_SIZE", size)?;
    let port: u16 = values::number("MASTER_PORT", port, 1..=u16::MAX - 1)?;
    // The agent of torchrun serves its own store at the master port; a plain script leaves the port free.
    let port = if env.get("TORCHELASTIC_RUN_ID").is_some() { port + 1 } else { port };
    Ok(Some(Place { launcher: "torchrun", rank, nodes, meeting: Meeting::At(format!("{host}:{port}")) }))
}

fn kubernetes(env: &Environment, nodes: Option<u32>) -> Result<Option<Place>> {
    let Some(nodes) = nodes.filter(|_| env.get("KUBERNETES_SERVICE_HOST").is_some()) else { return Ok(None) };
    let Some((set, ordinal)) = env.hostname.rsplit_once('-') else { return Ok(None) };
    let Ok(rank) = ordinal.parse::<u32>() else { return Ok(None) };
    if rank >= nodes {
        return Err(Error::Config(format!(
            "pod {} has ordinal {rank}, but DSM_NODES is {nodes}; set DSM_NODES to the StatefulSet's replicas",
            env.hostname
        )));
    }
    // Pods of a StatefulSet have names of their own below its governing service, often called like the set.
    let service = env.get("DSM_SERVICE").unwrap_or(set);
    let meeting = Meeting::At(format!("{set}-0.{service}:{KUBERNETES_PORT}"));
    Ok(Some(Place { launcher: "Kubernetes", rank, nodes, meeting }))
}

/// A rank and a count that fit each other and the cluster's limits.
pub(super) fn placed(rank_name: &str, rank: &str, count_name: &str, count: &str) -> Result<(u32, u32)> {
    let nodes = values::number(count_name, count, 1..=super::NODES_MAX)?;
    let rank = values::number(rank_name, rank, 0..=nodes - 1)?;
    Ok((rank, nodes))
}

/// The first host of a Slurm list such as `node[01-04,07]-ib,login`.
fn first_host(list: &str) -> String {
    let mut host = String::new();
    let mut rest = list.chars();
    while let Some(c) = rest.next() {
        match c {
            ',' => break,
            '[' => {
                let range: String = rest.by_ref().take_while(|&c| c != ']').collect();
                host.extend(range.chars().take_while(|&c| c != ',' && c != '-'));
            }
            _ => host.push(c),
        }
    }
    host
}

/// The same number for the same names at every rank (FNV-1a, by Fowler, Noll and Vo).
fn hash(names: &[Option<&str>]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;
    let bytes = names.iter().flat_map(|name| name.unwrap_or("").bytes().chain([b'/']));
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Option<Place> {
        find(&Environment::of(variables.iter().copied()), None).expect("the environment makes sense")
    }

    #[test]
    fn the_first_host_of_a_slurm_list() {
        for (list, host) in [
            ("node1", "node1"),
            ("node[01-04,07]", "node01"),
            ("gpu[003,005]-ib,login", "gpu003-ib"),
            ("r[1-2]n[3-4]", "r1n3"),
            ("a,b", "a"),
        ] {
            assert_eq!(first_host(list), host);
        }
    }

    #[test]
    fn slurm_steps_meet_at_their_first_host() {
        let step = [
            ("SLURM_PROCID", "3"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_STEP_NODELIST", "n[1-4]"),
            ("SLURM_JOB_ID", "77"),
        ];
        let found = place(&step).expect("a step");
        assert_eq!((found.rank, found.nodes), (3, 8));
        let Meeting::At(address) = &found.meeting else { panic!("{:?}", found.meeting) };
        let port: u64 = address.strip_prefix("n1:").expect("first host").parse().expect("a port");
        assert!((PORTS_FIRST..PORTS_FIRST + PORTS_COUNT).contains(&port));
        assert_eq!(place(&step), Some(found), "all ranks derive the same");
    }

    #[test]
    fn a_slurm_batch_script_is_alone() {
        assert_eq!(place(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]), None);
    }

    #[test]
    fn mpirun_inside_slurm_counts_itself() {
        let found = place(&[
            ("SLURM_PROCID", "0"),
            ("SLURM_STEP_NUM_TASKS", "1"),
            ("SLURM_STEP_NODELIST", "n1"),
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("PMIX_NAMESPACE", "prterun-1"),
        ]);
        let found = found.expect("Open MPI");
        assert_eq!((found.launcher, found.rank, found.nodes), ("Open MPI", 1, 2));
        assert!(matches!(found.meeting, Meeting::OneMachine(_)));
    }

    #[test]
    fn mpi_over_machines_asks_for_the_rendezvous() {
        let found = place(&[("PMI_RANK", "0"), ("PMI_SIZE", "4"), ("MPI_LOCALNRANKS", "2")]).expect("PMI");
        assert_eq!(found.meeting, Meeting::Unknown);
        assert!(found.nowhere_to_meet().to_string().contains("DSM_RENDEZVOUS"));
    }

    #[test]
    fn torchrun_agents_keep_their_port() {
        let mut env =
            vec![("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "head"), ("MASTER_PORT", "29500")];
        assert_eq!(place(&env).expect("torchrun").meeting, Meeting::At(String::from("head:29500")));
        env.push(("TORCHELASTIC_RUN_ID", "x"));
        assert_eq!(place(&env).expect("torchrun").meeting, Meeting::At(String::from("head:29501")));
        assert_eq!(place(&[("RANK", "1"), ("WORLD_SIZE", "2")]), None, "RANK alone is anybody's");
    }

    #[test]
    fn kubernetes_counts_by_the_host_name() {
        let mut env = Environment::of([("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
        env.hostname = String::from("solver-2");
        assert_eq!(find(&env, None).expect("fine"), None, "a pod that was told no count is alone");
        let found = find(&env, Some(3)).expect("fine").expect("a place");
        assert_eq!((found.rank, found.nodes), (2, 3));
        assert_eq!(found.meeting, Meeting::At(String::from("solver-0.solver:7300")));
        assert!(find(&env, Some(2)).expect_err("ordinal too large").to_string().contains("DSM_NODES"));
    }

    #[test]
    fn a_nonsense_rank_is_named() {
        let env = Environment::of([("PMI_RANK", "4"), ("PMI_SIZE", "4")]);
        let message = find(&env, None).expect_err("rank beyond size").to_string();
        assert_eq!(message, "configuration: PMI_RANK is \"4\"; it must be a number from 0 to 3");
    }
}
