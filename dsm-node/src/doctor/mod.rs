//! Whether nodes can run on this machine: what a node needs, what was found, and what to do about each thing missing.
//!
//! `dsm doctor` prints [`examine`]; a join that fails for such a reason says the same words. What is measured and what
//! is made of it are apart, so that every verdict can be tested on machines that lack nothing.

mod facts;

use crate::error::Error;
use crate::uffd::{DEVICE, FEATURES, FaultScope, Refusal, features_missing};
use facts::Facts;
use nix::errno::Errno;
use std::fmt;

/// One thing that a node needs, or would be better off with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// The verdict.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where there is nothing to do.
    pub fix: String,
}

/// A check's verdict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    /// As it should be.
    Ok,
    /// Nodes run, but not as well as they could.
    Warning,
    /// Nodes cannot run.
    Failed,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "FAILED",
        })
    }
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, status: Status::Ok, found: found.into(), fix: String::new() }
    }

    fn warning(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { name, status: Status::Warning, found: found.into(), fix: fix.into() }
    }

    fn failed(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check { name, status: Status::Failed, found: found.into(), fix: fix.into() }
    }
}

/// Looks at everything that a node needs of this machine, for a region of the default base and size. Changes nothing.
///
/// Nodes can run here if no check [failed](Status::Failed).
#[must_use]
pub fn examine() -> Vec<Check> {
    judge(&Facts::probe())
}

/// The first kernel that has everything.
const KERNEL_NEEDED: (u32, u32) = (6, 6);

/// With fewer, a node's engine and its application take turns.
const CORES_WANTED: usize = 2;

/// `vm.overcommit_memory` by which the kernel promises no more memory than it has.
const OVERCOMMIT_NEVER: u64 = 2;

const FIX_KERNEL: &str = "run Linux 6.6 or newer";
const FIX_NOT_BUILT: &str = "run a kernel that was built with CONFIG_USERFAULTFD=y";
const FIX_NOT_PERMITTED: &str =
    "allow userfaultfd(2) in the container's seccomp profile, or give its user access to /dev/userfaultfd";
const FIX_USER_ONLY: &str = "system calls on pages that are not here fail with EFAULT: prefault buffers before they \
     are given to read(2) or write(2), or permit all faults: `chmod a+rw /dev/userfaultfd`, \
     `sysctl vm.unprivileged_userfaultfd=1`, or CAP_SYS_PTRACE";

/// What a node that cannot have a userfaultfd tells its user.
pub(crate) fn explain(refusal: &Refusal) -> Error {
    let (what, fix) = match refusal {
        Refusal::NotBuilt => ("this kernel has no userfaultfd".to_owned(), FIX_NOT_BUILT),
        Refusal::NotPermitted => (
            "this process may not use userfaultfd, not even for its own faults".to_owned(),
            FIX_NOT_PERMITTED,
        ),
        Refusal::Lacks(names) => {
            (format!("this kernel's userfaultfd lacks {}", names.join(", ")), FIX_KERNEL)
        }
        Refusal::Other { what, errno: Errno::EMFILE | Errno::ENFILE } => {
            (format!("{what}: no file descriptor is left"), "raise the limit (`ulimit -n`)")
        }
        Refusal::Other { what, errno } => (format!("{what} failed: {}", errno.desc()), FIX_KERNEL),
    };
    Error::Unsupported { what, fix: fix.to_owned() }
}

/// Tells the user of a node that joins what its userfaultfd cannot do. Nothing is mapped yet, so that the line may be
/// written here and now.
pub(crate) fn note(scope: FaultScope) {
    match scope {
        FaultScope::KernelAndUser => {}
        FaultScope::UserOnly if tracing::dispatcher::has_been_set() => tracing::warn!("{FIX_USER_ONLY}"),
        FaultScope::UserOnly => eprintln!("dsm: {FIX_USER_ONLY}"),
    }
}

/// What is to be made of the facts.
fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kernel(facts), kernel_page(facts), permission(facts)];
    checks.extend(FEATURES.iter().map(|feature| match facts.features {
        Some(offered) if offered & feature.bit != 0 => Check::ok(feature.name, "offered by userfaultfd"),
        Some(_) => {
            let found =
                format!("not offered by this kernel's userfaultfd; Linux has it since {}", feature.since);
            Check::failed(feature.name, found, FIX_KERNEL)
        }
        None => Check::failed(feature.name, "unknown without a userfaultfd", fix_permission(facts)),
    }));
    checks.extend([
        device(facts),
        sysctl(facts),
        memory_file(facts),
        address_limit(facts),
        overcommit(facts),
    ]);
    checks.extend([base(facts), pagemap(facts), cores(facts)]);
    debug_assert!(
        facts.features.is_none_or(|offered| features_missing(offered).is_empty())
            || checks.iter().any(|check| check.status == Status::Failed),
        "a node that cannot start is not declared fit"
    );
    checks
}

