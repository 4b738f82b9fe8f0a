//! Limits as they are written on the command line.

use super::DeviceRate;
use crate::{Error, parse};

/// Reads `--memory` and its like. `what` is named in the message.
///
/// # Errors
/// podman's `invalid value for WHAT: …`.
pub fn memory(what: &str, text: &str) -> Result<i64, Error> {
    let bytes = parse::bytes(text)
        .map_err(|error| Error::value(format!("invalid value for {what}: {error}")))?;
    Ok(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// Reads `--memory-swap`, which may be −1.
///
/// # Errors
/// As [`memory`].
pub fn memory_swap(text: &str) -> Result<i64, Error> {
    match text {
        "-1" => Ok(-1),
        text => memory("memory-swap", text),
    }
}

/// Reads `--cpus`; the result is in billionths.
///
/// # Errors
/// For what is no number of processors.
pub fn cpus(text: &str) -> Result<u64, Error> {
    let bad = || {
        Error::value(format!(
            "invalid argument {text:?} for \"--cpus\" flag: not a number of processors"
        ))
    };
    let digits = |b: u8| b.is_ascii_digit() || b == b'.';
    let value: f64 = match text.bytes().all(digits) {
        true => text.parse().map_err(|_| bad())?,
        false => return Err(bad()),
    };
    if value > 1e6 {
        return Err(bad());
    }
    Ok((value * 1e9).round() as u64)
}

/// Reads `PATH:RATE`, the rate with a unit of bytes.
///
/// # Errors
/// In podman's words.
pub fn bytes_a_second(text: &str) -> Result<DeviceRate, Error> {
    let (path, rate) = device(text)?;
    let rate = parse::bytes(rate).map_err(|_| {
        Error::value(format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ))
    })?;
    Ok(DeviceRate { path, rate })
}

/// Reads `PATH:RATE`, the rate in operations.
///
/// # Errors
/// In podman's words.
pub fn operations_a_second(text: &str) -> Result<DeviceRate, Error> {
    let (path, rate) = device(text)?;
    let rate = rate.parse().map_err(|_| {
        Error::value(format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer"
        ))
    })?;
    Ok(DeviceRate { path, rate })
}

/// Reads `PATH:WEIGHT`.
///
/// # Errors
/// In podman's words.
pub fn device_weight(text: &str) -> Result<DeviceRate, Error> {
    let (path, weight) = device(text)?;
    match weight.parse() {
        Ok(rate) if rate == 0 || (10..=1000).contains(&rate) => Ok(DeviceRate { path, rate }),
        _ => Err(Error::value(format!("invalid weight for device: {text}"))),
    }
}

fn device(text: &str) -> Result<(String, &str), Error> {
    let (path, rest) = text
        .split_once(':')
        .ok_or_else(|| Error::value(format!("bad format: {text}")))?;
    match path.starts_with("/dev/") {
        true => Ok((path.to_owned(), rest)),
        false => Err(Error::value(format!("bad format for device path: {text}"))),
    }
}

/// Reads `--cgroup-conf`, `FILE=VALUE`.
///
/// # Errors
/// For what has no `=`, and names that are no files of a cgroup.
pub fn cgroup_setting(text: &str) -> Result<(String, String), Error> {
    match text.split_once('=') {
        Some((file, value)) if file.contains('.') && !file.contains('/') => {
            Ok((file.to_owned(), value.to_owned()))
        }
        _ => Err(Error::value(format!(
            "invalid --cgroup-conf {text:?}: it must be FILE=VALUE"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(cpus("2").unwrap(), 2_000_000_000);
        assert_eq!(memory_swap("-1").unwrap(), -1);
        assert_eq!(
            memory("memory", "x").unwrap_err().to_string(),
            "invalid value for memory: invalid size: 'x'"
        );
        for bad in ["", "x", "-1", "inf", "1e3", "."] {
            assert!(cpus(bad).is_err(), "{bad:?}");
        }
        assert_eq!(bytes_a_second("/dev/sda:1mb").unwrap().rate, 1 << 20);
        assert_eq!(operations_a_second("/dev/sda:10").unwrap().rate, 10);
        assert_eq!(device_weight("/dev/sda:10").unwrap().rate, 10);
        for bad in ["/dev/sda", "sda:5", "/dev/sda:x", "/dev/sda:-1"] {
            assert!(
                bytes_a_second(bad).is_err() && operations_a_second(bad).is_err(),
                "{bad}"
            );
            assert!(device_weight(bad).is_err(), "{bad}");
        }
        assert!(cgroup_setting("a").is_err() && cgroup_setting("../x.y=1").is_err());
    }
}
