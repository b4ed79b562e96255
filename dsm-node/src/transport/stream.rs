//! Connections between nodes, and where they come from: TCP, and Unix sockets in the abstract namespace.
//!
//! A further kind of network is a further [`Transport`]. Everything here is non-blocking and closed on exec; whoever
//! wants to wait, polls. What the bytes mean is none of this module's business.

use super::Frames;
use super::endpoint::{Endpoint, Kind};
use super::nemesis::{self, Side, Tap};
use dsm_core::{NodeId, PageId};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections that wait to be accepted: more than a full cluster opens to one node at once.
const BACKLOG: i32 = 256;

/// A connection on which nothing was heard for so long is probed.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(1);

/// Between two probes.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// So many unanswered probes would end a connection, did [`USER_TIMEOUT`] not end it before.
const KEEPALIVE_PROBES: u32 = 3;

/// Bytes or probes that stay unacknowledged for so long end a connection. The peer's kernel acknowledges, not its
/// program, so a busy processor does not delay it; where a connection ends too early, the next goes on.
pub(super) const USER_TIMEOUT: Duration = Duration::from_millis(1250);

/// A way to connect nodes.
pub(crate) trait Transport: Send + Sync {
    /// Listens at `endpoint`.
    fn listen(&self, endpoint: &Endpoint) -> io::Result<Listener>;

    /// Connects to `endpoint`, waiting for `patience` at most.
    fn connect(&self, endpoint: &Endpoint, patience: Duration) -> io::Result<Stream>;

    /// Makes a socket that was just accepted fit for use.
    fn adopt(&self, socket: Socket) -> io::Result<Stream>;
}

/// The transport of a kind.
pub(crate) fn transport(kind: Kind) -> &'static dyn Transport {
    match kind {
        Kind::Tcp => &Tcp,
        Kind::Unix => &Unix,
    }
}

struct Tcp;

struct Unix;

/// A socket that listens.
pub(crate) struct Listener {
    socket: Socket,
    kind: Kind,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    /// In tests of this very thing: what stands between.
    tap: Option<Box<Mutex<Tap>>>,
}

impl Transport for Tcp {
    fn listen(&self, endpoint: &Endpoint) -> io::Result<Listener> {
        first_that_works(endpoint, |address| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            // A port whose last connections are still in TIME_WAIT can be listened on again.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(Listener { socket, kind: Kind::Tcp })
        })
    }

    fn connect(&self, endpoint: &Endpoint, patience: Duration) -> io::Result<Stream> {
        let deadline = Instant::now() + patience;
        first_that_works(endpoint, |address| {
            // All addresses of a name share the patience. A timeout of zero would be refused as an argument.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.connect_timeout(&address.into(), left)?;
            self.adopt(socket)
        })
    }

    fn adopt(&self, socket: Socket) -> io::Result<Stream> {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.set_nonblocking(true)?;
        Ok(Stream::new(socket))
    }
}

impl Transport for Unix {
    fn listen(&self, endpoint: &Endpoint) -> io::Result<Listener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&abstract_address(endpoint)?)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Listener { socket, kind: Kind::Unix })
    }

    fn connect(&self, endpoint: &Endpoint, _patience: Duration) -> io::Result<Stream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A Unix socket connects at once, or fails with EAGAIN where the listener's backlog is full.
        socket.set_nonblocking(true)?;
        socket.connect(&abstract_address(endpoint)?)?;
        self.adopt(socket)
    }

    fn adopt(&self, socket: Socket) -> io::Result<Stream> {
        socket.set_nonblocking(true)?;
        Ok(Stream::new(socket))
    }
}

