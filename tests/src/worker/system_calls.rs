//! The kernel as the one that touches pages: read(2) into and write(2) from pages that are on another node.

use super::cluster::{meet, with_cluster};
use super::{Arguments, Outcome, Scenario, UNPRIVILEGED, at, fact};
use dsm_node::DsmMutex;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Write, pipe};
use std::os::unix::fs::FileExt;

pub(super) const SCENARIOS: &[(&str, Scenario)] = &[("system_calls", system_calls)];

/// Sixteen of the smallest pages: as much as a pipe holds.
const LENGTH: usize = 64 << 10;

/// Rank 0 fills the buffer; rank 1 passes it through pipe and file, changed; rank 0 checks what came of it.
fn system_calls(_: &Arguments) -> Outcome {
    let privileged = std::env::var_os(UNPRIVILEGED).is_none();
    with_cluster(|dsm| {
        let buffer = dsm.root("buffer", |dsm| DsmMutex::new(dsm, [0_u8; LENGTH]))?;
        if dsm.rank() == 0 {
            fill(&mut *buffer.lock()?, 0);
        }
        meet(dsm, "rank 0 owns all pages")?;
        if dsm.rank() == 1 {
            let mut bytes = buffer.lock()?;
            if privileged { served(&mut bytes) } else { refused(&mut bytes) }
        }
        meet(dsm, "rank 1 owns all pages")?;
        if dsm.rank() == 0 {
            let bytes = buffer.lock()?;
            let mut expected = [0; LENGTH];
            fill(&mut expected, if privileged { 2 } else { 0 });
            assert!(*bytes == expected, "what rank 1's kernel wrote is here");
        }
        meet(dsm, "rank 0 has checked")
    })
}

/// A pattern that no two pages share.
fn fill(bytes: &mut [u8; LENGTH], salt: u8) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = (index as u8).wrapping_add((index >> 8) as u8).wrapping_add(salt);
    }
}

/// With kernel faults, system calls do not notice that pages are away.
fn served(bytes: &mut [u8; LENGTH]) {
    let (mut reader, mut writer) = pipe().expect("pipes can be made");
    at("write(2) to a pipe from pages of another node");
    writer.write_all(bytes).expect("a pipe holds it");
    let mut copy = [0; LENGTH];
    reader.read_exact(&mut copy).expect("it is in the pipe");
    let mut expected = [0; LENGTH];
    fill(&mut expected, 0);
    assert!(copy == expected, "write(2) took what rank 0 wrote");

    fill(&mut copy, 1);
    writer.write_all(&copy).expect("a pipe holds it");
    at("read(2) from a pipe into pages that another node has, too");
    reader.read_exact(bytes).expect("it is in the pipe");
    assert!(*bytes == copy, "read(2) wrote through");

    fill(&mut copy, 2);
    let file = scratch();
    file.write_all_at(&copy, 0).expect("a file in memory takes it");
    at("pread(2) from a file");
    file.read_exact_at(bytes, 0).expect("it is in the file");
    at("pwrite(2) to a file");
    file.write_all_at(bytes, LENGTH as u64).expect("a file in memory takes it");
    file.read_exact_at(&mut copy, LENGTH as u64).expect("it is in the file");
    assert!(*bytes == copy);
}

/// Without kernel faults, a system call into a page that is away fails, and one into a page that is here works.
fn refused(bytes: &mut [u8; LENGTH]) {
    let (mut reader, mut writer) = pipe().expect("pipes can be made");
    at("write(2) from a page of another node");
    let last = LENGTH - 1;
    is_bad_address(writer.write(&bytes[last..]));
    // A load brings the page, and then the kernel can read it.
    let expected = std::hint::black_box(bytes[last]);
    assert_eq!(writer.write(&bytes[last..]).expect("the page is here"), 1);
    at("read(2) into a page that another node has, too");
    is_bad_address(reader.read(&mut bytes[last..]));
    // A store brings the right to write it.
    bytes[last] = 0;
    let came = reader.read(&mut bytes[last..]);
    match came {
        Ok(1) => assert_eq!(bytes[last], expected),
        // The pipe gave its byte away with the read that failed: the kernel takes it out before it copies.
        other => panic!("the byte is lost: {other:?}"),
    }
    fact("errno", Errno::EFAULT);
}

fn is_bad_address(answer: io::Result<usize>) {
    let error = answer.expect_err("a page that is away cannot be had in the kernel");
    assert_eq!(error.raw_os_error(), Some(Errno::EFAULT as i32), "{error}");
}

fn scratch() -> File {
    File::from(memfd_create("scratch", MFdFlags::MFD_CLOEXEC).expect("files in memory can be made"))
}
