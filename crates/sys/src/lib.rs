//! rcon-sys.
