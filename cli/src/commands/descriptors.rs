//! Open files that a program in a container gets from us: `--preserve-fds`, `--preserve-fd`, and the sockets of systemd's
//! socket activation (sd_listen_fds(3)).

use rcon_engine::{Inherit, is_inherited};

use crate::failure::Failure;

/// Which of our files the program gets; with `activation` also the sockets we were given to hand on.
///
/// # Errors
/// For a number that no open file has.
pub fn inherit(count: u32, list: &[String], activation: bool) -> Result<Inherit, Failure> {
    if count > 0 && !list.is_empty() {
        return Err(Failure::new(
            "--preserve-fds and --preserve-fd cannot be used together",
        ));
    }
    let sockets = if activation { sockets() } else { 0 };
    let mut wanted: Vec<i32> = Vec::new();
    let mut add = |number: i64| match i32::try_from(number) {
        Ok(open) if is_inherited(open) => {
            wanted.push(open);
            Ok(())
        }
        _ => Err(Failure::new(format!(
            "file descriptor {number} is not available - the preserve-fds option requires that file descriptors must be passed"
        ))),
    };
    // The sockets come first. One by one: the numbers are whatever somebody wrote.
    for number in 3..3 + i64::from(sockets) + i64::from(count) {
        add(number)?;
    }
    for word in list {
        let number = word.parse::<i32>().ok().filter(|number| *number > 2);
        let number = number.ok_or_else(|| {
            Failure::new(format!(
                "invalid file descriptor {word:?} in --preserve-fd: it must be a number above 2"
            ))
        })?;
        add(number.into())?;
    }
    let last = wanted.iter().copied().max().unwrap_or(2);
    Ok(Inherit {
        files: (3..=last)
            .map(|number| wanted.contains(&number).then_some(number))
            .collect(),
        listen: sockets as usize,
        listen_names: std::env::var("LISTEN_FDNAMES").ok().filter(|_| sockets > 0),
    })
}

/// How many sockets we were given, if they are for this process.
fn sockets() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_open_is_refused() {
        assert_eq!(inherit(0, &[], false).unwrap(), Inherit::default());
        let message = |count, list: &[&str]| {
            let list: Vec<String> = list.iter().map(|w| (*w).to_owned()).collect();
            inherit(count, &list, false).unwrap_err().message
        };
        assert!(message(0, &["9999"]).starts_with("file descriptor 9999 is not available"));
        assert!(message(0, &["2"]).contains("above 2"));
        assert!(message(1, &["3"]).contains("together"));
        assert!(message(u32::MAX, &[]).contains("is not available"));
    }
}
