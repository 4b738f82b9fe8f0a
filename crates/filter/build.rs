//! Compiles the default profile to BPF, with the very modules that the library compiles others with.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

// What the modules get from rcon-sys in the library. It need not be built for this.
/// The longest filter.
pub const MAX_LEN: usize = 4096;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

#[allow(dead_code)]
#[path = "src/assemble.rs"]
mod assemble;
#[allow(dead_code)]
#[path = "src/default.rs"]
mod default;
#[allow(dead_code)]
#[path = "src/rules.rs"]
mod rules;
#[path = "src/table.rs"]
mod table;
#[allow(dead_code)]
#[path = "src/tables/mod.rs"]
mod tables;

use tables::Machine;

fn main() {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let architecture = variable("CARGO_CFG_TARGET_ARCH");
    let machine = match architecture.as_str() {
        "x86_64" => Machine::X86_64,
        "aarch64" => Machine::Aarch64,
        other => panic!("there are no tables of system calls for {other}"),
    };
    let mut text = String::new();
    for (number, gates) in default::BUILT.iter().enumerate() {
        let profile = default::profile(machine, |gate| gates.contains(&gate));
        let program = rules::compile(machine, &profile).expect("the default profile compiles");
        let _ = writeln!(
            text,
            "static BUILT_{number}: [Instruction; {}] = [",
            program.len()
        );
        for Instruction { code, jt, jf, k } in program {
            let _ = writeln!(
                text,
                "    Instruction {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},"
            );
        }
        text += "];\n";
    }
    let names: Vec<String> = (0..default::BUILT.len())
        .map(|number| format!("&BUILT_{number}"))
        .collect();
    let _ = writeln!(
        text,
        "static PROGRAMS: [&[Instruction]; {}] = [{}];",
        names.len(),
        names.join(", ")
    );
    let path = PathBuf::from(variable("OUT_DIR")).join("built.rs");
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
