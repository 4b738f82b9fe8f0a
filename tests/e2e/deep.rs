//! Folders in one another, deeper than a path can say: who nests them must not be able to keep anybody from the rest.

use std::process::Command;

use crate::lab::Rcon;
use crate::lab::scenario::scenarios;

scenarios!(in_a_container, in_a_volume, in_an_image);

/// How a container nests two thousand folders in the one it is in, `$1` times, with files at either end of each. `$c` is the way to
/// the bottom of the first of these, from the folder `old`.
const NEST: &str = "
    c=d; n=1; while [ $n -lt 1990 ]; do c=$c/d; n=$((n+1)); done
    for k in $(seq $1); do
        mkdir -p new/$c
        p=new; while [ ${#p} -lt 3980 ]; do case ${#p} in ?|1?|39??) echo x >$p/f;; esac; p=$p/d; done
        [ ! -e old ] || mv old new/$c/old
        mv new old
    done";

fn nest(folder: &str, times: u32, rest: &str) -> String {
    format!("set -e; set -- {times}; mkdir -p {folder}; cd {folder}; {NEST}\n{rest}")
}

fn in_a_container(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = nest("/deep", 3, "test -e old/$c/old/d/f");
    t.named_sh("c", &image, &script).code(0);
    t.run(&["ps", "-as", "--format", "{{.Size}}"])
        .shows("294B (");
    // What can be named is.
    for others in [&["diff", "c"][..], &["diff", "c", &image]] {
        let seen = t.ok(others);
        assert!(seen.contains("A /deep/old/d/d/f\n"), "{others:?}");
        let longest = seen.lines().map(str::len).max().unwrap();
        assert!((4080..4100).contains(&longest), "{others:?}: {longest}");
    }
    let file = t.home("file");
    let file = file.to_str().unwrap();
    let deep = "more bytes than the 4095 that a path can have";
    for refused in [
        &["export", "-o", file, "c"][..],
        &["commit", "-q", "c", "new"],
        &["cp", "c:/deep", file],
    ] {
        t.run(refused).refused(125).says(deep);
    }
    t.run(&["images", "-q", "new"]).prints("");
    t.run(&["rm", "c"]).code(0);
}

fn in_a_volume(t: &mut Rcon) {
    let image = t.pull("busybox");
    for (volume, folder) in [("v:/v", "/v/a"), ("w:/v", "/v")] {
        t.sh(&["-v", volume], &image, &nest(folder, 2, "")).code(0);
    }
    let file = t.home("file");
    t.run(&["volume", "export", "-o", file.to_str().unwrap(), "v"])
        .refused(125)
        .says("more bytes than the 4095");
    let look = ["stat", "-c", "%u %g", "/v/a/old/d/d/f"];
    let given = ["run", "--rm", "-v", "v:/v:U", "--user", "7:8", &image];
    t.run(&[&given[..], &look].concat()).prints("7 8\n");
    // A file takes its place.
    t.run(&["run", "--name", "c", "-v", "v:/v", &image, "true"])
        .code(0);
    let dir = t.mkdir("here");
    t.write("here/a", "a file now");
    t.run(&["cp", "--overwrite", &format!("{dir}/."), "c:/v"])
        .code(0);
    t.run(&["start", "-a", "c"]).code(0);
    t.sh(&["-v", "v:/v"], &image, "cat /v/a; ls /v")
        .prints("a file nowa\n");
    t.run(&["rm", "c"]).code(0);
    t.run(&["volume", "rm", "v", "w"]).prints("v\nw\n");
}

/// As deep as an archive can name it, and so an image can have it.
fn in_an_image(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.named_sh("c", &image, &nest("/deep", 1, "")).code(0);
    t.run(&["commit", "-q", "c", "deep"]).code(0);
    assert!(t.ok(&["export", "c"]).len() > 5_000_000);
    let out = t.home("out");
    t.run(&["cp", "c:/deep", out.to_str().unwrap()]).code(0);
    assert!(out.join("old/d/d/f").exists());
    assert!(
        Command::new("rm")
            .arg("-rf")
            .arg(&out)
            .status()
            .unwrap()
            .success()
    );
    t.run(&["rm", "c"]).code(0);
    // The last file but one, and a new one beside it.
    let script = "cd /deep; c=d; n=1; while [ $n -lt 1988 ]; do c=$c/d; n=$((n+1)); done; cat old/$c/f; echo y >old/$c/g";
    for options in [&["-v", "v:/deep"], &["--tmpfs", "/deep"]] {
        t.sh(options, "deep", script).prints("x\n");
    }
    t.run(&["volume", "rm", "v"]).code(0);
    // Where layers are copied, and what was written is found by comparing.
    t.set_env("STORAGE_DRIVER", "vfs");
    t.named_sh("c", "deep", script).prints("x\n");
    let seen = t.ok(&["diff", "c"]);
    assert!(seen.contains("C /deep/old/d/d\n") && seen.contains("/d/g\n"));
    t.run(&["commit", "-q", "c", "deeper"]).code(0);
    t.run(&["rm", "c"]).code(0);
    t.set_env("STORAGE_DRIVER", "");
    let again = script.replace("cat old/$c/f", "cat old/$c/g");
    t.sh(&[], "deeper", &again).prints("y\n");
    t.run(&["rmi", "deep", "deeper"]).code(0);
}
