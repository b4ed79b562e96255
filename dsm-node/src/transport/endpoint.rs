//! Where a node listens, as users write it: `tcp://host:port`, bare `host:port`, or `unix:name`.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// What kind of socket joins two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// TCP: nodes on any machines.
    Tcp,
    /// Unix stream sockets with names in the abstract namespace: nodes on one machine.
    Unix,
}

/// The longest name of a Unix socket: the kernel's 108 bytes, less the zero byte that marks it as abstract.
pub(crate) const UNIX_NAME_LENGTH_MAX: usize = 107;

/// Where a node listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    /// A host, by name or number, and a port.
    Tcp {
        /// The host, without the brackets that an IPv6 address is written in.
        host: String,
        /// The port; 0 where the kernel is to choose.
        port: u16,
    },
    /// A name in the abstract namespace of Unix sockets: nothing is left behind when its process ends.
    Unix {
        /// The name.
        name: String,
    },
}

/// Why a text is not an endpoint. It says what one looks like.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not an address: {cause}; write tcp://host:port, host:port or unix:name")]
pub(crate) struct NotAnEndpoint {
    text: String,
    cause: &'static str,
}

impl Endpoint {
    /// The kind of socket that it takes.
    pub fn kind(&self) -> Kind {
        match self {
            Endpoint::Tcp { .. } => Kind::Tcp,
            Endpoint::Unix { .. } => Kind::Unix,
        }
    }

    /// The endpoint of a TCP address.
    pub fn tcp(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp { host: address.ip().to_string(), port: address.port() }
    }

    /// Whether only processes of this machine can reach it. A host name counts as what it resolves to; one that
    /// does not resolve counts as outside.
    pub fn is_local(&self) -> bool {
        match self {
            Endpoint::Unix { .. } => true,
            Endpoint::Tcp { host, port } => match (host.as_str(), *port).to_socket_addrs() {
                Ok(mut addresses) => addresses.all(|address| address.ip().is_loopback()),
                Err(_) => false,
            },
        }
    }

    /// Whether it names no host in particular, as `0.0.0.0` does: good to listen on, useless to connect to.
    pub fn is_unspecified(&self) -> bool {
        match self {
            Endpoint::Unix { .. } => false,
            Endpoint::Tcp { host, .. } => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()),
        }
    }

    /// This endpoint's port on `other`'s host, if both are TCP; else this endpoint.
    pub fn at_host_of(&self, other: &Endpoint) -> Endpoint {
        match (self, other) {
            (Endpoint::Tcp { port, .. }, Endpoint::Tcp { host, .. }) => {
                Endpoint::Tcp { host: host.clone(), port: *port }
            }
            (Endpoint::Tcp { .. } | Endpoint::Unix { .. }, Endpoint::Tcp { .. } | Endpoint::Unix { .. }) => {
                self.clone()
            }
        }
    }
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, NotAnEndpoint> {
        let refuse = |cause| NotAnEndpoint { text: text.to_owned(), cause };
        if let Some(name) = text.strip_prefix("unix:") {
            return match name.len() {
                0 => Err(refuse("the name is empty")),
                1..=UNIX_NAME_LENGTH_MAX => Ok(Endpoint::Unix { name: name.to_owned() }),
                _ => Err(refuse("the name is longer than 107 bytes")),
            };
        }
        let (host, port) = text
            .strip_prefix("tcp://")
            .unwrap_or(text)
            .rsplit_once(':')
            .ok_or_else(|| refuse("the port is missing"))?;
        let port = port.parse().map_err(|_| refuse("the port is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(|| refuse("a bracket is not closed"))?,
            None if host.contains(':') => return Err(refuse("an IPv6 address needs brackets")),
            None => host,
        };
        if host.is_empty() {
            return Err(refuse("the host is missing"));
        }
        Ok(Endpoint::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Endpoint::Unix { name } => write!(f, "unix:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn the_three_spellings_are_read() {
        assert_eq!("tcp://127.0.0.1:4000".parse(), Ok(tcp("127.0.0.1", 4000)));
        assert_eq!("node-0.dsm:7".parse(), Ok(tcp("node-0.dsm", 7)));
        assert_eq!("tcp://[::1]:9".parse(), Ok(tcp("::1", 9)));
        assert_eq!("unix:a name".parse(), Ok(Endpoint::Unix { name: "a name".to_owned() }));
    }

    #[test]
    fn what_is_displayed_is_read_back() {
        for text in ["tcp://127.0.0.1:4000", "tcp://[::1]:9", "tcp://host:0", "unix:x"] {
            assert_eq!(text.parse::<Endpoint>().expect("it is an endpoint").to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_text() {
        let long = format!("unix:{}", "x".repeat(UNIX_NAME_LENGTH_MAX + 1));
        for text in ["", "host", "host:", "host:70000", ":1", "::1:4", "[::1:4", "unix:", &long] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(text) && error.contains("unix:name"), "{error}");
        }
    }

    #[test]
    fn local_means_loopback() {
        assert!(tcp("127.0.0.1", 1).is_local());
        assert!(tcp("::1", 1).is_local());
        assert!(!tcp("0.0.0.0", 1).is_local());
        assert!(!tcp("192.0.2.1", 1).is_local());
        assert!(tcp("0.0.0.0", 1).is_unspecified());
    }
}