fn kernel(facts: &Facts) -> Check {
    let mut numbers = facts.release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse::<u32>().ok());
    let found = format!("Linux {}", facts.release);
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) >= KERNEL_NEEDED => Check::ok("kernel", found),
        (Some(_), Some(_)) => Check::failed("kernel", found, FIX_KERNEL),
        // The features decide in the end; a release that cannot be read need not be an old one.
        (_, _) => Check::warning("kernel", format!("{found}, a version that cannot be read"), FIX_KERNEL),
    }
}

fn kernel_page(facts: &Facts) -> Check {
    let found = format!("{} bytes", facts.kernel_page);
    if facts.kernel_page == crate::region::KERNEL_PAGE {
        Check::ok("kernel page size", found)
    } else {
        Check::failed("kernel page size", found, "run a kernel with 4 KiB pages")
    }
}

/// Whether there is a way to a userfaultfd, and to one for all faults.
fn permission(facts: &Facts) -> Check {
    const NAME: &str = "userfaultfd";
    match (facts.device, facts.call, facts.call_user_only) {
        (Ok(()), _, _) => Check::ok(NAME, format!("for all faults, through {DEVICE}")),
        (Err(_), Ok(()), _) => Check::ok(NAME, "for all faults, by the system call"),
        (Err(_), Err(_), Ok(())) => Check::warning(NAME, "for faults of user mode only", FIX_USER_ONLY),
        (Err(_), Err(_), Err(errno)) => {
            Check::failed(NAME, format!("refused: {}", errno.desc()), fix_permission(facts))
        }
    }
}

fn fix_permission(facts: &Facts) -> &'static str {
    match facts.call_user_only {
        Err(Errno::ENOSYS) => FIX_NOT_BUILT,
        Err(Errno::EINVAL) => FIX_KERNEL,
        Ok(()) | Err(_) => FIX_NOT_PERMITTED,
    }
}

/// For information: the ways that are closed matter only where [`permission`] says so.
fn device(facts: &Facts) -> Check {
    Check::ok(
        "/dev/userfaultfd",
        match facts.device {
            Ok(()) => "may be used".to_owned(),
            Err(errno) => format!("may not be used: {}", errno.desc()),
        },
    )
}

fn sysctl(facts: &Facts) -> Check {
    Check::ok(
        "vm.unprivileged_userfaultfd",
        match facts.unprivileged {
            Some(value) => value.to_string(),
            None => "cannot be read".to_owned(),
        },
    )
}

fn memory_file(facts: &Facts) -> Check {
    match facts.memory_file {
        Ok(()) => Check::ok("memfd_create", "works"),
        Err(errno) => Check::failed(
            "memfd_create",
            format!("refused: {}", errno.desc()),
            "allow memfd_create(2) in the container's seccomp profile",
        ),
    }
}

fn address_limit(facts: &Facts) -> Check {
    const NAME: &str = "address space limit";
    // The region is mapped twice.
    let needed = facts.region_size.saturating_mul(2);
    match facts.address_limit {
        None => Check::ok(NAME, "none"),
        Some(limit) if limit > needed => Check::ok(NAME, format!("{limit} bytes")),
        Some(limit) => Check::failed(
            NAME,
            format!("{limit} bytes; the default region takes {needed} (sparse, so no memory)"),
            "raise it (`ulimit -v unlimited`), or join with a smaller region_size",
        ),
    }
}

fn overcommit(facts: &Facts) -> Check {
    const NAME: &str = "vm.overcommit_memory";
    match facts.overcommit {
        Some(OVERCOMMIT_NEVER) => Check::warning(
            NAME,
            "2: memory is promised only up to CommitLimit",
            "a node whose pages reach the limit ends; raise vm.overcommit_ratio, or `sysctl vm.overcommit_memory=0`",
        ),
        Some(value) => Check::ok(NAME, value.to_string()),
        None => Check::ok(NAME, "cannot be read"),
    }
}

fn base(facts: &Facts) -> Check {
    match &facts.base {
        Ok(()) => Check::ok("default region base", "its addresses are free"),
        Err(cause) => Check::failed(
            "default region base",
            cause.clone(),
            "join with another region_base, the same on all nodes",
        ),
    }
}

fn pagemap(facts: &Facts) -> Check {
    if facts.pagemap_scan {
        Check::ok("PAGEMAP_SCAN", "works")
    } else {
        Check::warning(
            "PAGEMAP_SCAN",
            "does not work",
            "nodes run without it; only tests that look into page tables need it (Linux 6.7)",
        )
    }
}

