//! The same bundles through `rcon oci`, crun and runc, as the same user: what the programs in them see, how they end, and
//! what the commands say by their codes must be the same. Where a peer is known to differ, `peers/differences.txt` has the
//! line and the reason; a difference that is listed must be there. Commands one after the other are in `peers_lives`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::{Value, json};

use crate::lab::Rcon;
use crate::lab::scenario::scenarios;

mod known;
pub mod table;
pub mod view;

use table::with_tables;

scenarios!(
    what_a_program_sees,
    users_and_capabilities,
    namespaces,
    files_and_mounts,
    filters,
    ends,
    refusals,
);

/// What of /proc/self has a shape to compare: nothing that is another each time. Whether signals are ignored is the
/// caller's affair.
const SELF: &str = "grep -E '^(Umask|Uid|Gid|Groups|NSpid|NSsid|SigBlk|SigCgt|Cap|NoNew|Seccomp|Cpus_allowed_list)' /proc/self/status; \
    cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj; sed 's/^/mount /' /proc/self/mountinfo";

fn what_a_program_sees(t: &mut Rcon) {
    with_tables(t, |table| {
        table.case("plain", |b| {
            b.script(&format!(
                "{SELF}; env | sort; id; pwd; hostname; ls -l /dev/null /dev/zero /dev/tty /dev/fd /dev/stdin /dev/ptmx | \
                 sed 's/ [A-Z][a-z][a-z] .*[0-9] / /'; ls /dev /dev/pts /dev/shm | grep -v core; \
                 for f in /proc/self/fd/*; do test -e $f && echo ${{f##*/}}; done"
            ));
        });
        table.case("limits of the process", |b| {
            b.set(
                "/process/rlimits",
                json!([
                    {"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88},
                    {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                    {"type": "RLIMIT_FSIZE", "soft": 10_000_000, "hard": u64::MAX},
                ]),
            );
            b.set("/process/oomScoreAdj", json!(500));
            b.script(SELF);
        });
        table.case("surroundings", |b| {
            b.set("/process/cwd", json!("/not/there/yet"));
            b.set("/process/env", json!(["PATH=/bin", "A=b c", "A=d", "E="]));
            b.set("/process/noNewPrivileges", json!(false));
            b.script("pwd; env | sort; stat -c '%a %u:%g' . ..; grep NoNew /proc/self/status");
        });
        table.case("names", |b| {
            b.set("/domainname", json!("some.domain"));
            b.script("hostname; cat /proc/sys/kernel/domainname");
        });
        table.case("personality", |b| {
            b.set("/linux/personality", json!({"domain": "LINUX32"}));
            b.script("uname -m");
        });
        table.case("sysctl", |b| {
            let values = json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "4000"});
            b.set("/linux/sysctl", values);
            b.script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni");
        });
    });
}

