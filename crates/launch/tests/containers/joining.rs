//! Further programs in a running container.

use std::os::unix::process::ExitStatusExt;

use oci_spec::runtime::{Process, Spec};
use rcon_launch::{Error, ExecRequest, Running, Size, Stdio, Target, create, exec};
use rcon_sys::process;

use super::{Test, end_of};
use crate::common::{self, Scene, exec_request, pipes, read_all, spec};

pub const TESTS: &[Test] = &[
    ("exec_is_inside", exec_is_inside),
    ("exec_users", exec_users),
    ("exec_terminal", exec_terminal),
    ("exec_errors", exec_errors),
    (
        "exec_beside_our_first_process",
        exec_beside_our_first_process,
    ),
];

fn start(scene: &Scene, init: bool) -> (Spec, Running, Target) {
    let spec = spec(&["sleep", "1000"]);
    let (stdio, _) = pipes();
    let mut request = scene.request(&spec, stdio);
    request.init = init;
    let running = create(request).unwrap().start().unwrap();
    let target = Target {
        pid: running.pid,
        pidfd: running.pidfd.try_clone().unwrap(),
    };
    (spec, running, target)
}

fn stop(running: &Running) {
    process::pidfd_send_signal(&running.pidfd, libc::SIGKILL).unwrap();
    assert_eq!(end_of(running), 128 + libc::SIGKILL);
}

fn in_it(
    target: &Target,
    spec: &Spec,
    process: &Process,
    change: impl FnOnce(&mut ExecRequest<'_>),
) -> Result<(i32, String), Error> {
    let (stdio, reader) = pipes();
    let mut request = exec_request(spec, process, stdio);
    change(&mut request);
    let child = exec(target, request)?;
    let text = read_all(reader);
    let status = process::wait_pidfd(&child.pidfd).unwrap();
    Ok((
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap()),
        text,
    ))
}

fn exec_is_inside(scene: &Scene) {
    let (spec, running, target) = start(scene, false);
    let script = "hostname; cat /proc/1/comm; pwd; echo $HOME; cd /proc/self/fd; echo *; \
                  cat /proc/self/status";
    let mut wanted = common::process(&["sh", "-c", script]);
    wanted.set_cwd("/etc".into());
    let (code, text) = in_it(&target, &spec, &wanted, |_| {}).unwrap();
    assert_eq!(code, 0);
    assert!(
        text.starts_with("box\nsleep\n/etc\n/root\n0 1 2 3\n"),
        "{text}"
    );
    for line in [
        "CapEff:\t00000000800405fb",
        "CapBnd:\t00000000800405fb",
        "CapInh:\t0000000000000000",
        "Seccomp:\t2",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let name = format!("/proc/self/ns/{kind}");
        let wanted = common::process(&["readlink", &name]);
        let (_, text) = in_it(&target, &spec, &wanted, |_| {}).unwrap();
        let path = format!("/proc/{}/ns/{kind}", target.pid.as_raw_nonzero());
        let expected = std::fs::read_link(path).unwrap();
        assert_eq!(text.trim(), expected.to_str().unwrap());
    }
    let exits = common::process(&["sh", "-c", "kill -TERM $$"]);
    assert_eq!(
        in_it(&target, &spec, &exits, |_| {}).unwrap().0,
        128 + libc::SIGTERM
    );
    let open = common::process(&["sh", "-c", "cat /proc/self/status"]);
    let (_, text) = in_it(&target, &spec, &open, |request| request.seccomp = false).unwrap();
    assert!(text.contains("Seccomp:\t0"), "{text}");
    stop(&running);
}

fn exec_users(scene: &Scene) {
    let (spec, running, target) = start(scene, false);
    let wanted = common::process(&["id"]);
    if scene.maps.is_single() {
        let (_, text) = in_it(&target, &spec, &wanted, |_| {}).unwrap();
        assert!(text.starts_with("uid=0(root) gid=0(root)"), "{text}");
    } else {
        let as_web = |request: &mut ExecRequest<'_>| request.user = Some("web".to_owned());
        let (_, text) = in_it(&target, &spec, &wanted, as_web).unwrap();
        assert_eq!(text, "uid=33(web) gid=34(web) groups=4(log),34(web)\n");
    }
    stop(&running);
}

fn exec_terminal(scene: &Scene) {
    let (spec, running, target) = start(scene, false);
    let wanted = common::process(&["sh", "-c", "tty; stty size; exec 3</dev/tty && echo own"]);
    let size = Some(Size { rows: 5, cols: 9 });
    for number in 0..2 {
        let stdio = Stdio::Terminal { size };
        let child = exec(&target, exec_request(&spec, &wanted, stdio)).unwrap();
        let text = read_all(child.console.unwrap());
        assert!(process::wait_pidfd(&child.pidfd).unwrap().success());
        assert_eq!(text, "/dev/pts/0\r\n5 9\r\nown\r\n", "round {number}");
    }
    stop(&running);
}

fn exec_errors(scene: &Scene) {
    let (spec, running, target) = start(scene, false);
    let fails = |words: &[&str]| {
        let wanted = common::process(words);
        in_it(&target, &spec, &wanted, |_| {}).unwrap_err()
    };
    assert_eq!(fails(&["ghost"]), Error::NotFound("ghost".to_owned()));
    assert_eq!(fails(&["/etc/text"]).exit_code(), 126);
    assert_eq!(fails(&["nothing"]).exit_code(), 126);
    let mut wanted = common::process(&["true"]);
    wanted.set_cwd("/not/there".into());
    let error = in_it(&target, &spec, &wanted, |_| {}).unwrap_err();
    assert_eq!(error, Error::NoWorkdir("/not/there".to_owned()));
    let wanted = common::process(&["true"]);
    let ghost = |request: &mut ExecRequest<'_>| request.user = Some("ghost".to_owned());
    let error = in_it(&target, &spec, &wanted, ghost).unwrap_err();
    assert_eq!(error, Error::NoUser("ghost".to_owned()));
    stop(&running);
    let error = in_it(&target, &spec, &wanted, |_| {}).unwrap_err();
    assert_eq!(error, Error::Died("it is not running".to_owned()));
}

fn exec_beside_our_first_process(scene: &Scene) {
    let (spec, running, target) = start(scene, true);
    let wanted = common::process(&["sh", "-c", "readlink /proc/1/exe; cat /proc/1/comm"]);
    let (code, text) = in_it(&target, &spec, &wanted, |_| {}).unwrap();
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("rcon-stub") && text.ends_with("\nrcon-init\n"),
        "{text}"
    );
    stop(&running);
}
