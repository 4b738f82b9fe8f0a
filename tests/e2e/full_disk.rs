//! No space left: a clear message, a store that is whole, and everything works again when there is space.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, lab, leaks, registry, skip};

scenarios!(pull, run, log, images);

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
        let path = self.0.join("filler");
        self.fill_up(&path);
        path
    }

    fn fill_up(&self, path: &Path) {
        use std::io::Write;
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        for size in [1 << 20, 4096] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
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
    // It fails later each time, until it does not.
    for kilobytes in [8u64, 32, 128, 512, 2048] {
        let size = fs::metadata(&filler).unwrap().len();
        let file = fs::File::options().write(true).open(&filler).unwrap();
        file.set_len(size - kilobytes * 1024).unwrap();
        drop(file);
        let out = t.run(&["pull", "-q", &registry::plain().name("tall")]);
        if out.code != 0 {
            out.refused(125).says("no space left");
        }
        t.run(&["system", "check"]).prints("").code(0);
        let left = leaks::files(&disk.0.join("tmp"));
        assert!(left.is_empty(), "left behind: {left:#?}");
        disk.fill_up(&filler);
    }
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
    let out = t.sh(
        &[],
        &image,
        "dd if=/dev/zero of=/big bs=64k count=1000 || echo full",
    );
    out.code(0).says("no space left");
    t.has_containers(0);
    // What it wrote is deleted after everybody was told; until then space comes back. Of a file also when it cannot be seen
    // any more, but not when the folder around it has gone.
    let places = ["snapshots", "tmp", "containers"].map(|name| disk.0.join(name));
    eventually("the removed container to be deleted", 10, || {
        let empty = |place| fs::read_dir(place).unwrap().next().is_none();
        places.iter().all(empty).then_some(())
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

/// A program goes on when its log cannot be written or put aside, and what is written when there is room again is whole.
fn log(t: &mut Rcon) {
    let Some(disk) = Disk::mount(t, 24) else {
        return;
    };
    let image = t.pull("busybox");
    let script = "while read -r word; do seq 1 2000 | sed \"s/^/$word /\"; echo $word >/dev/shm/said; test $word = last && exit 5; done";
    let out = t.run(&["run", "--rm", &image, "true"]);
    if out.code != 0 {
        return skip(&format!("no overlay on this tmpfs: {}", out.stderr.trim()));
    }
    t.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "c",
        "--log-opt",
        "max-size=40k",
        "--log-opt",
        "max-file=3",
        &image,
        "sh",
        "-c",
        script,
    ]);
    let id = t.inspect("c", "{{.Id}}");
    let says = |word: &str| {
        let line = format!("{word}\n");
        let mut running = t.start_with_input(&["attach", "c"]);
        running.write(line.as_bytes());
        running
    };
    let told = |word: &str| {
        let end = format!("{word} 2000");
        eventually("the log goes on", 20, || {
            t.ok(&["logs", "--tail", "1", "c"])
                .ends_with(&end)
                .then_some(())
        });
    };
    let first = says("first");
    told("first");
    let filler = disk.fill();
    // Nothing of this can be logged, and the program is not kept from going on: it takes the next word.
    let second = says("full");
    let pid = t.inspect("c", "{{.State.Pid}}");
    let said = format!("/proc/{pid}/root/dev/shm/said");
    eventually("it said all", 20, || {
        (fs::read_to_string(&said).unwrap_or_default() == "full\n").then_some(())
    });
    assert_eq!(t.inspect("c", "{{.State.Status}}"), "running");
    fs::remove_file(filler).unwrap();
    let third = says("again");
    told("again");
    says("last").wait();
    t.run(&["wait", "c"]).prints("5\n");
    for watcher in [first, second, third] {
        watcher.wait();
    }
    let lines = t.ok(&["logs", "c"]);
    for line in lines.lines() {
        let (word, number) = line
            .split_once(' ')
            .unwrap_or_else(|| panic!("half a line: {line:?}"));
        assert!(
            ["first", "full", "again", "last"].contains(&word),
            "{line:?}"
        );
        assert!(number.parse::<u32>().is_ok_and(|n| n <= 2000), "{line:?}");
    }
    assert_eq!(lines.lines().last(), Some("last 2000"));
    let dir = disk.0.join("containers").join(id);
    let files = fs::read_dir(dir).unwrap().flatten();
    let logs = files.filter(|e| e.file_name().to_string_lossy().starts_with("log"));
    assert!(logs.count() <= 3);
    t.ok(&["rm", "c"]);
    t.run(&["rmi", &image]).code(0);
    drop(disk);
}

/// Everything else that changes images: refused on a full disk, or done; the store is whole, and the next try succeeds.
fn images(t: &mut Rcon) {
    let Some(disk) = Disk::mount(t, 24) else {
        return;
    };
    let image = t.pull("busybox");
    t.run(&["tag", &image, "again"]).code(0);
    let out = t.run(&["run", "--name", "c", &image, "sh", "-c", "echo kept >/kept"]);
    if out.code != 0 {
        return skip(&format!("no overlay on this tmpfs: {}", out.stderr.trim()));
    }
    let archive = lab().cache.join("archive/docker.tar");
    let archive = archive.to_str().unwrap();
    let whole = |t: &Rcon| {
        t.run(&["system", "check"]).prints("").code(0);
        let left = leaks::files(&disk.0.join("tmp"));
        assert!(left.is_empty(), "left behind: {left:#?}");
    };
    let filler = disk.fill();
    for words in [
        &["load", "-q", "-i", archive][..],
        &["commit", "-q", "c", "new"],
        &["commit", "-q", "--squash", "c", "new"],
        &["tag", &image, "third"],
    ] {
        t.run(words).refused(125).says("no space left");
        whole(t);
    }
    // A byte here and there is free: it fails in the middle, later each time.
    for kilobytes in [16u64, 64, 512] {
        let size = fs::metadata(&filler).unwrap().len();
        let file = fs::File::options().write(true).open(&filler).unwrap();
        file.set_len(size - kilobytes * 1024).unwrap();
        drop(file);
        let out = t.run(&["load", "-q", "-i", archive]);
        if out.code != 0 {
            out.refused(125).says("no space left");
        }
        whole(t);
        disk.fill_up(&filler);
    }
    t.run(&["untag", "again"]).code(0);
    t.run(&["image", "prune", "-f"]).code(0);
    whole(t);
    fs::remove_file(filler).unwrap();
    t.run(&["load", "-q", "-i", archive]).code(0);
    t.run(&["commit", "-q", "c", "new"]).code(0);
    t.run(&["run", "--rm", "new", "cat", "/kept"])
        .prints("kept\n");
    let filler = disk.fill();
    t.run(&["rm", "c"]).code(0);
    t.run(&["rmi", "-a", "-f"]).code(0);
    t.run(&["images", "-aq"]).prints("");
    fs::remove_file(filler).unwrap();
    t.pull("busybox");
    whole(t);
    t.run(&["rmi", "-a"]).code(0);
    drop(disk);
}
