//! Published ports: how they are written, bound and carried into the container.

pub(crate) mod bind;
mod holder;
pub(crate) mod parse;
