//! Containers for real, as whoever runs the tests, with every kind of id map that this user has.
//!
//! Without libtest's harness: making containers forks, and that needs a process with one thread.
//! An argument is a part of the names of the tests to run.

mod common;
#[path = "containers/errors.rs"]
mod errors;
#[path = "containers/inside.rs"]
mod inside;
#[path = "containers/isolation.rs"]
mod isolation;
#[path = "containers/joining.rs"]
mod joining;
#[path = "containers/running.rs"]
mod running;

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;

use common::{Scene, pipes, read_all};
use oci_spec::runtime::Spec;
use rcon_launch::{Error, Request, Running, create};
use rcon_sys::ids::IdMaps;
use rcon_sys::process;

/// One test.
type Test = (&'static str, fn(&Scene));

fn main() {
    let wanted = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with('-'));
    let mut kinds = vec![IdMaps::detect()];
    if !kinds[0].is_single() {
        kinds.push(IdMaps::single());
    } else {
        println!("SKIPPED: tests with many ids: {:?}", kinds[0].why_single);
    }
    if let Err(error) = rcon_sys::userns::run(&kinds[0], |_| 0) {
        println!("SKIPPED: no user namespaces here: {error}");
        return;
    }
    let all = [
        inside::TESTS,
        isolation::TESTS,
        errors::TESTS,
        running::TESTS,
        joining::TESTS,
    ];
    let mut count = 0;
    for maps in kinds {
        let kind = if maps.is_single() { "single" } else { "many" };
        let Some(scene) = Scene::new(maps) else {
            return;
        };
        for (name, test) in all.iter().flat_map(|tests| tests.iter()) {
            if wanted
                .as_ref()
                .is_none_or(|wanted| name.contains(wanted.as_str()))
            {
                println!("{name} ({kind} id)");
                test(&scene);
                count += 1;
            }
        }
    }
    println!("containers: {count} passed");
}

/// How a container ended: its exit code, or 128 and the signal.
fn end_of(running: &Running) -> i32 {
    let status = process::wait_pidfd(&running.pidfd).expect("its end");
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Run a container to its end: its exit code and its output.
fn run(request: Request<'_>, output: OwnedFd) -> Result<(i32, String), Error> {
    let running = create(request)?.start()?;
    let text = read_all(output);
    Ok((end_of(&running), text))
}

/// Run the program of `spec`; its output, which must come with exit code 0.
fn output(scene: &Scene, spec: &Spec) -> String {
    let (stdio, reader) = pipes();
    let (code, text) = run(scene.request(spec, stdio), reader).expect("a container");
    assert_eq!(code, 0, "{text}");
    text
}

/// What a shell prints in a container of the usual kind.
fn shell(scene: &Scene, script: &str) -> String {
    output(scene, &common::spec(&["sh", "-c", script]))
}

/// Why the program of `spec` cannot be run.
fn failure(scene: &Scene, spec: &Spec, change: impl FnOnce(&mut Request<'_>)) -> Error {
    let (stdio, reader) = pipes();
    let mut request = scene.request(spec, stdio);
    change(&mut request);
    run(request, reader).expect_err("an error")
}
