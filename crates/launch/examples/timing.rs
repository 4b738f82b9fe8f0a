//! How long a container takes: `timing [ROUNDS]`, medians in milliseconds.
//!
//! One line for creating and starting, one until the program's end is seen, one for a bare clone
//! with the same namespaces for comparison.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use rcon_launch::{Target, create, exec};
use rcon_sys::ids::IdMaps;
use rcon_sys::process::{self, Fork};

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(50);
    let Some(scene) = common::Scene::new(IdMaps::detect()) else {
        return;
    };
    let spec = common::spec(&["/bin/true"]);
    let milliseconds = |start: Instant| start.elapsed().as_secs_f64() * 1000.0;
    let (mut created, mut started, mut ended, mut bare) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        let (stdio, _output) = common::pipes();
        let request = scene.request(&spec, stdio);
        let start = Instant::now();
        let container = create(request).expect("created");
        created.push(milliseconds(start));
        let running = container.start().expect("started");
        started.push(milliseconds(start));
        process::wait_pidfd(&running.pidfd).expect("ended");
        ended.push(milliseconds(start));
        let start = Instant::now();
        match process::clone(nix::sched::CloneFlags::from_bits_retain(0x7e02_0000)).expect("cloned")
        {
            Fork::Child => process::exit_now(0),
            Fork::Parent { pidfd, .. } => process::wait_pidfd(&pidfd).expect("ended"),
        };
        bare.push(milliseconds(start));
    }
    let sleeper = common::spec(&["/bin/sleep", "1000"]);
    let (stdio, _output) = common::pipes();
    let running = create(scene.request(&sleeper, stdio))
        .and_then(|made| made.start())
        .expect("runs");
    let target = Target {
        pid: running.pid,
        pidfd: running.pidfd,
    };
    let (mut executed, mut finished) = (vec![], vec![]);
    for _ in 0..rounds {
        let (stdio, _output) = common::pipes();
        let start = Instant::now();
        let child = exec(
            &target,
            common::exec_request(&sleeper, &common::process(&["/bin/true"]), stdio),
        )
        .expect("executed");
        executed.push(milliseconds(start));
        process::wait_pidfd(&child.pidfd).expect("ended");
        finished.push(milliseconds(start));
    }
    process::pidfd_send_signal(&target.pidfd, libc::SIGKILL).expect("killed");
    process::wait_pidfd(&target.pidfd).expect("ended");
    for (name, mut times) in [
        ("created", created),
        ("started", started),
        ("ended", ended),
        ("bare clone and exit", bare),
        ("exec: executed", executed),
        ("exec: ended", finished),
    ] {
        times.sort_by(f64::total_cmp);
        println!(
            "{name:20} median {:6.2}  least {:6.2}",
            times[times.len() / 2],
            times[0]
        );
    }
}
