//! System call filters: what calls are called and numbered, rules about them, the profile that containers have by default,
//! and the BPF programs that rules come to.
//!
//! The default profile is one table ([`default`]). It is compiled when this crate is built, for the capabilities that
//! containers usually have; [`program`] gives that program for the profile it was made of, and compiles any other. The
//! build script compiles with the modules of this library, so both ways are one compiler.
//!
//! To read in this order: `table` says what is allowed, [`default`] under which conditions, `rules` makes a program of that
//! with `assemble`; `tables` has the numbers. Nothing here loads a filter (`rcon_sys::seccomp` does) or knows of containers.
#![forbid(unsafe_code)]

mod assemble;
pub mod default;
mod rules;
mod table;
mod tables;

use std::borrow::Cow;

pub use assemble::{Assembler, Label, Test, interpret, returns};
pub use rcon_sys::seccomp::{Instruction, MAX_LEN};
pub use rules::{Condition, Entry, Fault, Op, Profile, action, compile};
pub use tables::{Machine, NATIVE};

include!(concat!(env!("OUT_DIR"), "/built.rs"));

/// The program of `profile` on this machine: the one that was built with this crate, where there is one.
///
/// # Errors
/// As [`compile`].
pub fn program(profile: &Profile<'_>) -> Result<Cow<'static, [Instruction]>, Fault> {
    match built(profile) {
        Some(program) => Ok(Cow::Borrowed(program)),
        None => compile(NATIVE, profile).map(Cow::Owned),
    }
}

/// The program that was built of exactly this profile.
pub fn built(profile: &Profile<'_>) -> Option<&'static [Instruction]> {
    // Both begin with the rules of few calls, so profiles that differ do so soon.
    let same = |gates: &[&str]| default::profile(NATIVE, |gate| gates.contains(&gate)) == *profile;
    let found = default::BUILT
        .iter()
        .zip(PROGRAMS)
        .find(|(gates, _)| same(gates));
    found.map(|(_, program)| program)
}

#[cfg(test)]
mod tests;
