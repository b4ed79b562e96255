//! The environment as a value: what a process was told about its place, read once, so that everything above works on
//! a map and tests need no process of their own.

use std::collections::BTreeMap;
use std::os::unix::process::parent_id;

/// Variables with these beginnings, or names, matter to a node; the others are not even copied.
const PREFIXES: [&str; 9] = [
    "DSM_",
    "SLURM_",
    "OMPI_",
    "PMIX_",
    "PMI_",
    "MPI_LOCALNRANKS",
    "MASTER_",
    "TORCHELASTIC_",
    "KUBERNETES_SERVICE_HOST",
];

/// Variables of torchrun without a prefix of its own.
const NAMES: [&str; 2] = ["RANK", "WORLD_SIZE"];

/// Where the kernel tells the machine's name, or the container's.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// What the process was told.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
    /// The machine's name: in a Kubernetes `StatefulSet` it ends with the pod's ordinal.
    pub(super) hostname: String,
    /// The process that started this one. The ranks that one local launcher starts have it in common.
    pub(super) parent: u32,
}

impl Environment {
    /// What this process was told.
    pub(crate) fn of_process() -> Environment {
        let matters =
            |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name);
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .filter(|(name, _)| matters(name))
            .collect();
        // Only Kubernetes needs the name, and a machine without a readable one is not in Kubernetes.
        let hostname = std::fs::read_to_string(HOSTNAME).unwrap_or_default();
        Environment { variables, hostname: hostname.trim().to_owned(), parent: parent_id() }
    }

    /// The value of `name`; an empty one counts as unset, as launch scripts write `NAME=`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// An environment of just these variables.
    #[cfg(test)]
    pub(crate) fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Environment {
        let variables =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Environment { variables, hostname: String::from("host"), parent: 1 }
    }
}
