//! Images and containers on file systems that can less than a local disk: as networks have them, and in memory.

use crate::lab::disk::{Disk, KEEPS_OWNERS, Kind};
use crate::lab::machine::{WORK, WORKED};
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon};

scenarios!(
    in_memory,
    without_attributes,
    with_nothing_but_files,
    as_on_a_network,
    with_a_server_that_gives_nothing_away,
    with_a_server_that_keeps_everything,
);

fn in_memory(t: &mut Rcon) {
    works(t, Kind::Memory, "ok    root filesystem    overlay");
}

/// Neither an overlay nor times of birth: owners are beside, by inode.
fn without_attributes(t: &mut Rcon) {
    works(t, Kind::Plain, "copies of the layers");
}

fn with_nothing_but_files(t: &mut Rcon) {
    t.set_env("STORAGE_DRIVER", "vfs");
    works(t, Kind::Passed(&["--xattr-none"]), "copies of the layers");
}

fn as_on_a_network(t: &mut Rcon) {
    works(t, Kind::Passed(&[]), "less  root filesystem");
}

/// The server knows nothing of subordinate ids: one is left.
fn with_a_server_that_gives_nothing_away(t: &mut Rcon) {
    works(t, KEEPS_OWNERS, "one id");
    let Some(disk) = Disk::mount(t, KEEPS_OWNERS, None) else {
        return;
    };
    let told = t.run(&["doctor"]);
    told.code(0).shows("less  ids");
    if t.mode == Mode::ManyIds {
        told.shows("gives files to nobody else")
            .shows("try: rcon --root DIRECTORY, on a local disk");
    }
    disk.release(t);
}

/// What is made there belongs to somebody else at once, as where a server takes everybody for nobody.
fn with_a_server_that_keeps_everything(t: &mut Rcon) {
    let kind = Kind::Passed(&[
        "--create-for-user=65534",
        "--create-for-group=65534",
        "--chown-deny",
        "--xattr-none",
    ]);
    let Some(disk) = Disk::mount(t, kind, None) else {
        return;
    };
    for words in [&["ps"][..], &["run", "busybox"], &["doctor"]] {
        t.run(words)
            .refused(125)
            .says("permission denied")
            .says("hint: give a place with --root that you may write to");
    }
    let elsewhere = t.mkdir("elsewhere");
    t.run(&["--root", &elsewhere, "doctor"]).code(0);
    drop(disk);
}

/// What every place must be good for.
fn works(t: &mut Rcon, kind: Kind, told: &str) {
    let Some(disk) = Disk::mount(t, kind, None) else {
        return;
    };
    t.run(&["doctor"]).code(0).shows(told);
    // Layers that delete, of an image whose files have several owners.
    let image = t.pull("odd");
    let script = "cd /odd; cat keep replaced dir/b; ls -d gone opaque/old 2>/dev/null; stat -c '%a %h' setuid keep; cat hard";
    t.sh(&["--network", "none"], &image, script)
        .prints("keep\na file now\nb\n4755 1\n644 2\nkeep\n");
    let image = t.pull("busybox");
    for network in ["none", "host"] {
        let words = [
            "run",
            "--rm",
            "--network",
            network,
            &image,
            "sh",
            "-ec",
            WORK,
        ];
        t.run(&words).prints(WORKED);
    }
    // What a container writes and deletes is there in the next one, whoever it belongs to.
    let words = ["run", "-d", "--name", "c", "--network", "none", &image];
    t.run(&[&words[..], &["sleep", "1000"]].concat()).code(0);
    let script = "mkdir /d; echo x >/d/f; mkfifo /d/p; ln -s f /d/l; chown 3:4 /d /d/f; chown 5:6 /d/p; chown -h 7:8 /d/l
        ln -s /no/where /d/n; chown -h 9:10 /d/n
        rm -r /home; mkdir /home; touch /home/new; chmod 2750 /d";
    t.run(&["exec", "c", "sh", "-ec", script]).code(0);
    t.run(&["exec", "-u", "app", "c", "id", "-u"])
        .prints("1000\n");
    let look = "stat -c '%n %u %g %a' /d /d/f; stat -c '%u %g %F' /d/p /d/l /d/n; ls /home";
    let seen = "/d 3 4 2750\n/d/f 3 4 644\n5 6 fifo\n7 8 symbolic link\n9 10 symbolic link\nnew\n";
    t.run(&["exec", "c", "sh", "-c", look]).prints(seen);
    let file = t.write("new", "from outside\n");
    t.run(&["cp", &file, "c:/d/new"]).code(0);
    t.run(&["exec", "c", "cat", "/d/new"])
        .prints("from outside\n");
    t.run(&["commit", "-q", "c", "kept"]).code(0);
    t.run(&["diff", "c"])
        .shows("A /d/f\n")
        .shows("D /home/app\n");
    t.run(&["run", "--rm", "--network", "none", "kept", "sh", "-c", look])
        .prints(seen);
    t.run(&["stop", "-t", "0", "c"]).code(0);
    t.run(&["start", "c"]).code(0);
    t.run(&["exec", "c", "sh", "-c", look]).prints(seen);
    // And elsewhere.
    let archive = t.home("kept.tar");
    let archive = archive.to_str().unwrap();
    t.run(&["save", "-q", "-o", archive, "kept"]).code(0);
    t.run(&["rmi", "-f", "kept"]).code(0);
    t.run(&["load", "-q", "-i", archive]).code(0);
    t.run(&["run", "--rm", "--network", "none", "kept", "sh", "-c", look])
        .prints(seen);
    disk.release(t);
}
