//! What is begun before the command line is read.
//!
//! Reading the words of `run` takes as long as the kernel needs to make a namespace. So that is begun beside it, where a
//! glance says that the words are those of a container with namespaces of its own. The glance may be wrong: what was begun
//! is then not used, and only time is lost.

use std::ffi::OsString;

use rcon_engine::{Early, trace};

/// Options of `run` after which the usual namespaces are not wanted, or no container at all.
const OTHERS: [&str; 10] = [
    "--cgroupns",
    "--gidmap",
    "--help",
    "--ipc",
    "--pid",
    "--subgidname",
    "--subuidname",
    "--uidmap",
    "--userns",
    "--uts",
];

/// Begins it, if `words`, which follow the program's name, look as if it would be of use.
pub fn begin(words: &[OsString]) -> Option<Early> {
    let words: Vec<&str> = words.iter().map_while(|word| word.to_str()).collect();
    let (log, words) = match words[..] {
        ["--log-level", _, ref words @ ..] => (true, words),
        ref words => (false, words),
    };
    let words = match words {
        ["run", words @ ..] | ["container", "run", words @ ..] => words,
        _ => return None,
    };
    if !are_usual(words) {
        return None;
    }
    if log {
        trace::enable();
        trace::mark("begun");
    }
    Early::begin()
}

/// Whether there is none among the words of `run` that asks for other namespaces. What is the container's own may be
/// taken for it.
fn are_usual(words: &[&str]) -> bool {
    let mut next = words.iter().skip(1);
    words.iter().all(|word| {
        let following = next.next().copied().unwrap_or_default();
        let (name, value) = word.split_once('=').unwrap_or((word, following));
        match name {
            "--network" | "--net" => {
                !["host", "container", "ns"].contains(&value.split(':').next().unwrap_or_default())
            }
            name => !OTHERS.contains(&name),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_other_namespaces_is_seen() {
        for usual in [
            "--rm alpine true",
            "-d -p 8080:80 --network slirp4netns:mtu=1500 nginx",
            "--net=none alpine",
            "",
        ] {
            assert!(are_usual(&usual.split(' ').collect::<Vec<_>>()), "{usual}");
        }
        for other in [
            "--network host alpine",
            "--net=container:web alpine",
            "--network=ns:/run/x alpine",
            "--userns keep-id alpine",
            "--cgroupns=host alpine",
            "--uidmap=0:0:1 alpine",
            "--help",
        ] {
            assert!(!are_usual(&other.split(' ').collect::<Vec<_>>()), "{other}");
        }
    }
}
