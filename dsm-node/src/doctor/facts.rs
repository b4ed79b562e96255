//! What can be found out about this machine without changing it. What it means is judged elsewhere.

use crate::region::{Mapping, Place, can_scan};
use crate::uffd::{Way, agree, create};
use dsm_core::limits;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};
use std::fs;

/// The facts.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The kernel's release, as in `uname -r`.
    pub release: String,
    /// The size of the kernel's pages, in bytes.
    pub kernel_page: u64,
    /// Whether `/dev/userfaultfd` gives a descriptor.
    pub device: Result<(), Errno>,
    /// Whether the system call gives one for all faults.
    pub call: Result<(), Errno>,
    /// Whether the system call gives one for faults of user mode.
    pub call_user_only: Result<(), Errno>,
    /// `vm.unprivileged_userfaultfd`, where it can be read.
    pub unprivileged: Option<u64>,
    /// The features that userfaultfd offers; nothing where there is no descriptor to ask.
    pub features: Option<u64>,
    /// Whether memory files can be made.
    pub memory_file: Result<(), Errno>,
    /// The limit on address space, where there is one, in bytes.
    pub address_limit: Option<u64>,
    /// `vm.overcommit_memory`, where it can be read.
    pub overcommit: Option<u64>,
    /// The size of the region that is to fit, in bytes.
    pub region_size: u64,
    /// Whether the default region's addresses are free; else who has them.
    pub base: Result<(), String>,
    /// Whether `PAGEMAP_SCAN` works.
    pub pagemap_scan: bool,
    /// The cores that this process may use.
    pub cores: usize,
}

impl Facts {
    /// Finds them out.
    pub fn probe() -> Facts {
        let ways = [Way::Device, Way::Call, Way::CallUserOnly].map(create);
        let features = ways.iter().flatten().next().and_then(|fd| agree(fd, 0).ok());
        let [device, call, call_user_only] = ways.map(|way| way.map(|_| ()));
        let size = limits::REGION_SIZE_DEFAULT;
        // Lossless on the 64-bit machines that this crate is for.
        let place = Place::Exactly(limits::REGION_BASE_DEFAULT as usize);
        Facts {
            release: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            kernel_page: kernel_page(),
            device,
            call,
            call_user_only,
            unprivileged: read_number("/proc/sys/vm/unprivileged_userfaultfd"),
            features,
            memory_file: memfd_create("dsm-doctor", MFdFlags::MFD_CLOEXEC).map(|_| ()),
            address_limit: address_limit(),
            overcommit: read_number("/proc/sys/vm/overcommit_memory"),
            region_size: size,
            base: Mapping::reservation(place, size as usize).map(|_| ()).map_err(|error| error.to_string()),
            pagemap_scan: can_scan(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// The facts of a machine that lacks nothing.
    #[cfg(test)]
    pub fn all_well() -> Facts {
        Facts {
            release: "6.6.0".to_owned(),
            kernel_page: limits::PAGE_SIZE_MIN,
            device: Ok(()),
            call: Ok(()),
            call_user_only: Ok(()),
            unprivileged: Some(0),
            features: Some(u64::MAX),
            memory_file: Ok(()),
            address_limit: None,
            overcommit: Some(0),
            region_size: limits::REGION_SIZE_DEFAULT,
            base: Ok(()),
            pagemap_scan: true,
            cores: 8,
        }
    }
}

/// The size of the kernel's pages; 0 where it does not tell.
fn kernel_page() -> u64 {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok()).unwrap_or(0)
}

fn address_limit() -> Option<u64> {
    match getrlimit(Resource::RLIMIT_AS) {
        Ok((limit, _)) if limit != RLIM_INFINITY => Some(limit),
        Ok(_) | Err(_) => None,
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn read_number(path: &str) -> Option<u64> {
    read(path)?.parse().ok()
}