fn users_and_capabilities(t: &mut Rcon) {
    let sets = |names: [&[&str]; 5]| {
        let kinds = [
            "bounding",
            "permitted",
            "effective",
            "inheritable",
            "ambient",
        ];
        let pairs = kinds
            .iter()
            .zip(names)
            .map(|(kind, names)| ((*kind).to_owned(), json!(names)));
        Value::Object(pairs.collect())
    };
    let some = ["CAP_CHOWN", "CAP_KILL"];
    let one = ["CAP_KILL"];
    let show = "grep -E 'Cap|Groups' /proc/self/status; id -u; id -g; id -G; cat /proc/self/uid_map | tr -s ' '";
    with_tables(t, |table| {
        table.case("no capabilities", |b| {
            b.set("/process/capabilities", Value::Null).script(show);
        });
        table.case("five sets", |b| {
            b.set(
                "/process/capabilities",
                sets([&some, &some, &one, &one, &one]),
            )
            .script(show);
        });
        table.case("a bounding set alone", |b| {
            b.set("/process/capabilities", sets([&some, &[], &[], &[], &[]]))
                .script(show);
        });
        table.case("an unknown capability", |b| {
            let more = ["CAP_KILL", "CAP_OF_TOMORROW"];
            b.set(
                "/process/capabilities",
                sets([&more, &more, &more, &[], &[]]),
            )
            .script(show);
        });
        if table.root {
            table.case("another user", |b| {
                b.set(
                    "/process/user",
                    json!({"uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o27}),
                );
                b.set(
                    "/process/capabilities",
                    sets([&some, &some, &some, &one, &one]),
                );
                b.script(&format!("{show}; umask"));
            });
            table.case("a user namespace", |b| {
                b.own_users().set(
                    "/process/user",
                    json!({"uid": 7, "gid": 8, "additionalGids": [9]}),
                );
                b.script(&format!("{show}; cat /proc/self/setgroups; {SELF}"));
            });
        }
    });
}

fn namespaces(t: &mut Rcon) {
    let show = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; ls -d /proc/1; hostname";
    with_tables(t, |table| {
        for left_out in ["", "cgroup", "ipc", "network", "uts", "pid"] {
            table.case(&format!("namespaces without {left_out:?}"), |b| {
                let namespaces = b.spec["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|one| one["type"] != left_out);
                let bind = |place: &str, options: &[&str]| json!({"destination": place, "type": "bind", "source": place, "options": options});
                let tight = ["rbind", "nosuid", "noexec", "nodev"];
                match left_out {
                    "uts" => drop(b.set("/hostname", Value::Null)),
                    // Whose they are mounts them.
                    "network" => b.spec["mounts"][4] = bind("/sys", &tight),
                    "pid" => {
                        b.spec["mounts"][0] = bind("/proc", &tight);
                        b.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
                    }
                    _ => {}
                }
                b.script(show);
            });
        }
    });
}

fn files_and_mounts(t: &mut Rcon) {
    with_tables(t, |table| {
        let shared = table.b.dir.join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("file"), "content\n").unwrap();
        let below = table.b.dir.join("rootfs/data/below");
        fs::write(&below, "below\n").unwrap();
        if !table.root {
            for path in [&below, &shared] {
                chown(path, Some(table.t.user.uid), Some(table.t.user.gid)).unwrap();
            }
        }
        let bind = |place: &str, options: &[&str]| json!({"destination": place, "type": "bind", "source": shared, "options": options});
        let show = "sed -n '/ \\/\\(one\\|two\\|three\\|four\\|data\\|etc\\|dev.mqueue\\)/s/^/mount /p' /proc/self/mountinfo";
        table.case("binds", |b| {
            b.mount(bind("/one", &["bind", "ro", "nosuid", "nodev", "noexec"]));
            b.mount(bind("/two/deep", &["rbind", "rro", "rnosuid"]));
            b.mount(bind("/three", &["bind", "rw"]));
            b.mount(json!({"destination": "/etc/file", "type": "none", "source": "shared/file", "options": ["bind", "ro"]}));
            b.script(&format!(
                "{show}; cat /etc/file /one/file; touch /one/x; touch /two/deep/x; touch /three/x && rm /three/x && echo made"
            ));
        });
        table.case("propagation", |b| {
            b.mount(bind("/one", &["rbind", "rprivate"]));
            b.mount(bind("/two", &["rbind", "rshared"]));
            b.mount(bind("/three", &["rbind", "unbindable"]));
            b.script(show);
        });
        table.case("memory", |b| {
            b.mount(json!({"destination": "/one", "type": "tmpfs", "source": "t", "options": ["size=64k", "mode=750", "strictatime", "noexec"]}));
            b.mount(json!({"destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "size=64k", "nosuid"]}));
            b.mount(json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}));
            b.script(&format!("{show}; cat /data/below; stat -c %a:%u /one; dd if=/dev/zero of=/one/x bs=1k count=100 2>/dev/null || echo full"));
        });
        table.case("hidden and protected", |b| {
            fs::write(b.dir.join("rootfs/data/secret"), "secret\n").unwrap();
            b.set("/linux/maskedPaths", json!(["/data/secret", "/etc", "/no/such/path"]));
            b.set("/linux/readonlyPaths", json!(["/tmp", "/proc/sys", "/no/such/path"]));
            b.script(
                "cat /data/secret | wc -c; ls /etc; touch /tmp/x 2>/dev/null || echo no; touch /etc/x 2>/dev/null || echo no; \
                 (echo 1 >/proc/sys/kernel/shmmni) 2>/dev/null || echo no; ls -d /no 2>/dev/null || echo not made",
            );
        });
        table.case("a read-only root", |b| {
            b.set("/root/readonly", json!(true));
            b.script("touch /x 2>/dev/null || echo no; touch /dev/x && echo made; touch /dev/shm/x && echo made");
        });
        if table.root {
            table.case("devices", |b| {
                b.set(
                    "/linux/devices",
                    json!([
                        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
                        {"path": "/dev/deep/loop", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600},
                        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
                    ]),
                );
                b.script("stat -c '%n %F %t:%T %a %u:%g' /dev/null /dev/fuse /dev/deep/loop /dev/pipe; stat -c %a /dev/deep");
            });
        }
        for word in ["private", "slave", "shared", "unbindable"] {
            table.case(&format!("a root that is {word}"), |b| {
                b.set("/linux/rootfsPropagation", json!(word));
                b.script("sed -n '/ \\/ /s/^/mount /p' /proc/self/mountinfo | grep -v ' /proc '");
            });
        }
    });
}

fn filters(t: &mut Rcon) {
    with_tables(t, |table| {
        let rules = |rules: Value| {
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]})
        };
        for (action, errno) in [
            ("SCMP_ACT_ERRNO", json!(28)),
            ("SCMP_ACT_ERRNO", Value::Null),
            ("SCMP_ACT_KILL_PROCESS", Value::Null),
            ("SCMP_ACT_KILL", Value::Null),
            ("SCMP_ACT_TRAP", Value::Null),
            ("SCMP_ACT_TRACE", json!(5)),
            ("SCMP_ACT_LOG", Value::Null),
        ] {
            table.case(&format!("filter {action} {errno}"), |b| {
                let mut rule = json!({"names": ["mkdir", "mkdirat", "no_such_call"], "action": action});
                if !errno.is_null() {
                    rule["errnoRet"] = errno;
                }
                b.set("/linux/seccomp", rules(json!([rule])));
                b.script("mkdir /tmp/d 2>&1; echo $?; rmdir /tmp/d 2>/dev/null; grep Seccomp /proc/self/status");
            });
        }
        for (op, value, two) in [
            ("SCMP_CMP_EQ", 10, 0),
            ("SCMP_CMP_NE", 10, 0),
            ("SCMP_CMP_LT", 12, 0),
            ("SCMP_CMP_LE", 12, 0),
            ("SCMP_CMP_GT", 12, 0),
            ("SCMP_CMP_GE", 12, 0),
            ("SCMP_CMP_MASKED_EQ", 2, 2),
        ] {
            table.case(&format!("filter {op}"), |b| {
                let args = json!([{"index": 1, "value": value, "valueTwo": two, "op": op}]);
                let rule = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": args}]);
                b.set("/linux/seccomp", rules(rule));
                b.script("trap '' 10 12 17; for s in 10 12 17; do kill -$s $$ 2>/dev/null; echo $s $?; done");
            });
        }
        table.case("a filter that refuses by default", |b| {
            b.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": []}),
            );
            b.script("echo ran");
        });
    });
}

