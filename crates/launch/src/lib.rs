//! rcon-launch.
