//! How a userfaultfd is come by: the ways to ask for one, and what it must be able to do.
//!
//! Three ways, from the one that gives most to the one that everybody has. What a refusal means to a user, and what to
//! do about it, is told by [`crate::doctor`].

use super::{FaultScope, abi};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The device that hands out descriptors to whom its permissions allow.
pub(crate) const DEVICE: &str = "/dev/userfaultfd";

/// Each way to ask for a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Through [`DEVICE`].
    Device,
    /// By the system call, for all faults: takes `CAP_SYS_PTRACE` or `vm.unprivileged_userfaultfd`.
    Call,
    /// By the system call, for faults of user mode only.
    CallUserOnly,
}

/// One thing that a userfaultfd must be able to do.
pub(crate) struct Feature {
    /// Its bit.
    pub bit: u64,
    /// Its name in the kernel's documentation.
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: &'static str,
}

/// Everything that is asked for. No `EVENT_*`: with `EVENT_REMOVE`, madvise(2) would wait for the reader of the events.
pub(crate) const FEATURES: [Feature; 7] = [
    Feature { bit: abi::UFFD_FEATURE_PAGEFAULT_FLAG_WP, name: "PAGEFAULT_FLAG_WP", since: "5.7" },
    Feature { bit: abi::UFFD_FEATURE_MISSING_SHMEM, name: "MISSING_SHMEM", since: "4.11" },
    Feature { bit: abi::UFFD_FEATURE_MINOR_SHMEM, name: "MINOR_SHMEM", since: "5.14" },
    Feature { bit: abi::UFFD_FEATURE_WP_HUGETLBFS_SHMEM, name: "WP_HUGETLBFS_SHMEM", since: "5.19" },
    Feature { bit: abi::UFFD_FEATURE_EXACT_ADDRESS, name: "EXACT_ADDRESS", since: "5.18" },
    Feature { bit: abi::UFFD_FEATURE_THREAD_ID, name: "THREAD_ID", since: "4.14" },
    Feature { bit: abi::UFFD_FEATURE_POISON, name: "POISON", since: "6.6" },
];

/// Why there is no userfaultfd.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The kernel was built without it.
    NotBuilt,
    /// No way is open to this process, not even the one that takes no privilege.
    NotPermitted,
    /// The kernel lacks features, named here.
    Lacks(Vec<&'static str>),
    /// Anything else.
    Other {
        /// What was attempted.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// All bits of [`FEATURES`].
pub(super) fn features_needed() -> u64 {
    FEATURES.iter().fold(0, |bits, feature| bits | feature.bit)
}

/// The names of the features that `offered` lacks.
pub(crate) fn features_missing(offered: u64) -> Vec<&'static str> {
    FEATURES.iter().filter(|feature| offered & feature.bit == 0).map(|feature| feature.name).collect()
}

/// A descriptor, not yet agreed on version and features, by the best way that is open, and which faults it serves.
pub(super) fn best() -> Result<(Way, OwnedFd), Refusal> {
    // A refusal of the device says nothing about the system call, whatever its reason: absent, or not ours to open.
    if let Ok(fd) = create(Way::Device) {
        return Ok((Way::Device, fd));
    }
    for way in [Way::Call, Way::CallUserOnly] {
        match create(way) {
            Ok(fd) => return Ok((way, fd)),
            Err(Errno::EPERM | Errno::EACCES) => {}
            Err(Errno::ENOSYS) => return Err(Refusal::NotBuilt),
            Err(errno) => return Err(Refusal::Other { what: "userfaultfd(2)", errno }),
        }
    }
    Err(Refusal::NotPermitted)
}

/// A descriptor by one way.
pub(crate) fn create(way: Way) -> Result<OwnedFd, Errno> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let raw = match way {
        Way::Device => {
            let device = open(DEVICE, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
            // SAFETY: the request takes its argument by value, and reads or writes no memory of ours.
            let answer = unsafe {
                libc::ioctl(
                    device.as_raw_fd(),
                    abi::USERFAULTFD_IOC_NEW as libc::Ioctl,
                    libc::c_long::from(flags),
                )
            };
            libc::c_long::from(answer)
        }
        // SAFETY: the call takes one argument, by value.
        Way::Call => unsafe { libc::syscall(libc::SYS_userfaultfd, flags) },
        Way::CallUserOnly => {
            // SAFETY: the call takes one argument, by value.
            unsafe { libc::syscall(libc::SYS_userfaultfd, flags | abi::UFFD_USER_MODE_ONLY) }
        }
    };
    let raw = Errno::result(raw)?;
    let raw = libc::c_int::try_from(raw).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

impl Way {
    /// Which faults a descriptor that came by this way serves.
    pub(crate) fn scope(self) -> FaultScope {
        match self {
            Way::Device | Way::Call => FaultScope::KernelAndUser,
            Way::CallUserOnly => FaultScope::UserOnly,
        }
    }
}

/// Agrees on version and `features` with a fresh descriptor; what the kernel offers. A descriptor takes this once.
pub(crate) fn agree(fd: &OwnedFd, features: u64) -> Result<u64, Errno> {
    let mut api = abi::Api { api: abi::UFFD_API, features, ioctls: 0 };
    // SAFETY: `api` is live and has the size that the request encodes.
    let answer =
        unsafe { libc::ioctl(fd.as_raw_fd(), abi::UFFDIO_API as libc::Ioctl, std::ptr::from_mut(&mut api)) };
    Errno::result(answer).map(|_| api.features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_from_all_and_all_from_nothing() {
        assert!(features_missing(features_needed()).is_empty());
        assert_eq!(features_missing(0).len(), FEATURES.len());
        assert_eq!(features_missing(features_needed() & !abi::UFFD_FEATURE_POISON), ["POISON"]);
    }

    #[test]
    fn a_descriptor_comes_by_the_best_way_and_closes_on_exec() {
        let (way, fd) = best().expect("this machine has userfaultfd, at least for user mode");
        assert_eq!(way.scope() == FaultScope::UserOnly, way == Way::CallUserOnly);
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).expect("the descriptor is open");
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        let offered = agree(&fd, 0).expect("asking what there is always works");
        assert!(features_missing(offered).is_empty(), "{:?}", features_missing(offered));
    }
}
