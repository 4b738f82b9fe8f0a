//! `--device` and `--device-cgroup-rule`.

use super::clean;
use crate::{Device, Error};

/// Reads `SOURCE[:DESTINATION][:ACCESS]`.
///
/// # Errors
/// podman's, for an access that is none; for a device of the Container Device Interface, and what is no path.
pub fn device(text: &str) -> Result<Device, Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let source = parts[0];
    if let Some((kind, name)) = source.split_once('=')
        && !source.starts_with('/')
        && kind.contains('/')
        && !name.is_empty()
    {
        return Err(Error::with_hint(
            format!("rcon does not know devices of the Container Device Interface: {source}"),
            "name the nodes themselves: --device /dev/NAME",
        ));
    }
    let is_access = |word: &str| !word.is_empty() && word.chars().all(|c| "rwm".contains(c));
    let (destination, access) = match parts[1..] {
        [] => (source, "rwm"),
        [access] if is_access(access) => (source, access),
        [destination] if destination.starts_with('/') => (destination, "rwm"),
        [access] => return Err(Error::value(format!("invalid device mode: {access}"))),
        ["", access] if is_access(access) => (source, access),
        [destination, access] if is_access(access) => (destination, access),
        [_, access] => return Err(Error::value(format!("invalid device mode: {access}"))),
        _ => {
            return Err(Error::value(format!(
                "invalid device specification: {text}"
            )));
        }
    };
    if !source.starts_with('/') || !destination.starts_with('/') || text.contains('\0') {
        return Err(Error::value(format!(
            "invalid device specification: {text}: both paths must be absolute"
        )));
    }
    if !access.contains('r') || !access.contains('w') {
        // What may be done with a device is its own affair, not that of its mount; only device cgroups take away a part.
        return Err(Error::with_hint(
            format!("access {access} to {source} cannot be enforced in a user namespace"),
            "give the device wholly (rwm), as its owner and mode on the host allow",
        ));
    }
    Ok(Device {
        source: source.into(),
        destination: clean(destination),
        access: access.to_owned(),
    })
}

/// Looks at a word of `--device-cgroup-rule`, and says no: the kernel takes rules for devices from root only, outside of
/// any user namespace.
///
/// # Errors
/// Always; podman's for what is no rule.
pub fn device_rule(text: &str) -> Result<(), Error> {
    let mut words = text.split_ascii_whitespace();
    let number = |word: &str| word == "*" || word.parse::<u32>().is_ok();
    let is_rule = matches!(words.next(), Some("a" | "b" | "c"))
        && words.next().is_some_and(|pair| {
            pair.split_once(':')
                .is_some_and(|(major, minor)| number(major) && number(minor))
        })
        && words
            .next()
            .is_some_and(|access| access.chars().all(|c| "rwm".contains(c)))
        && words.next().is_none();
    Err(match is_rule {
        false => Error::value(format!(
            "invalid device cgroup rule requires type, major:Minor, and access rules: {text:?}"
        )),
        true => Error::with_hint(
            "device cgroup rules are not supported in rootless mode or in a user namespace",
            "--device gives a container single devices of the host",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let shown = |text| {
            let device = device(text).unwrap();
            let source = device.source.display().to_string();
            format!("{source} {} {}", device.destination, device.access)
        };
        for (text, device) in [
            ("/dev/x", "/dev/x /dev/x rwm"),
            ("/dev/x:rw", "/dev/x /dev/x rw"),
            ("/dev/x:/dev/y/../z", "/dev/x /dev/z rwm"),
            ("/dev/x:/y:rw", "/dev/x /y rw"),
            ("/dev/x::rw", "/dev/x /dev/x rw"),
        ] {
            assert_eq!(shown(text), device);
        }
        for (text, message) in [
            ("/dev/x:y", "invalid device mode: y"),
            (
                "/dev/x:r",
                "access r to /dev/x cannot be enforced in a user namespace",
            ),
            ("/dev/x:/y:z", "invalid device mode: z"),
            (
                "/dev/x:/y:r:w",
                "invalid device specification: /dev/x:/y:r:w",
            ),
            (
                "x",
                "invalid device specification: x: both paths must be absolute",
            ),
            (
                "vendor.com/gpu=all",
                "rcon does not know devices of the Container Device Interface: vendor.com/gpu=all",
            ),
        ] {
            assert_eq!(device(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn rules() {
        for good in ["c 1:3 rwm", "b *:* r", "a 1:* w"] {
            let error = device_rule(good).unwrap_err();
            assert!(error.to_string().contains("not supported"), "{good}");
        }
        for bad in ["", "x 1:3 r", "c 1 r", "c 1:3", "c 1:3 x", "c 1:3 r w"] {
            let error = device_rule(bad).unwrap_err();
            assert!(error.to_string().starts_with("invalid device"), "{bad}");
        }
    }
}
