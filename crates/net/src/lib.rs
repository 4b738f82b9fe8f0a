//! rcon-net.
