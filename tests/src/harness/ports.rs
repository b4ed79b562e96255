//! What a process listens on, as `/proc` tells: where garbage is to be sent, and what must be gone in the end.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;

/// Where a process listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Listening {
    /// A TCP port of the loopback address.
    Tcp(u16),
    /// A name in the abstract namespace.
    Unix(String),
}

/// A socket that listens. Its address may be another's once it is closed; its inode is not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listener {
    /// Where.
    pub at: Listening,
    inode: u64,
}

/// A connection to [`Listening`].
pub trait Connection: io::Read + io::Write + Send {}

impl<T: io::Read + io::Write + Send> Connection for T {}

impl Listening {
    /// Calls there.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn call(&self) -> io::Result<Box<dyn Connection>> {
        match self {
            Listening::Tcp(port) => {
                let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)))?;
                Ok(Box::new(stream))
            }
            Listening::Unix(name) => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                Ok(Box::new(UnixStream::connect_addr(&address)?))
            }
        }
    }
}

impl Listener {
    /// Whether it still listens.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn is_open(&self) -> io::Result<bool> {
        Ok(all_seen_by(std::process::id())?.contains(self))
    }
}

/// Everything that the process `pid` listens on.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn of_process(pid: u32) -> io::Result<Vec<Listener>> {
    let sockets = sockets_of(pid)?;
    let all = all_seen_by(pid)?;
    Ok(all.into_iter().filter(|listener| sockets.contains(&listener.inode)).collect())
}

/// Everything that anybody listens on in the network of the process `pid`.
fn all_seen_by(pid: u32) -> io::Result<Vec<Listener>> {
    let tcp = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let unix = fs::read_to_string(format!("/proc/{pid}/net/unix"))?;
    let ports = tcp.lines().skip(1).filter_map(listening_port);
    let ports = ports.map(|(inode, port)| Listener { at: Listening::Tcp(port), inode });
    let names = unix.lines().skip(1).filter_map(listening_name);
    let names = names.map(|(inode, name)| Listener { at: Listening::Unix(name), inode });
    Ok(ports.chain(names).collect())
}

/// The inodes of the sockets that a process has open.
fn sockets_of(pid: u32) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        // A descriptor may be closed between the listing and this look.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inodes.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    Ok(inodes)
}

/// Inode and port of a line of `/proc/net/tcp`, if that socket listens.
fn listening_port(line: &str) -> Option<(u64, u16)> {
    /// `TCP_LISTEN`, as the table shows it.
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (*state == LISTEN).then_some((inode.parse().ok()?, port))
}

/// Inode and abstract name of a line of `/proc/net/unix`, if that socket listens.
fn listening_name(line: &str) -> Option<(u64, String)> {
    /// `__SO_ACCEPTCON`, as the table shows it.
    const ACCEPTS: &str = "00010000";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (flags, inode, name) = (fields.get(3)?, fields.get(6)?, fields.get(7)?);
    let name = name.strip_prefix('@')?.to_owned();
    (*flags == ACCEPTS).then_some((inode.parse().ok()?, name))
}
