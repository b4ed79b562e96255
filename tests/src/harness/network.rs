//! A network of one's own: each node in a network namespace with one link to a switch, in a namespace of its own too.
//! Nothing is reached from here, and nothing here reaches anything else. It takes the right to make namespaces.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where nodes meet.
const PORT: u16 = 7000;

/// Namespaces of this network, which are gone when it is dropped.
pub struct Network {
    name: String,
    nodes: u32,
}

impl Network {
    /// A network for so many nodes.
    ///
    /// # Errors
    /// Why there cannot be one here.
    pub fn new(nodes: u32) -> Result<Network, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dsm{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let network = Network { name, nodes };
        let hub = network.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "dev", "switch", "up"])?;
        for rank in 0..nodes {
            let (space, port) = (network.space_of(rank), port_of(rank));
            ip(&["netns", "add", &space])?;
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "link", "netns", &space])?;
            ip(&["-n", &hub, "link", "set", "dev", &port, "master", "switch", "up"])?;
            let address = format!("{}/24", address_of(rank));
            ip(&["-n", &space, "address", "add", &address, "dev", "link"])?;
            ip(&["-n", &space, "link", "set", "dev", "link", "up"])?;
            ip(&["-n", &space, "link", "set", "dev", "lo", "up"])?;
        }
        Ok(network)
    }

    /// Cuts the link of a node. Its peers are not told: their bytes go nowhere.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn cut(&self, rank: u32) {
        ip(&["-n", &self.hub(), "link", "set", "dev", &port_of(rank), "down"]).expect("the link is there");
    }

    /// The namespace of a node.
    #[must_use]
    pub fn space_of(&self, rank: u32) -> String {
        format!("{}-{rank}", self.name)
    }

    /// Where a node listens.
    #[must_use]
    pub fn listen_of(&self, rank: u32) -> String {
        format!("{}:0", address_of(rank))
    }

    /// Where the nodes meet.
    #[must_use]
    pub fn meeting(&self) -> String {
        format!("{}:{PORT}", address_of(0))
    }

    /// How many nodes it is for.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was not made cannot be removed. Links go with their namespaces.
        for rank in 0..self.nodes {
            let _ = ip(&["netns", "delete", &self.space_of(rank)]);
        }
        let _ = ip(&["netns", "delete", &self.hub()]);
    }
}

fn port_of(rank: u32) -> String {
    format!("port{rank}")
}

/// Of a network that routers do not route (RFC 2544, for benchmarks).
fn address_of(rank: u32) -> String {
    format!("198.18.0.{}", rank + 1)
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
