//! Resource limits of a container's first process.

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder};
use rustix::process::{Resource, getrlimit};

use crate::parse::{Ulimit, UlimitKind};
use crate::{Context, Error, Options};

/// What a container gets of open files and processes unless something else is said, if the host allows as much.
const DEFAULT: u64 = 1 << 20;

/// The hard limits that rcon itself runs under; without privilege a container cannot have more.
#[derive(Clone, Copy, Debug, Default)]
pub struct HardLimits {
    /// `None`: no bound is known (the super-user, or tests).
    lookup: Option<fn(UlimitKind) -> u64>,
}

impl HardLimits {
    /// The limits of this process.
    pub fn current() -> HardLimits {
        HardLimits {
            lookup: Some(current),
        }
    }

    /// The highest value of one limit; `u64::MAX` is no bound.
    pub fn get(self, kind: UlimitKind) -> u64 {
        self.lookup.map_or(u64::MAX, |lookup| lookup(kind))
    }
}

fn current(kind: UlimitKind) -> u64 {
    let resource = match kind {
        UlimitKind::Core => Resource::Core,
        UlimitKind::Cpu => Resource::Cpu,
        UlimitKind::Data => Resource::Data,
        UlimitKind::Fsize => Resource::Fsize,
        UlimitKind::Locks => Resource::Locks,
        UlimitKind::Memlock => Resource::Memlock,
        UlimitKind::Msgqueue => Resource::Msgqueue,
        UlimitKind::Nice => Resource::Nice,
        UlimitKind::Nofile => Resource::Nofile,
        UlimitKind::Nproc => Resource::Nproc,
        UlimitKind::Rss => Resource::Rss,
        UlimitKind::Rtprio => Resource::Rtprio,
        UlimitKind::Rttime => Resource::Rttime,
        UlimitKind::Sigpending => Resource::Sigpending,
        UlimitKind::Stack => Resource::Stack,
    };
    getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

/// What becomes of an `--oom-score-adj`: only root may ask to be spared more than it is, so of anybody else what it is now
/// is the least, as podman has it.
pub(crate) fn oom_score(wanted: i32) -> i32 {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj");
    let own = own.ok().and_then(|text| text.trim().parse::<i32>().ok());
    match own {
        Some(own) if !rustix::process::geteuid().is_root() => wanted.max(own),
        _ => wanted,
    }
}

/// Lists the limits to set: the user's, and for open files and processes podman's defaults. `host` leaves all as they are.
///
/// "Unlimited" (−1) is as much as the host allows. A definite number beyond that is an error, since it could only fail later
/// or be silently less than was asked for.
pub(crate) fn list(options: &Options, context: &Context) -> Result<Vec<PosixRlimit>, Error> {
    let mut set: Vec<(UlimitKind, u64, u64)> = Vec::new();
    for ulimit in &options.ulimits {
        let (kind, soft, hard) = match *ulimit {
            Ulimit::Host => return Ok(Vec::new()),
            Ulimit::Limit { kind, soft, hard } => (kind, soft, hard),
        };
        let most = context.limits.get(kind);
        let clamp = |value: u64| match value {
            u64::MAX => Ok(most),
            value if value <= most => Ok(value),
            value => Err(Error::with_hint(
                format!(
                    "ulimit {}={value} is more than the {most} that this session may have",
                    kind.name()
                ),
                "raise the hard limit of the session (limits.conf, systemd's Limit…=), or ask for less",
            )),
        };
        let (soft, hard) = (clamp(soft)?, clamp(hard)?);
        set.retain(|(k, ..)| *k != kind);
        set.push((kind, soft, hard));
    }
    for kind in [UlimitKind::Nofile, UlimitKind::Nproc] {
        if set.iter().all(|(k, ..)| *k != kind) {
            let value = DEFAULT.min(context.limits.get(kind));
            set.push((kind, value, value));
        }
    }
    // (The builder has a default for every field and cannot fail.)
    let oci = |(kind, soft, hard): (UlimitKind, u64, u64)| {
        PosixRlimitBuilder::default()
            .typ(kind.oci())
            .soft(soft)
            .hard(hard)
            .build()
            .unwrap_or_default()
    };
    Ok(set.into_iter().map(oci).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn shown(given: &[&str]) -> Result<Vec<String>, Error> {
        let ulimits = given
            .iter()
            .filter_map(|g| parse::ulimit(g).unwrap())
            .collect();
        let fixed = |kind| {
            if kind == UlimitKind::Nofile {
                20000
            } else {
                5000
            }
        };
        let context = Context {
            limits: HardLimits {
                lookup: Some(fixed),
            },
            ..Context::default()
        };
        let list = list(
            &Options {
                ulimits,
                ..Options::default()
            },
            &context,
        )?;
        Ok(list
            .iter()
            .map(|l| format!("{}={}:{}", l.typ(), l.soft(), l.hard()))
            .collect())
    }

    #[test]
    fn defaults_are_clamped() {
        assert_eq!(
            shown(&[]).unwrap(),
            ["RLIMIT_NOFILE=20000:20000", "RLIMIT_NPROC=5000:5000"]
        );
        let free = list(&Options::default(), &Context::default()).unwrap();
        assert_eq!(free[0].hard(), DEFAULT);
    }

    #[test]
    fn the_users_limits() {
        assert!(shown(&["core=0", "host"]).unwrap().is_empty());
        assert_eq!(
            shown(&["nofile=1", "nofile=3:4", "core=-1"]).unwrap(),
            [
                "RLIMIT_NOFILE=3:4",
                "RLIMIT_CORE=5000:5000",
                "RLIMIT_NPROC=5000:5000"
            ]
        );
        let error = shown(&["nofile=1:20001"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ulimit nofile=20001 is more than the 20000 that this session may have"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn the_limits_of_this_process_can_be_read() {
        assert!(HardLimits::current().get(UlimitKind::Nofile) > 0);
    }
}