impl Listener {
    /// Takes over a socket that listens already, such as one that a launcher passed on.
    pub fn inherit(descriptor: OwnedFd) -> io::Result<Listener> {
        let socket = Socket::from(descriptor);
        let local = socket.local_addr()?;
        let kind = match (local.as_socket(), local.is_unix()) {
            (Some(_), _) => Kind::Tcp,
            (None, true) => Kind::Unix,
            (None, false) => return Err(io::Error::other("it is neither a TCP nor a Unix socket")),
        };
        if !socket.is_listener()? {
            return Err(io::Error::other("the socket does not listen"));
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        Ok(Listener { socket, kind })
    }

    /// The next connection that waits, if one does.
    pub fn accept(&self) -> io::Result<Option<Stream>> {
        match self.socket.accept() {
            Ok((socket, _)) => transport(self.kind).adopt(socket).map(Some),
            Err(error) if would_block(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where it listens, as the kernel has it.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        endpoint_of(&self.socket.local_addr()?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stream {
    fn new(socket: Socket) -> Stream {
        Stream { socket, tap: None }
    }

    /// It is a connection between this node, which is `me`, and `peer`: if a test has put a nemesis between them, it
    /// is there from now on.
    pub fn identify(&mut self, me: NodeId, peer: NodeId, side: Side) {
        self.tap = nemesis::tap(me, peer, side).map(Mutex::new).map(Box::new);
    }

    /// The handshake is over: frames follow, with pages of `page_size` bytes.
    pub fn begin_frames(&self, page_size: usize) {
        if let Some(tap) = &self.tap {
            tap.lock().begin_frames(page_size);
        }
    }

    /// Receives without blocking. 0: the stream has ended.
    pub fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = |bytes: &mut [u8]| Ok(recv(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT)?);
        match &self.tap {
            None => read(bytes),
            Some(tap) => tap.lock().receive(&self.socket, bytes, read),
        }
    }

    /// Receives into `page` from offset `at` on, without blocking. 0: the stream has ended.
    pub fn receive_page(&self, frames: &impl Frames, page: PageId, at: usize) -> io::Result<usize> {
        let end = frames.page_size();
        match &self.tap {
            None => frames.receive(self.as_fd(), page, at..end),
            Some(tap) => tap.lock().receive_page(&self.socket, end - at, |length| {
                frames.receive(self.as_fd(), page, at..at + length)
            }),
        }
    }

    /// Sends without blocking, and without a signal where the peer is gone.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let write = |bytes: &[u8]| Ok(send(self.socket.as_raw_fd(), bytes, flags)?);
        match &self.tap {
            None => write(bytes),
            Some(tap) => tap.lock().send(&self.socket, bytes, 0, |bytes, _| write(bytes)),
        }
    }

    /// Sends `head`, and then the bytes of `page` from offset `from` on, as [`Stream::send`] does.
    pub fn send_page(
        &self,
        frames: &impl Frames,
        head: &[u8],
        page: PageId,
        from: usize,
    ) -> io::Result<usize> {
        let end = frames.page_size();
        match &self.tap {
            None => frames.send(self.as_fd(), head, page, from..end),
            Some(tap) => tap.lock().send(&self.socket, head, end - from, |head, length| {
                frames.send(self.as_fd(), head, page, from..from + length)
            }),
        }
    }

    /// Sends all of `bytes`, until `deadline`.
    pub fn send_all(&self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.send(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if would_block(&error) => self.wait(PollFlags::POLLOUT, deadline)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `bytes`, until `deadline`.
    pub fn receive_all(&self, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.receive(bytes) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up")),
                Ok(came) => bytes = &mut bytes[came..],
                Err(error) if would_block(&error) => self.wait(PollFlags::POLLIN, deadline)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Whether the peer has closed its end and left nothing to read.
    pub fn has_ended(&self) -> bool {
        let mut byte = [0];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
        match recv(self.socket.as_raw_fd(), &mut byte, flags) {
            Ok(came) => came == 0,
            Err(errno) => errno != Errno::EAGAIN && errno != Errno::EINTR,
        }
    }

    /// The other end's address.
    pub fn peer_endpoint(&self) -> io::Result<Endpoint> {
        endpoint_of(&self.socket.peer_addr()?)
    }

    /// This end's address: what of this machine the peer has reached.
    pub fn local_endpoint(&self) -> io::Result<Endpoint> {
        endpoint_of(&self.socket.local_addr()?)
    }

    fn wait(&self, events: PollFlags, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        let mut polled = [PollFd::new(self.as_fd(), events)];
        match poll(&mut polled, poll_timeout(left)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    #[cfg(test)]
    pub fn from_socket(socket: Socket) -> Stream {
        Stream::new(socket)
    }

    #[cfg(test)]
    pub fn put_between(&mut self, tap: Tap) {
        self.tap = Some(Box::new(Mutex::new(tap)));
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a call on a non-blocking socket would have blocked.
pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// `span` as poll takes it, rounded up so that a deadline has passed when poll returns for it.
pub(crate) fn poll_timeout(span: Duration) -> PollTimeout {
    let millis = span.as_micros().div_ceil(1000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

fn first_that_works<T>(endpoint: &Endpoint, attempt: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let Endpoint::Tcp { host, port } = endpoint else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{endpoint} is not a TCP address")));
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in (host.as_str(), *port).to_socket_addrs()? {
        match attempt(address) {
            Ok(made) => return Ok(made),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn abstract_address(endpoint: &Endpoint) -> io::Result<SockAddr> {
    match endpoint {
        Endpoint::Unix { name } => SockAddr::unix(format!("\0{name}")),
        Endpoint::Tcp { .. } => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{endpoint} is not a Unix name")))
        }
    }
}

fn endpoint_of(address: &SockAddr) -> io::Result<Endpoint> {
    if let Some(address) = address.as_socket() {
        return Ok(Endpoint::tcp(address));
    }
    match address.as_abstract_namespace() {
        Some(name) => Ok(Endpoint::Unix { name: String::from_utf8_lossy(name).into_owned() }),
        None => Err(io::Error::other("the socket has no address that a peer could connect to")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(endpoint: &Endpoint) -> Endpoint {
        let listener = transport(endpoint.kind()).listen(endpoint).expect("it listens");
        let bound = listener.endpoint().expect("it is bound");
        assert!(listener.accept().expect("accepting never blocks").is_none());
        let deadline = Instant::now() + Duration::from_secs(5);
        let near = transport(bound.kind()).connect(&bound, Duration::from_secs(5)).expect("it connects");
        let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::MAX).expect("poll");
        let far = listener.accept().expect("accept").expect("a connection waits");
        near.send_all(b"four", deadline).expect("it sends");
        let mut bytes = [0; 4];
        far.receive_all(&mut bytes, deadline).expect("it receives");
        assert_eq!(&bytes, b"four");
        assert!(!near.has_ended());
        drop(far);
        let mut polled = [PollFd::new(near.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::MAX).expect("poll");
        assert!(near.has_ended());
        bound
    }

    #[test]
    fn tcp_streams_carry_bytes_and_ports_are_chosen() {
        let bound = round_trip(&Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 0 });
        assert!(matches!(bound, Endpoint::Tcp { port, .. } if port != 0));
    }

    #[test]
    fn unix_names_are_abstract_and_free_again_once_closed() {
        let endpoint = Endpoint::Unix { name: format!("dsm-stream-test-{}", std::process::id()) };
        assert_eq!(round_trip(&endpoint), endpoint);
        assert_eq!(round_trip(&endpoint), endpoint);
    }

    #[test]
    fn a_listener_is_inherited_with_its_kind() {
        let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
        let listener = transport(Kind::Tcp).listen(&endpoint).expect("it listens");
        let bound = listener.endpoint().expect("it is bound");
        let inherited = Listener::inherit(OwnedFd::from(listener.socket)).expect("it is a listener");
        assert_eq!((inherited.kind, inherited.endpoint().expect("it is bound")), (Kind::Tcp, bound));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        assert!(Listener::inherit(OwnedFd::from(socket)).is_err());
    }
}
