//! What a node counts from its first moment on: faults, messages, bytes, and how long faults took.

use hdrhistogram::Histogram;

/// Fault latencies are kept to three digits, whatever their magnitude.
const SIGNIFICANT_DIGITS: u8 = 3;

/// What one node has counted since it joined. Counts only grow.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Faults of loads that had to ask for a page.
    pub read_faults: u64,
    /// Faults of stores that had to ask for a page or for the right to write it.
    pub write_faults: u64,
    /// Faults that came again for a page that was here already: after a signal, or several threads at once.
    pub repeated_faults: u64,
    /// Pages whose bytes came from a peer.
    pub pages_received: u64,
    /// Pages whose bytes went to a peer.
    pub pages_sent: u64,
    /// Upgrades from read to write, which moved no data.
    pub upgrades: u64,
    /// Pages that nobody had written and that were made here, all zero.
    pub zero_pages: u64,
    /// Copies that another node's store took from this one.
    pub invalidations: u64,
    /// Revocations that waited for an instruction to retire.
    pub deferred_revocations: u64,
    /// Messages to peers, acknowledgements of the transport not counted.
    pub messages_sent: u64,
    /// Messages from peers.
    pub messages_received: u64,
    /// Bytes to peers, headers included.
    pub bytes_sent: u64,
    /// Bytes from peers, headers included.
    pub bytes_received: u64,
    /// Connections to peers that broke and were made anew.
    pub reconnects: u64,
    /// Messages that went out again, on a later connection than the first.
    pub resent_messages: u64,
    /// Messages that came again, and were dropped.
    pub duplicate_messages: u64,
    /// Messages of memberships that were over, and were dropped.
    pub stale_messages: u64,
    /// Pages that were committed: copied to the nodes that keep this one's commits.
    pub pages_committed: u64,
    /// Those of them of which only what had changed since their last record was sent.
    pub pages_patched: u64,
    /// Records of other nodes that this one keeps.
    pub records_kept: u64,
    /// Changes of the membership that this node has recovered from.
    pub recoveries: u64,
    /// Pages that are lost, as far as this node was told.
    pub lost_pages: u64,
    /// Frames and connections that were refused: damaged, unknown, or of another protocol.
    pub refused_frames: u64,
    /// Messages that were sound but that no correct peer sends.
    pub refused_messages: u64,
    /// Blocks that were freed here though no such block was taken: a sign of a damaged collection.
    pub refused_frees: u64,
    /// How long read faults took, from the engine's notice to the wake.
    pub read_latency: Latency,
    /// How long write faults took, from the engine's notice to the wake.
    pub write_latency: Latency,
}

impl Stats {
    /// How long faults of either kind took.
    #[must_use]
    pub fn fault_latency(&self) -> Latency {
        let mut both = self.read_latency.clone();
        both.merge(&self.write_latency);
        both
    }
}

/// A distribution of times.
#[derive(Clone, Debug)]
pub struct Latency {
    nanos: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency::new()
    }
}

impl Latency {
    /// An empty distribution.
    ///
    /// # Panics
    /// Never: the number of digits is one that histograms have.
    #[must_use]
    pub fn new() -> Latency {
        let nanos =
            Histogram::new(SIGNIFICANT_DIGITS).expect("three digits are within what a histogram keeps");
        Latency { nanos }
    }

    /// Counts one time of `nanos` nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.record_many(nanos, 1);
    }

    /// Counts `count` times of `nanos` nanoseconds, such as one of [`Latency::buckets`] of another node.
    pub fn record_many(&mut self, nanos: u64, count: u64) {
        // It grows as needed; only a time of centuries is beyond what it can hold, and is not counted.
        let _ = self.nanos.record_n(nanos, count);
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Latency) {
        for (nanos, count) in other.buckets() {
            self.record_many(nanos, count);
        }
    }

    /// How many times were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// The time, in microseconds, below which `percent` percent of the counted ones lie; 0 if there are none.
    #[must_use]
    pub fn percentile_us(&self, percent: f64) -> f64 {
        const NANOS_PER_MICRO: f64 = 1e3;
        self.nanos.value_at_percentile(percent) as f64 / NANOS_PER_MICRO
    }

    /// The median, in microseconds.
    #[must_use]
    pub fn p50_us(&self) -> f64 {
        self.percentile_us(50.0)
    }

    /// The 99th percentile, in microseconds.
    #[must_use]
    pub fn p99_us(&self) -> f64 {
        self.percentile_us(99.0)
    }

    /// What was counted, as pairs of a time in nanoseconds and how often it came.
    #[must_use]
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        self.nanos
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_survive_the_way_through_buckets() {
        let mut one = Latency::new();
        (1..=100).for_each(|micros| one.record(micros * 1000));
        let mut other = Latency::new();
        other.merge(&one);
        assert_eq!(other.count(), 100);
        assert!((other.p50_us() - 50.0).abs() < 0.1, "{}", other.p50_us());
        assert!((other.p99_us() - 99.0).abs() < 0.2, "{}", other.p99_us());
        assert_eq!(Latency::new().p50_us(), 0.0);
    }
}
