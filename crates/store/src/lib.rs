//! rcon-store.
