//! How many connections and flows of each kind there may be.
//!
//! Everything that a container can make many of is bounded. Each costs descriptors, of which the
//! process has a given number: no kind may take them all, so that a flood of one leaves the
//! others alive.

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// TCP flows to the outside, of one descriptor each; beyond that, new ones are reset.
    pub(crate) tcp_flows: usize,
    /// UDP flows to the outside, of one descriptor each; a quiet one makes room (see [`crate::recency`]).
    pub(crate) udp_flows: usize,
    /// Pings, of one descriptor each; a quiet one makes room.
    pub(crate) pings: usize,
    /// Name queries under way, of one descriptor for each server that was asked; further ones fail at once.
    pub(crate) queries: usize,
    /// Connections to published TCP ports, of two descriptors each and pipes at times; beyond
    /// that, clients wait in the kernel's queue.
    pub(crate) relayed: usize,
    /// Clients of published UDP ports, some of one descriptor; a quiet one makes room.
    pub(crate) udp_clients: usize,
}

impl Limits {
    /// The bounds for a process that may have so many descriptors.
    pub(crate) fn for_descriptors(descriptors: u64) -> Limits {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let share = |part: usize, most: usize| (descriptors / part).clamp(1, most);
        Limits {
            tcp_flows: share(2, 16384),
            udp_flows: share(16, 2048),
            pings: share(64, 256),
            // Three times what dnsmasq takes (dns-forward-max).
            queries: share(64, 512),
            relayed: share(8, 16384),
            udp_clients: share(16, 4096),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::dns::MAX_SERVERS;

    #[test]
    fn no_kind_takes_all_descriptors() {
        for descriptors in [256, 1024, 4096, 1 << 20] {
            let limits = Limits::for_descriptors(descriptors);
            let used = limits.tcp_flows
                + limits.udp_flows
                + limits.pings
                + MAX_SERVERS * limits.queries
                + 2 * limits.relayed
                + limits.udp_clients;
            assert!(
                used as u64 <= descriptors * 15 / 16,
                "{descriptors}: {used}"
            );
        }
        assert!(Limits::for_descriptors(1 << 20).tcp_flows >= 10_000);
    }
}
