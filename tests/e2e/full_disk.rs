//! No space left: a clear message, a store that is whole, and everything works again when there is space.

use std::fs;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, lab, leaks, registry, skip};

scenarios!(pull, run);

/// A small file system over the folder where the program keeps everything.
struct Disk(PathBuf);

impl Disk {
    fn mount(t: &Rcon, megabytes: u32) -> Option<Disk> {
        if !lab().root {
            skip("a full disk needs root, who can mount a small one");
            return None;
        }
        let root = PathBuf::from(t.mkdir(".local/share/rcon"));
        let options = format!(
            "size={megabytes}m,mode=755,uid={},gid={}",
            t.user.uid, t.user.gid
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("rcon-suite"),
            &root,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )
        .unwrap();
        Some(Disk(root))
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for size in [1 << 20, 4096] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn pull(t: &mut Rcon) {
    let Some(disk) = Disk::mount(t, 24) else {
        return;
    };
    let out = t.run(&["pull", "-q", &registry::plain().name("large")]);
    out.refused(125).says("no space left");
    t.run(&["images", "-a", "-q"]).prints("");
    // A layer that is whole may stay for the next attempt, nothing half-made may.
    let left = leaks::files(&disk.0.join("tmp"));
    assert!(left.is_empty(), "left behind: {left:#?}");
    t.pull("busybox");
    let filler = disk.fill();
    t.run(&["pull", "-q", &registry::plain().name("tall")])
        .refused(125)
        .says("no space left");
    fs::remove_file(filler).unwrap();
    t.pull("tall");
    t.run(&["rmi", "-a"]).code(0);
    drop(disk);
}

fn run(t: &mut Rcon) {
    let Some(disk) = Disk::mount(t, 24) else {
        return;
    };
    let image = t.pull("busybox");
    let out = t.run(&["run", "--rm", &image, "true"]);
    if out.code != 0 {
        // Older kernels keep no attributes on tmpfs, and then it cannot be the top of an overlay.
        return skip(&format!("no overlay on this tmpfs: {}", out.stderr.trim()));
    }
    // A program that fills the disk gets the error, nobody else does.
    let out = t.run(&[
        "run",
        "--rm",
        &image,
        "sh",
        "-c",
        "dd if=/dev/zero of=/big bs=64k count=1000 || echo full",
    ]);
    out.code(0).says("no space left");
    t.has_containers(0);
    // What it wrote is deleted after everybody was told; until then space comes back.
    let tmp = disk.0.join("tmp");
    eventually("the removed container to be deleted", 10, || {
        leaks::files(&tmp).is_empty().then_some(())
    });
    let filler = disk.fill();
    t.run(&["run", "--name", "c", &image, "true"])
        .refused(125)
        .says("no space left");
    t.run(&["create", "--name", "d", &image, "true"])
        .refused(125)
        .says("no space left");
    fs::remove_file(filler).unwrap();
    t.has_containers(0);
    t.run(&["run", "--rm", "--name", "c", &image, "echo", "again"])
        .prints("again\n");
    // What removes things works on a full disk.
    t.ok(&["create", "--name", "e", &image, "true"]);
    let filler = disk.fill();
    t.run(&["rm", "e"]).prints("e\n");
    t.run(&["rmi", &image]).code(0);
    fs::remove_file(filler).unwrap();
    t.run(&["ps", "-aq"]).prints("");
    drop(disk);
}
