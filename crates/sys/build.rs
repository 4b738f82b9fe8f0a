//! Builds the tiny program in `stub/`, which the library carries as bytes.
//!
//! It is compiled by the compiler that builds this crate, for the same target, as a program
//! without libraries; no tool is needed that building rcon does not need anyway.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=stub/main.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("stub");
    let mut arguments: Vec<OsString> = [
        "--edition=2024",
        "--crate-name=rcon_stub",
        "--crate-type=bin",
        "-Copt-level=s",
        "-Cpanic=abort",
        "-Cstrip=symbols",
        "-Coverflow-checks=off",
        "-Cdebug-assertions=off",
        "-Crelocation-model=static",
        "-Ctarget-feature=+crt-static",
        "-Clinker-flavor=gcc",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-nostartfiles",
        "-Clink-arg=-static",
        "-Clink-arg=-Wl,-n,--build-id=none,-z,noexecstack,-z,norelro",
    ]
    .into_iter()
    .map(OsString::from)
    .collect();
    arguments.extend(["--target".into(), variable("TARGET")]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        arguments.push(option);
    }
    arguments.extend(["-o".into(), output.into_os_string(), "stub/main.rs".into()]);
    let status = Command::new(variable("RUSTC"))
        .args(arguments)
        .status()
        .unwrap_or_else(|error| panic!("cannot run the compiler: {error}"));
    assert!(status.success(), "the program in stub/ does not build");
}
