//! rcon-bundle.
