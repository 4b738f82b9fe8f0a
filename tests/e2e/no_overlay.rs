//! Containers where the kernel mounts no overlay: their layers are copied, and all else is as ever.

use crate::lab::Rcon;
use crate::lab::disk::{Disk, Kind};
use crate::lab::scenario::scenarios;

scenarios!(copies, where_refused, made_with_overlay, without_attributes);

fn copies(t: &mut Rcon) {
    t.set_env("STORAGE_DRIVER", "vfs");
    let image = t.pull("odd");
    t.run(&["info", "--format", "{{.Store.GraphDriverName}}"])
        .prints("vfs\n");
    t.run(&["doctor"]).code(0).shows("copies of the layers");
    let script = "cd /odd; cat keep replaced dir/b; ls -d gone opaque/old 2>/dev/null; stat -c '%a %h' setuid keep
        stat -c %Y owned; stat -c %s sparse; test -p fifo; cat soft; echo new >keep; cat hard";
    t.run(&["run", "--rm", &image, "sh", "-c", script])
        .prints("keep\na file now\nb\n4755 1\n644 2\n1234567890\n1048579\nkeep\nnew\n");
    // What a container writes is its own, and stays.
    let write = "echo kept >>/odd/mine; chown 33:44 /odd/mine; rm -r /odd/dir; chmod 700 /odd/replaced; wc -l </odd/mine";
    t.run(&["run", "--name", "c", &image, "sh", "-c", write])
        .prints("1\n");
    t.run(&["run", "--rm", &image, "ls", "/odd/dir/b"])
        .prints("/odd/dir/b\n");
    t.run(&["diff", "c"])
        .prints("C /etc\nC /odd\nD /odd/dir\nA /odd/mine\nC /odd/replaced\n");
    t.run(&["ps", "-as", "--format", "{{.Size}}"])
        .shows("16B (");
    t.run(&["container", "inspect", "-f", "{{.GraphDriver.Name}}", "c"])
        .prints("vfs\n");
    // In and out, while it does not run.
    let file = t.write("new", "from outside");
    t.run(&["cp", &file, "c:/odd/new"]).code(0);
    t.run(&["cp", "c:/odd/mine", "-"]).code(0).shows("kept");
    let tar = t.ok(&["export", "c"]);
    assert!(tar.contains("from outside") && !tar.contains("odd/dir/b"));
    // Images of it: of the changes, and of all.
    let look = "cd /odd; cat mine new; stat -c '%u %g' mine; stat -c %a replaced; test ! -e dir && test -p fifo && stat -c %h keep";
    let seen = "kept\nfrom outside33 44\n700\n2\n";
    t.run(&["commit", "-q", "c", "changes"]).code(0);
    t.run(&["run", "--rm", "changes", "sh", "-c", look])
        .prints(seen);
    let of = |name: &str| t.ok(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", name]);
    let (before, after) = (of(&image), of("changes"));
    assert_eq!(
        before.parse::<u32>().unwrap() + 1,
        after.parse::<u32>().unwrap()
    );
    t.run(&["image", "diff", "changes"])
        .prints("C /etc\nC /odd\nD /odd/dir\nA /odd/mine\nA /odd/new\nC /odd/replaced\nA /run\n");
    t.run(&["commit", "-q", "--squash", "c", "all"]).code(0);
    t.run(&["run", "--rm", "all", "sh", "-c", look])
        .prints(seen);
    t.run(&["start", "-a", "c"]).says("dir").shows("2\n");
    // A volume gets what is in the image; the image can be looked into.
    t.run(&["run", "--rm", "-v", "v:/odd/dir", &image, "ls", "/odd/dir"])
        .prints("b\n");
    t.run(&["volume", "rm", "v"]).code(0);
    let program = t.program.to_str().unwrap().to_owned();
    let script = format!(
        "set -e; m=$({program} image mount {image}); cat $m/odd/keep; ls $m/odd/dir; ! touch $m/x 2>/dev/null"
    );
    t.run(&["unshare", "sh", "-c", &script]).prints("keep\nb\n");
    t.run(&["system", "check"]).prints("").code(0);
    t.run(&["rm", "c"]).code(0);
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.run(&["--storage-driver", "btrfs", "ps"])
        .refused(125)
        .says("overlay, vfs");
    t.set_env("STORAGE_DRIVER", "");
}

fn where_refused(t: &mut Rcon) {
    let Some(disk) = Disk::mount(t, Kind::Overlay, None) else {
        return;
    };
    let image = t.pull("tall");
    t.run(&["doctor"])
        .code(0)
        .shows("copies of the layers")
        .shows("--root");
    t.run(&["run", "--rm", &image, "echo", "hi"]).prints("hi\n");
    t.named_sh("c", &image, "echo a >>/a; chown 7 /a; cat /a")
        .prints("a\n");
    t.run(&["start", "-a", "c"]).prints("a\na\n");
    t.run(&["commit", "-q", "c", "new"]).code(0);
    t.run(&["run", "--rm", "new", "stat", "-c", "%u %s", "/a"])
        .prints("7 4\n");
    disk.release(t);
}

/// A machine may stop mounting overlays; containers bring along what they have.
fn made_with_overlay(t: &mut Rcon) {
    let image = t.pull("odd");
    let write =
        "echo one >/odd/mine; rm -r /odd/dir /odd/keep; mkdir /odd/dir; echo two >/odd/dir/two";
    t.run(&["run", "--name", "c", &image, "sh", "-c", write])
        .code(0);
    t.run(&[
        "create",
        "--name",
        "d",
        &image,
        "sh",
        "-c",
        "cat /odd/dir/b",
    ])
    .code(0);
    let file = t.write("later", "later");
    t.set_env("STORAGE_DRIVER", "vfs");
    t.run(&["cp", &file, "c:/odd/later"]).code(0);
    t.run(&["start", "-a", "d"]).prints("b\n");
    t.run(&["commit", "-q", "c", "new"]).code(0);
    t.set_env("STORAGE_DRIVER", "");
    t.run(&[
        "run",
        "--rm",
        "new",
        "sh",
        "-c",
        "cd /odd; cat mine dir/* later; ls keep dir/b",
    ])
    .says("keep")
    .shows("one\ntwo\nlater");
    t.run(&["rm", "-a"]).code(0);
}

/// What layers delete is noted all the same, and every way to put them together knows it.
fn without_attributes(t: &mut Rcon) {
    let Some(disk) = Disk::mount(t, Kind::Plain, None) else {
        return;
    };
    let image = t.pull("odd");
    let look = "cd /odd; cat keep replaced dir/b; ls -a opaque becomes-dir
        ls -d gone opaque/old opaque/sub moved 2>/dev/null; stat -c '%a %h' setuid; test ! -e opaque/.wh..wh..opq && echo seen";
    let mut seen = Vec::new();
    for driver in ["vfs", ""] {
        t.set_env("STORAGE_DRIVER", driver);
        seen.push(t.ok(&["run", "--rm", &image, "sh", "-c", look]));
        // What a container deletes and replaces, deleted and replaced in the image made of it.
        let write =
            "cd /odd; rm -r dir; mkdir dir; echo new >dir/new; rm keep; echo more >>replaced";
        t.run(&["run", "--name", "c", &image, "sh", "-c", write])
            .code(0);
        t.run(&["diff", "c"])
            .shows("D /odd/dir/b")
            .shows("D /odd/keep");
        t.run(&["commit", "-q", "c", "made"]).code(0);
        t.run(&["rm", "c"]).code(0);
        let after = "cd /odd; ls -A dir; ls -d keep 2>/dev/null; cat replaced";
        t.run(&["run", "--rm", "made", "sh", "-c", after])
            .prints("new\na file now\nmore\n");
        t.run(&["rmi", "made"]).code(0);
    }
    t.set_env("STORAGE_DRIVER", "");
    assert!(seen[0].ends_with("\nseen"), "{}", seen[0]);
    assert_eq!(seen[0], seen[1]);
    // With attributes it is the same image.
    let ordinary = t.mkdir("ordinary");
    let there = ["--root", &ordinary, "run", "--rm", &image, "sh", "-c", look];
    assert_eq!(t.ok(&there), seen[0]);
    let archive = t.home("out.tar");
    t.run(&["save", "-q", "-o", archive.to_str().unwrap(), &image])
        .code(0);
    t.run(&["system", "check"]).prints("").code(0);
    t.run(&["rmi", "-a", "-f"]).code(0);
    disk.release(t);
}
