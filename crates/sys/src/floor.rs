//! The oldest kernel that rcon runs on, told by its calls: a number says little where a filter
//! answers in the kernel's place.

use std::io;
use std::ptr::null;

/// The calls that nothing can stand in for, with the version of Linux that brought them.
const NEEDED: [(&str, &str, libc::c_long); 8] = [
    ("pidfd_send_signal", "5.1", libc::SYS_pidfd_send_signal),
    ("open_tree", "5.2", libc::SYS_open_tree),
    ("move_mount", "5.2", libc::SYS_move_mount),
    ("fsopen", "5.2", libc::SYS_fsopen),
    ("fsmount", "5.2", libc::SYS_fsmount),
    ("pidfd_open", "5.3", libc::SYS_pidfd_open),
    ("openat2", "5.6", libc::SYS_openat2),
    ("mount_setattr", "5.12", libc::SYS_mount_setattr),
];

/// The version that has them all.
pub const VERSION: &str = "5.12";

/// The first of the calls that is not there.
pub fn missing() -> Option<&'static str> {
    let lacks = |number| {
        // SAFETY: no call does anything with a descriptor of -1, no text and flags that do not
        // exist; the kernel reads nothing of ours.
        let result = unsafe {
            libc::syscall(
                number,
                -1_i64,
                null::<u8>(),
                -1_i64,
                null::<u8>(),
                -1_i64,
                0_i64,
            )
        };
        result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
    };
    let found = NEEDED.iter().find(|(_, _, number)| lacks(*number));
    found.map(|(name, ..)| *name)
}

/// What to do where a call is missing; `None` where none is.
pub fn remedy() -> Option<String> {
    let name = missing()?;
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let new_enough = numbers(&release) >= numbers(VERSION);
    Some(match new_enough {
        true => format!(
            "a system call filter around this process answers that there is no {name}(2), which \
             Linux {release} has: the engine around is older than the call; update it, or start \
             its container with --security-opt seccomp=unconfined"
        ),
        false => format!(
            "this is Linux {release}, which has no {name}(2); rcon needs {VERSION} or later"
        ),
    })
}

/// The first two numbers of a version.
fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_them() {
        assert_eq!(missing(), None);
        assert_eq!(remedy(), None);
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("5.9.1") < numbers(VERSION));
        assert!(numbers("6.1.0-13-amd64") > numbers(VERSION));
        assert_eq!(numbers("5.12-rc1"), numbers(VERSION));
    }
}
