//! Containers and images in the shape `podman inspect` gives them.

pub mod container;
pub mod host_config;
pub mod image;
