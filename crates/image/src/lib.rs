//! rcon-image.
