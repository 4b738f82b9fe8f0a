//! The log of a container: what its program wrote, line by line, in the form Kubernetes uses for its log files
//! (`TIME stdout F text`, `P` for a piece of a line that goes on).

mod codec;
mod journal;
mod lines;
mod reader;
mod writer;

pub(crate) use codec::Encoder;
pub use codec::{LogLine, Stream};
pub(crate) use writer::{Log, aside, path};

/// The file's name in the container's directory.
pub(crate) const FILE: &str = "log";
