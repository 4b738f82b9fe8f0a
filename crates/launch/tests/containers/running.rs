//! Ends, signals, terminals and our own first process.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rcon_launch::{Request, Running, Size, Stdio, create};
use rcon_sys::process::pidfd_send_signal;

use super::{Test, end_of, run};
use crate::common::{Scene, pipes, read_all, spec};

pub const TESTS: &[Test] = &[
    ("exit_codes", exit_codes),
    ("signals", signals),
    ("terminal", terminal),
    ("files_are_passed", files_are_passed),
    ("first_process", first_process),
    ("first_process_with_terminal", first_process_with_terminal),
];

fn exit_codes(scene: &Scene) {
    for init in [false, true] {
        for (script, expected) in [("exit 0", 0), ("exit 42", 42)] {
            let (stdio, reader) = pipes();
            let spec = spec(&["sh", "-c", script]);
            let mut request = scene.request(&spec, stdio);
            request.init = init;
            assert_eq!(run(request, reader).unwrap().0, expected);
        }
    }
}

/// Start a shell that says when it is ready.
fn ready(request: Request<'_>, reader: &OwnedFd) -> Running {
    let running = create(request).unwrap().start().unwrap();
    let mut byte = [0];
    assert_eq!(rustix::io::read(reader, &mut byte).unwrap(), 1);
    running
}

fn signals(scene: &Scene) {
    let caught = spec(&[
        "sh",
        "-c",
        "trap 'exit 7' TERM; echo; while :; do sleep 0.01; done",
    ]);
    for init in [false, true] {
        let (stdio, reader) = pipes();
        let mut request = scene.request(&caught, stdio);
        request.init = init;
        let running = ready(request, &reader);
        pidfd_send_signal(&running.pidfd, libc::SIGTERM).unwrap();
        assert_eq!(end_of(&running), 7, "with our own first process: {init}");
    }
    // Only the kernel's own signals reach a first process that has no handler.
    let plain = spec(&["sh", "-c", "echo; sleep 1000"]);
    let (stdio, reader) = pipes();
    let running = ready(scene.request(&plain, stdio), &reader);
    pidfd_send_signal(&running.pidfd, libc::SIGTERM).unwrap();
    pidfd_send_signal(&running.pidfd, libc::SIGKILL).unwrap();
    assert_eq!(end_of(&running), 128 + libc::SIGKILL);
    // A program behind our first process dies of them as elsewhere.
    let plain = spec(&["sh", "-c", "echo; exec sleep 1000"]);
    let (stdio, reader) = pipes();
    let mut request = scene.request(&plain, stdio);
    request.init = true;
    let running = ready(request, &reader);
    pidfd_send_signal(&running.pidfd, libc::SIGTERM).unwrap();
    assert_eq!(end_of(&running), 128 + libc::SIGTERM);
}

fn terminal(scene: &Scene) {
    let size = Some(Size { rows: 33, cols: 77 });
    let script = "tty; stty size; test -c /dev/console && echo console; \
                  echo $(cut -d' ' -f5,6,7,8 /proc/self/stat); read line; echo got $line";
    let spec = spec(&["sh", "-c", script]);
    let request = scene.request(&spec, Stdio::Terminal { size });
    let mut running = create(request).unwrap().start().unwrap();
    let console = running.console.take().unwrap();
    std::fs::File::from(console.try_clone().unwrap())
        .write_all(b"hello\n")
        .unwrap();
    let text = read_all(console);
    assert_eq!(end_of(&running), 0);
    let lines: Vec<&str> = text.lines().filter(|line| *line != "hello").collect();
    assert_eq!(lines[..3], ["/dev/pts/0", "33 77", "console"], "{text}");
    assert_eq!(lines.last(), Some(&"got hello"), "{text}");
}

fn files_are_passed(scene: &Scene) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let spec = spec(&["sh", "-c", "echo over four >&4; cd /proc/self/fd; echo *"]);
    let (stdio, output) = pipes();
    let mut request = scene.request(&spec, stdio);
    let null = std::fs::File::open("/dev/null").unwrap();
    request.preserve_fds = vec![null.into(), writer];
    request.in_netns = Some(Box::new(|| {
        let (passed, mut other) =
            std::os::unix::net::UnixStream::pair().map_err(|error| error.to_string())?;
        other
            .write_all(b"inside")
            .map_err(|error| error.to_string())?;
        Ok(vec![passed.into(), other.into()])
    }));
    let mut running = create(request).unwrap().start().unwrap();
    assert_eq!(read_all(output), "0 1 2 3 4 5\n");
    assert_eq!(end_of(&running), 0);
    assert_eq!(running.passed.len(), 2);
    let mut passed = std::fs::File::from(running.passed.remove(0));
    let mut text = [0; 6];
    passed.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"inside");
    assert_eq!(read_all(reader), "over four\n");
}

fn first_process(scene: &Scene) {
    let script = "echo $$; tr '\\0' ' ' < /proc/1/cmdline | cut -c1-12; \
                  (sleep 0.01 &); sleep 0.2; set -- /proc/[0-9]*; echo $#";
    for name in ["tr", "cut"] {
        let _ = std::os::unix::fs::symlink("busybox", scene.path("layer/bin").join(name));
    }
    let spec = spec(&["sh", "-c", script]);
    let (stdio, reader) = pipes();
    let mut request = scene.request(&spec, stdio);
    request.init = true;
    let (code, text) = run(request, reader).unwrap();
    // The orphan is gone: the first process and the shell are left.
    assert_eq!((code, text.as_str()), (0, "2\nrcon-init i-\n2\n"));
}

fn first_process_with_terminal(scene: &Scene) {
    let spec = spec(&["sh", "-c", "tty; echo $$"]);
    let mut request = scene.request(&spec, Stdio::Terminal { size: None });
    request.init = true;
    let mut running = create(request).unwrap().start().unwrap();
    let text = read_all(running.console.take().unwrap());
    assert_eq!(
        (end_of(&running), text.as_str()),
        (0, "/dev/pts/0\r\n2\r\n")
    );
    assert!(running.pidfd.as_fd().try_clone_to_owned().is_ok());
}
