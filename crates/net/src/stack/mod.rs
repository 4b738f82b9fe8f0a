//! The host's side of the network.

/// The hardware address of the gateway, and of all that the container talks to: locally
/// administered, as libslirp's.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];
