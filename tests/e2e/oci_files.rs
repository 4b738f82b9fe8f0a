//! The fields of a runtime specification about files, through `rcon oci`: mounts, their propagation, what is hidden.

use std::fs;

use serde_json::json;

use crate::lab::Rcon;
use crate::lab::bundle::Bundle;
use crate::lab::scenario::scenarios;

scenarios!(mount_options, propagation, hidden_and_protected);

fn mount_options(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let shared = t.mkdir("b/shared");
    fs::write(b.dir.join("shared/file"), "content\n").unwrap();
    fs::write(b.dir.join("rootfs/data/below"), "below\n").unwrap();
    let bind = |place: &str, options: &[&str]| json!({"destination": place, "type": "bind", "source": shared, "options": options});
    b.mount(bind("/one", &["bind", "ro", "nosuid", "nodev", "noexec"]));
    b.mount(bind("/two/deep", &["rbind", "rro", "rnosuid"]));
    b.mount(bind("/three", &["bind", "rw", "nosymfollow"]));
    // Relative to the bundle; a file too.
    b.mount(json!({"destination": "/etc/file", "type": "none", "source": "shared/file", "options": ["bind"]}));
    b.mount(
        json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs",
        "options": ["tmpcopyup", "size=64k", "mode=750", "strictatime", "nr_inodes=100"]}),
    );
    let lines = b.sh(
        t,
        "grep -E ' /(one|two/deep|three|data) ' /proc/self/mountinfo | cut -d' ' -f5,6; \
         cat /etc/file /data/below; stat -c %a /data; \
         touch /one/x 2>/dev/null || touch /two/deep/x 2>/dev/null || echo refused; touch /three/y && echo made",
    );
    let options = |place: &str| -> Vec<&str> {
        let line = lines
            .lines()
            .find(|line| line.starts_with(&format!("{place} ")));
        line.unwrap_or_default().split([' ', ',']).skip(1).collect()
    };
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options("/one").contains(&word), "{word}\n{lines}");
    }
    assert!(
        options("/two/deep").contains(&"ro") && options("/two/deep").contains(&"nosuid"),
        "{lines}"
    );
    assert!(
        options("/three").contains(&"rw") && options("/three").contains(&"nosymfollow"),
        "{lines}"
    );
    assert!(
        lines.ends_with("content\nbelow\n750\nrefused\nmade"),
        "{lines}"
    );
    b.mount(json!({"destination": "/bad", "type": "tmpfs", "source": "x", "options": ["no_such_option"]}));
    b.run(t).code(1).says("cannot mount tmpfs on /bad");
    b.spec["mounts"].as_array_mut().unwrap().pop();
    b.mount(json!({"destination": "/bad", "type": "no_such_fs", "source": "x"}));
    b.run(t).code(1).says("cannot mount no_such_fs on /bad");
    b.spec["mounts"].as_array_mut().unwrap().pop();
    b.set("/root/readonly", json!(true));
    assert_eq!(
        b.sh(
            t,
            "touch /x 2>/dev/null || echo refused; touch /data/x && echo made"
        ),
        "refused\nmade"
    );
}

fn propagation(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    let source = t.mkdir("b/shared");
    for (word, has) in [
        ("rslave", "master:"),
        ("rprivate", ""),
        ("rshared", "shared:"),
    ] {
        let mut one = Bundle::of_user(t, &format!("b-{word}"));
        one.mount(json!({"destination": "/bound", "type": "bind", "source": source, "options": ["rbind", word]}));
        let line = one.sh(t, "grep ' /bound ' /proc/self/mountinfo | cut -d' ' -f7");
        // Where the source is not shared on the host there is nothing to be the slave of.
        let ok = line.starts_with(has) || (word == "rslave" && line == "-");
        assert!(ok, "{word}: {line:?}");
    }
    for (word, has) in [
        ("shared", "shared:"),
        ("private", "-"),
        ("unbindable", "unbindable"),
    ] {
        b.set("/linux/rootfsPropagation", json!(word));
        let line = b.sh(
            t,
            "grep ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo",
        );
        assert!(
            line.lines()
                .any(|l| l.contains(&format!(" {has}")) || l.contains(has)),
            "{word}: {line}"
        );
    }
    b.set("/linux/rootfsPropagation", json!("sideways"))
        .run(t)
        .code(1)
        .says("sideways");
}

fn hidden_and_protected(t: &mut Rcon) {
    let mut b = Bundle::of_user(t, "b");
    fs::write(b.dir.join("rootfs/data/secret"), "secret\n").unwrap();
    b.set(
        "/linux/maskedPaths",
        json!(["/data/secret", "/sys/firmware", "/no/such/path"]),
    );
    b.set(
        "/linux/readonlyPaths",
        json!(["/proc/sys", "/tmp", "/no/such/path"]),
    );
    assert_eq!(
        b.sh(
            t,
            "cat /data/secret; ls /sys/firmware 2>/dev/null; (echo 1 >/proc/sys/kernel/shmmni) 2>/dev/null || echo no; \
             touch /tmp/x 2>/dev/null || echo no",
        ),
        "no\nno"
    );
}