fn cores(facts: &Facts) -> Check {
    let found = facts.cores.to_string();
    if facts.cores >= CORES_WANTED {
        Check::ok("cores", found)
    } else {
        Check::warning(
            "cores",
            found,
            "a fault is served faster where the engine has a core beside the application's",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(facts: &Facts, name: &str) -> Check {
        judge(facts).into_iter().find(|check| check.name == name).expect("each check has a verdict")
    }

    fn worst(facts: &Facts) -> Status {
        judge(facts).iter().map(|check| check.status).max().expect("there are checks")
    }

    #[test]
    fn a_machine_that_lacks_nothing_is_fit() {
        assert_eq!(worst(&Facts::all_well()), Status::Ok);
        assert!(judge(&Facts::all_well()).iter().all(|check| check.fix.is_empty()));
    }

    #[test]
    fn this_machine_can_run_nodes() {
        let failed: Vec<_> = examine().into_iter().filter(|check| check.status == Status::Failed).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn each_missing_feature_is_named() {
        for feature in &FEATURES {
            let mut facts = Facts::all_well();
            facts.features = facts.features.map(|offered| offered & !feature.bit);
            let failed: Vec<_> =
                judge(&facts).into_iter().filter(|check| check.status == Status::Failed).collect();
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert_eq!(failed[0].name, feature.name);
            assert!(failed[0].found.contains(feature.since) && failed[0].fix.contains("6.6"), "{failed:?}");
        }
    }

    #[test]
    fn without_privilege_nodes_run_with_a_warning_that_tells_of_system_calls() {
        let mut facts = Facts::all_well();
        facts.device = Err(Errno::EACCES);
        facts.call = Err(Errno::EPERM);
        let check = verdict(&facts, "userfaultfd");
        assert_eq!((check.status, worst(&facts)), (Status::Warning, Status::Warning));
        assert!(check.fix.contains("EFAULT") && check.fix.contains("prefault"), "{check:?}");
    }

    #[test]
    fn the_fix_for_a_refusal_depends_on_its_reason() {
        let refused = |errno| {
            let mut facts = Facts::all_well();
            facts.device = Err(Errno::ENOENT);
            facts.call = Err(errno);
            facts.call_user_only = Err(errno);
            facts.features = None;
            assert_eq!(worst(&facts), Status::Failed);
            verdict(&facts, "userfaultfd").fix
        };
        assert_eq!(refused(Errno::EPERM), FIX_NOT_PERMITTED);
        assert_eq!(refused(Errno::ENOSYS), FIX_NOT_BUILT);
        assert_eq!(refused(Errno::EINVAL), FIX_KERNEL);
    }

    #[test]
    fn kernel_versions_compare_as_numbers() {
        let status = |release: &str| {
            let mut facts = Facts::all_well();
            release.clone_into(&mut facts.release);
            verdict(&facts, "kernel").status
        };
        assert_eq!(status("6.6.0"), Status::Ok);
        assert_eq!(status("6.18.44-vm"), Status::Ok);
        assert_eq!(status("10.0-rc1"), Status::Ok);
        assert_eq!(status("6.5.99"), Status::Failed);
        assert_eq!(status("5.15.0-91-generic"), Status::Failed);
        assert_eq!(status("unknown"), Status::Warning);
    }

    #[test]
    fn limits_and_taken_addresses_fail_and_say_so() {
        let mut facts = Facts::all_well();
        facts.address_limit = Some(facts.region_size);
        assert!(verdict(&facts, "address space limit").fix.contains("ulimit -v"));
        facts.base = Err("taken by /usr/lib/x.so".to_owned());
        assert!(verdict(&facts, "default region base").fix.contains("region_base"));
        facts.memory_file = Err(Errno::EPERM);
        assert_eq!(verdict(&facts, "memfd_create").status, Status::Failed);
        facts.kernel_page = 64 << 10;
        assert_eq!(verdict(&facts, "kernel page size").status, Status::Failed);
    }

    #[test]
    fn comforts_that_are_missing_are_warnings() {
        let mut facts = Facts::all_well();
        facts.pagemap_scan = false;
        facts.cores = 1;
        facts.overcommit = Some(OVERCOMMIT_NEVER);
        assert_eq!(worst(&facts), Status::Warning);
    }

    #[test]
    fn a_join_tells_what_is_missing_and_what_to_do() {
        let text = explain(&Refusal::Lacks(vec!["POISON", "MINOR_SHMEM"])).to_string();
        assert!(text.contains("POISON, MINOR_SHMEM") && text.contains("6.6"), "{text}");
        assert!(explain(&Refusal::NotPermitted).to_string().contains("/dev/userfaultfd"));
        assert!(explain(&Refusal::NotBuilt).to_string().contains("CONFIG_USERFAULTFD"));
        let full = Refusal::Other { what: "userfaultfd(2)", errno: Errno::EMFILE };
        assert!(explain(&full).to_string().contains("ulimit -n"));
    }
}
