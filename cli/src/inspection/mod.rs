//! Containers and images in the shape `podman inspect` gives them.

pub mod container;
pub mod graph_driver;
pub mod host_config;
pub mod image;
