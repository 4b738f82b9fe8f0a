//! The fields of a runtime specification about system calls, through `rcon oci`.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::lab::Rcon;
use crate::lab::bundle::Bundle;
use crate::lab::net::accept_local;
use crate::lab::scenario::scenarios;

scenarios!(system_call_filters, decided_by_a_listener);

fn system_call_filters(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let rules = |rules: Value| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"], "syscalls": rules})
    };
    let calls = json!(["mkdir", "mkdirat"]);
    for (action, errno, expected) in [
        ("SCMP_ACT_ERRNO", json!(28), "No space left"),
        ("SCMP_ACT_ERRNO", Value::Null, "not permitted"),
        ("SCMP_ACT_KILL_PROCESS", Value::Null, "Bad system call"),
        ("SCMP_ACT_KILL", Value::Null, "Bad system call"),
        ("SCMP_ACT_KILL_THREAD", Value::Null, "Bad system call"),
        ("SCMP_ACT_TRAP", Value::Null, "Bad system call"),
        ("SCMP_ACT_TRACE", json!(5), "not implemented"),
        ("SCMP_ACT_LOG", Value::Null, "made"),
        ("SCMP_ACT_ALLOW", Value::Null, "made"),
    ] {
        let mut rule = json!({"names": calls, "action": action});
        if !errno.is_null() {
            rule["errnoRet"] = errno;
        }
        b.set("/linux/seccomp", rules(json!([rule])));
        b.script("mkdir /tmp/d 2>&1 && echo made && rmdir /tmp/d; echo Seccomp $(grep -c 'Seccomp:.*2' /proc/self/status)");
        let out = b.run(t);
        let all = out.stdout.clone() + &out.stderr;
        assert!(all.contains(expected), "{action}\n{}", out.story());
        assert!(all.contains("Seccomp 1"), "{}", out.story());
    }
    // kill(pid, signal): by each comparison of its second argument.
    for (op, value, two, hit, miss) in [
        ("SCMP_CMP_EQ", 10, 0, 10, 12),
        ("SCMP_CMP_NE", 10, 0, 12, 10),
        ("SCMP_CMP_LT", 11, 0, 10, 11),
        ("SCMP_CMP_LE", 10, 0, 10, 11),
        ("SCMP_CMP_GT", 10, 0, 12, 10),
        ("SCMP_CMP_GE", 12, 0, 12, 10),
        ("SCMP_CMP_MASKED_EQ", 2, 2, 10, 17),
    ] {
        let args = json!([{"index": 1, "value": value, "valueTwo": two, "op": op}]);
        b.set("/linux/seccomp", rules(json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": args}])));
        let script = format!(
            "trap '' 10 12 17; kill -{hit} $$ 2>/dev/null || echo denied; kill -{miss} $$ && echo passed"
        );
        assert_eq!(b.sh(t, &script), "denied\npassed", "{op}");
    }
    // By default nothing passes but what is named; what no architecture knows is passed over.
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    assert_ne!(b.script("echo ran").run(t).code, 0);
    // All but mkdir is named; the rest is refused for the reason that is said.
    let known = rcon_filter::default::profile(rcon_filter::NATIVE, |_| true);
    let all = known.entries.iter().flat_map(|entry| &entry.names);
    let all: Vec<&&str> = all.filter(|name| !name.starts_with("mkdir")).collect();
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 28,
            "syscalls": [{"names": all, "action": "SCMP_ACT_ALLOW"}]}),
    );
    b.script("mkdir /tmp/d")
        .run(t)
        .code(1)
        .says("No space left");
    b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NONE"}));
    b.run(t).code(1).says("SCMP_ACT_NONE");
}

fn decided_by_a_listener(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let path = b.dir.join("socket");
    let notify = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]);
    b.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": notify}),
    );
    b.run(t).code(1).says("no listenerPath");
    b.set("/linux/seccomp/listenerPath", json!(path))
        .set("/linux/seccomp/listenerMetadata", json!("about"));
    b.script("mkdir /tmp/d; echo done");
    b.run(t)
        .code(1)
        .says("cannot connect to the seccomp listener");
    let listener = UnixListener::bind(&path).unwrap();
    chown(&path, Some(t.user.uid), Some(t.user.gid)).unwrap();
    b.write();
    b.oci(t, &["create", "c"]).code(0);
    let pid = b.state(t)["pid"].clone();
    b.oci(t, &["start", "c"]).code(0);
    let stream = accept_local(&listener);
    let mut data = vec![0; 64 * 1024];
    let (length, fds) = rcon_sys::fdpass::recv_fds(&stream, &mut data).unwrap();
    let told: Value = serde_json::from_slice(&data[..length]).unwrap();
    assert_eq!(told["fds"], json!(["seccompFd"]));
    assert_eq!((&told["pid"], &told["metadata"]), (&pid, &json!("about")));
    assert_eq!(
        (&told["state"]["id"], &told["state"]["pid"]),
        (&json!("c"), &pid)
    );
    let name = fs::read_link(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&fds[0])
    ))
    .unwrap();
    assert!(
        name.to_str().unwrap().contains("seccomp notify"),
        "{name:?}"
    );
    // Nobody answers any more: the call is one that does not exist.
    drop(fds);
    crate::lab::eventually("the program ends", 20, || {
        (b.state(t)["status"] == "stopped").then_some(())
    });
    assert!(!b.dir.join("rootfs/tmp/d").exists());
    b.oci(t, &["delete", "c"]).code(0);
    b.set("/linux/seccomp/defaultAction", json!("SCMP_ACT_ERRNO"))
        .run(t)
        .code(1)
        .says("sendmsg");
}
