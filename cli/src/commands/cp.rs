//! `rcon cp`

use clap::Args;
use rcon_engine::{CopyEnd, CopyRequest, Error};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::usage::{arity, parse_bool};

/// The arguments of `cp`.
#[derive(Args, Debug)]
pub struct Cp {
    /// Chown copied files to the primary uid/gid of the destination container (default true)
    #[arg(short = 'a', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    archive: Option<bool>,
    /// Allow to overwrite directories with non-directories and vice versa
    #[arg(long)]
    overwrite: bool,
    args: Vec<String>,
}

impl Command for Cp {
    const ABOUT: &'static str =
        "Copy files or folders between a container and the local filesystem";
    const USAGE: &'static str = "[options] [CONTAINER:]SRC_PATH [CONTAINER:]DEST_PATH";
    const EXAMPLES: &'static [&'static str] = &[
        "cp ctr:/etc/hosts .",
        "cp ./conf.d/. ctr:/etc/app",
        "cp ctr:/var/log - | tar -tf -",
        "cp a:/data b:/",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 2, 2)?;
        let [from, to] = [0, 1].map(|n| end(&self.args[n]));
        for (end, other) in [(&from, &to), (&to, &from)] {
            if !matches!(end, CopyEnd::In { .. }) && !matches!(other, CopyEnd::In { .. }) {
                return Err(Failure::new("you must specify at least one container")
                    .hint("name a path in a container as CONTAINER:PATH"));
            }
            if let CopyEnd::In { container, path } = end
                && (container.is_empty() || path.is_empty())
            {
                return Err(Failure::new(match container.is_empty() {
                    true => "name or ID cannot be empty",
                    false => "the path in the container cannot be empty",
                }));
            }
        }
        let request = CopyRequest {
            archive: self.archive.unwrap_or(true),
            overwrite: self.overwrite,
        };
        match context.engine()?.copy(&from, &to, &request) {
            Ok(()) => Ok(0),
            Err(Error::NoSuchContainer(name)) => {
                Err(Failure::new(format!("container {name:?} does not exist")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// `CONTAINER:PATH`, a path here (one that begins with `/` or `.` is always that), or `-`.
fn end(word: &str) -> CopyEnd {
    if word == "-" {
        return CopyEnd::Stream;
    }
    match word.split_once(':') {
        Some((container, path)) if !word.starts_with(['/', '.']) => CopyEnd::In {
            container: container.into(),
            path: path.into(),
        },
        _ => CopyEnd::Here(word.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert!(matches!(end("-"), CopyEnd::Stream));
        assert!(
            matches!(end("c:/a:b"), CopyEnd::In { container, path } if container == "c" && path == "/a:b")
        );
        for here in ["x", "./c:x", "/c:x", "../y"] {
            assert!(matches!(end(here), CopyEnd::Here(_)), "{here}");
        }
    }
}