fn ends(t: &mut Rcon) {
    with_tables(t, |table| {
        let rootfs = table.b.dir.join("rootfs");
        fs::write(rootfs.join("bin/lost"), "#!/nothing\n").unwrap();
        fs::set_permissions(rootfs.join("bin/lost"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(rootfs.join("bin/plain"), "true\n").unwrap();
        for words in [
            &["true"][..],
            &["false"],
            &["sh", "-c", "exit 7"],
            &["sh", "-c", "exit 255"],
            &["sh", "-c", "echo out; echo err >&2; exit 3"],
            &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"],
            &["sh", "-c", "kill -9 $$; exit 5"],
            &["sh", "-c", "kill -TERM $$; exit 5"],
            &["no-such-program"],
            &["/no/such/program"],
            &["/etc/passwd"],
            &["/etc/passwd/x"],
            &["plain"],
            &["/bin"],
            &["/bin/lost"],
            &["lost"],
            &[""],
        ] {
            table.case(&format!("program {words:?}"), |b| {
                b.args(words);
            });
        }
        // Without a process namespace the first process is as mortal as others.
        for signal in ["TERM", "KILL", "SEGV"] {
            table.case(&format!("ended by {signal}"), |b| {
                b.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
                let options = ["rbind", "nosuid", "noexec", "nodev"];
                b.spec["mounts"][0] = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": options});
                b.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
                b.script(&format!("kill -{signal} $$; sleep 5"));
            });
        }
    });
}

fn refusals(t: &mut Rcon) {
    with_tables(t, |table| {
        let mount = |kind: &str, source: &str, options: &[&str]| json!([{"destination": "/x", "type": kind, "source": source, "options": options}]);
        let plain = table.b.spec["linux"]["namespaces"].clone();
        let mut twice = plain.as_array().unwrap().clone();
        twice.push(json!({"type": "pid"}));
        for (pointer, value) in [
            ("/root", Value::Null),
            ("/root/path", json!("nowhere")),
            ("/process", Value::Null),
            ("/process/args", json!([])),
            ("/process/cwd", json!("relative")),
            ("/process/cwd", json!("/proc/self/fd/7")),
            ("/process/cwd", json!("/etc/passwd")),
            (
                "/process/rlimits",
                json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]),
            ),
            (
                "/process/rlimits",
                json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 1}]),
            ),
            ("/process/oomScoreAdj", json!(-900)),
            ("/process/oomScoreAdj", json!(5000)),
            ("/mounts", mount("tmpfs", "t", &["no_such_option"])),
            ("/mounts", mount("no_such_fs", "t", &[])),
            ("/mounts", mount("bind", "/no/such/source", &["bind"])),
            (
                "/mounts",
                json!([{"destination": "/etc/passwd/x", "type": "tmpfs", "source": "t"}]),
            ),
            ("/linux/namespaces", json!(twice)),
            ("/linux/namespaces", json!([{"type": "nonsense"}])),
            ("/linux/sysctl", json!({"kernel.panic": "1"})),
            ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NONE"})),
            ("/linux/rootfsPropagation", json!("sideways")),
            (
                "/hooks",
                json!({"createRuntime": [{"path": "/no/such/hook"}]}),
            ),
            ("/hooks", json!({"createRuntime": [{"path": "/bin/false"}]})),
            (
                "/hooks",
                json!({"createContainer": [{"path": "/bin/false"}]}),
            ),
            (
                "/hooks",
                json!({"startContainer": [{"path": "/bin/false"}]}),
            ),
            ("/hooks", json!({"poststop": [{"path": "/bin/false"}]})),
            ("/ociVersion", json!("2.0.0")),
            ("/future", json!({"x": [1]})),
        ] {
            table.case(&format!("refusal {pointer} {value}"), |b| {
                b.set(pointer, value);
            });
        }
    });
}
