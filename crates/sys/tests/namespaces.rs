//! User namespaces for real, as whoever runs the tests.
//!
//! Without libtest's harness: forking needs a process with one thread.

use std::os::fd::AsFd;

use rcon_sys::ids::IdMaps;
use rcon_sys::{process, userns};

fn main() {
    let detected = IdMaps::detect();
    println!("maps here: {detected:?}");
    for maps in [detected, IdMaps::single()] {
        if let Err(error) = userns::run(&maps, |_| 0) {
            println!("SKIPPED: no user namespaces here: {error}");
            return;
        }
        works_as_root(&maps);
        panics_and_signals_are_seen(&maps);
        joins_an_existing_namespace(&maps);
    }
    refuses_threads();
    println!("namespaces: all passed");
}

fn works_as_root(maps: &IdMaps) {
    let (status, output) = userns::run(maps, |out| {
        let uid = rustix::process::geteuid().as_raw();
        let text = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        write!(out, "{uid} {}", text.lines().count()).unwrap();
        7
    })
    .unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(
        String::from_utf8(output).unwrap(),
        format!("0 {}", maps.uid.len())
    );
    if !maps.is_single() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("owned");
        std::fs::write(&file, "x").unwrap();
        let (status, _) = userns::run(maps, |_| {
            std::os::unix::fs::chown(&file, Some(33), Some(34)).map_or(1, |()| 0)
        })
        .unwrap();
        assert!(status.success());
        let meta = std::fs::metadata(&file).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!(Some(meta.uid()), maps.to_host_uid(33));
        assert_eq!(Some(meta.gid()), maps.to_host_gid(34));
    }
}

fn panics_and_signals_are_seen(maps: &IdMaps) {
    let (status, _) = userns::run(maps, |_| {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
        0
    })
    .unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(9));
}

fn joins_an_existing_namespace(maps: &IdMaps) {
    // A worker that stays until its own pipe is closed holds the namespace open for the other.
    let (hold, release) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let worker = userns::spawn(maps, |out| {
        out.write_all(b"r").unwrap();
        rustix::io::read(&hold, &mut [0_u8]).map_or(1, |_| 0)
    })
    .unwrap();
    let mut ready = [0];
    rustix::io::read(worker.output(), &mut ready).unwrap();
    let path = format!("/proc/{}/ns/user", worker.pid.as_raw_nonzero());
    let namespace = std::fs::File::open(path).unwrap();
    let (status, output) = userns::run_in(namespace.as_fd(), |out| {
        write!(out, "{}", rustix::process::geteuid().as_raw()).unwrap();
        0
    })
    .unwrap();
    assert!(status.success());
    assert_eq!(output, b"0");
    rustix::io::write(&release, b"x").unwrap();
    let (status, _) = worker.finish().unwrap();
    assert!(status.success());
}

fn refuses_threads() {
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receive.recv().ok());
    assert!(process::fork().is_err());
    drop(send);
    thread.join().unwrap();
}
