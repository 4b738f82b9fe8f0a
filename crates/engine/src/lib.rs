//! rcon-engine.
