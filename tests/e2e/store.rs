//! The store as a whole: what is damaged is found and mended, what is used stays, images mounted for a look.

use std::fs;
use std::path::PathBuf;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, registry};

scenarios!(
    whole,
    damaged_layer,
    damaged_records,
    damaged_in_use,
    mounts,
    storage_conf,
    together
);

/// A file of the image's layers whose name ends like this.
fn file_in_layers(t: &Rcon, name: &str) -> PathBuf {
    fn find(dir: PathBuf, name: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(dir).ok()?;
        entries
            .filter_map(|e| Some(e.ok()?.path()))
            .find_map(|path| {
                let is_dir = path.symlink_metadata().is_ok_and(|m| m.is_dir());
                if is_dir {
                    find(path, name)
                } else {
                    path.ends_with(name).then_some(path)
                }
            })
    }
    find(t.root().join("layers"), name).unwrap_or_else(|| panic!("no {name} in the layers"))
}

fn whole(t: &mut Rcon) {
    t.run(&["system", "check"]).prints("").code(0);
    let image = t.pull("busybox");
    t.pull("odd");
    t.run(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .code(0);
    t.run(&["system", "check"]).prints("").code(0);
    t.run(&["system", "check", "--quick"]).prints("").code(0);
    t.run(&["system", "check", "--force"]).refused(125);
}

fn damaged_layer(t: &mut Rcon) {
    let image = t.pull("busybox");
    let file = file_in_layers(t, "etc/passwd");
    let text = fs::read_to_string(&file).unwrap().replace("root", "toor");
    fs::write(&file, text).unwrap();
    // The same size: only reading it all tells.
    t.run(&["system", "check", "--quick"]).prints("").code(0);
    t.run(&["system", "check"])
        .code(125)
        .shows("layer sha256:")
        .says("--repair");
    t.run(&["system", "check", "--repair"])
        .code(0)
        .shows("(removed)");
    t.run(&["system", "check"]).prints("").code(0);
    t.run(&["images", "-q"]).prints("");
    t.run(&["pull", "-q", &image]).code(0);
    t.run(&["run", "--rm", &image, "head", "-c", "4", "/etc/passwd"])
        .prints("root");
}

fn damaged_records(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.inspect(&image, "{{.Id}}");
    let record = |name: &str| t.root().join("images").join(&id).join(name);
    for name in ["config.json", "manifest.json"] {
        let before = fs::read(record(name)).unwrap();
        fs::write(record(name), [&before[..], b" "].concat()).unwrap();
        t.run(&["system", "check", "--quick"])
            .code(125)
            .shows(&format!("image {id}: "));
        fs::write(record(name), before).unwrap();
    }
    fs::write(record("record.json"), "{").unwrap();
    t.run(&["system", "check"]).code(125);
    t.run(&["system", "check", "--repair"]).code(0);
    t.run(&["system", "check"]).prints("").code(0);
    t.run(&["pull", "-q", &image]).prints(&format!("{id}\n"));
    t.run(&["run", "--rm", &image, "echo", "hi"]).prints("hi\n");
}

fn damaged_in_use(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["create", "--name", "c", &image, "true"]).code(0);
    fs::write(file_in_layers(t, "etc/group"), "").unwrap();
    // What a container uses is not taken from it without being asked to.
    t.run(&["system", "check", "--repair"])
        .code(125)
        .says("--force");
    t.run(&["start", "-a", "c"]).code(0);
    t.run(&["rm", "c"]).code(0);
    t.run(&["system", "check", "--repair"]).code(0);
    t.run(&["system", "check"]).prints("").code(0);
}

fn mounts(t: &mut Rcon) {
    let image = t.pull("busybox");
    let several = t.pull("odd");
    t.run(&["image", "mount", &image])
        .refused(125)
        .says("rcon unshare");
    let program = t.program.to_str().unwrap().to_owned();
    let script = format!(
        "set -e; r={program}
         a=$($r image mount {image}); b=$($r image mount {several})
         head -n 1 $a/etc/passwd; cat $b/odd/keep
         test \"$($r image mount {image})\" = \"$a\"
         ! touch $a/new 2>/dev/null
         $r image mount | wc -l
         $r image unmount {image} | wc -c
         test ! -e $a
         $r image unmount -a | wc -l
         $r image mount"
    );
    t.run(&["unshare", "sh", "-c", &script])
        .prints("root:x:0:0:root:/root:/bin/sh\nkeep\n2\n65\n1\n");
    t.run(&["unshare", &program, "image", "mount", "nosuch"])
        .code(125);
    t.run(&["unshare", &program, "image", "unmount", &image])
        .code(125)
        .says("is not mounted");
}

fn storage_conf(t: &mut Rcon) {
    let elsewhere = t.mkdir("elsewhere");
    t.write(
        ".config/containers/storage.conf",
        format!("[storage]\ndriver = 'overlay'\ngraphroot = '{elsewhere}'\n"),
    );
    let image = t.pull("busybox");
    t.run(&["run", "--rm", &image, "echo", "hi"]).prints("hi\n");
    assert!(t.home("elsewhere/rcon/images").is_dir());
    assert!(!t.root().exists());
    t.run(&[
        "run",
        "--rm",
        "--root",
        t.home("third").to_str().unwrap(),
        "--pull=never",
        &image,
        "true",
    ])
    .refused(125);
    t.run(&["rmi", "-a"]).code(0);
    t.write(
        ".config/containers/storage.conf",
        "[storage]\ngraphroot = 'here'\n",
    );
    t.run(&["images"]).refused(125).says("not an absolute path");
    t.write(".config/containers/storage.conf", "");
    t.run(&["images", "-q"]).prints("");
}

/// Several at the same moment.
fn together(t: &mut Rcon) {
    let image = registry::plain().name("busybox");
    for _ in 0..2 {
        let pulls: Vec<_> = (0..3).map(|_| t.start(&["pull", "-q", &image])).collect();
        for pull in pulls {
            pull.wait().code(0);
        }
        // A removal meets pulls: whatever comes first, nothing is half there.
        let pull = t.start(&["pull", "-q", &image]);
        let removal = t.start(&["rmi", "-f", &image]);
        removal.wait();
        pull.wait().code(0);
        t.run(&["pull", "-q", &image]).code(0);
        // A prune meets a run.
        let runs: Vec<_> = (0..2)
            .map(|_| t.start(&["run", "--rm", &image, "echo", "hi"]))
            .collect();
        let prune = t.start(&["image", "prune", "-a", "-f"]);
        prune.wait().code(0);
        for run in runs {
            run.wait().code(0);
        }
        t.run(&["system", "check"]).prints("").code(0);
    }
}
