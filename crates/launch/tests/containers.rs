//! Containers for real, as whoever runs the tests, with every kind of id map that this user has.
//!
//! Without libtest's harness: making containers forks, and that needs a process with one thread.

mod common;

fn main() {}
