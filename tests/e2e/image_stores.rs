//! Stores of others: their images are seen and used where they lie, and nothing there is changed, nor waited for.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, lab, registry, skip};

scenarios!(
    used_where_it_lies,
    named_pulled_and_committed,
    in_storage_conf,
    of_another_user
);

/// A store in the user's home with `odd` in it, and that image's name.
fn filled(t: &Rcon, place: &str) -> (String, String) {
    let root = t.mkdir(place);
    let image = registry::plain().name("odd");
    t.run(&["--root", &root, "pull", "-q", &image]).code(0);
    (root, image)
}

fn option(root: &str) -> String {
    format!("overlay.imagestore={root}")
}

/// All that is below, and when each last changed in any way.
fn state(root: &str) -> Vec<(PathBuf, i64, i64)> {
    let mut all = Vec::new();
    let mut dirs = vec![PathBuf::from(root)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            all.push((path.clone(), meta.ctime(), meta.ctime_nsec()));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    all.sort();
    all
}

#[track_caller]
fn unchanged(root: &str, before: &[(PathBuf, i64, i64)]) {
    let now = state(root);
    let new: Vec<_> = now.iter().filter(|e| !before.contains(e)).collect();
    let old: Vec<_> = before.iter().filter(|e| !now.contains(e)).collect();
    assert!(
        new.is_empty() && old.is_empty(),
        "now {new:#?}\nbefore {old:#?}"
    );
}

/// The folders below `dir`, `depth` levels down.
fn folders(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let inner: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    match depth {
        1 => inner,
        _ => inner
            .iter()
            .flat_map(|dir| folders(dir, depth - 1))
            .collect(),
    }
}

/// Every image and layer of a store, locked as by somebody who is about to remove it.
fn locked(root: &str) -> Vec<Flock<File>> {
    let root = Path::new(root);
    let all = [
        folders(&root.join("images"), 1),
        folders(&root.join("layers"), 2),
    ];
    let lock = |path: PathBuf| {
        Flock::lock(File::open(path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap()
    };
    let locks: Vec<_> = all.into_iter().flatten().map(lock).collect();
    assert!(locks.len() > 2);
    locks
}

/// How many layers the user's own store has.
fn own_layers(t: &Rcon) -> usize {
    folders(&t.root().join("layers"), 2).len()
}

fn used_where_it_lies(t: &mut Rcon) {
    let (root, image) = filled(t, "shared");
    let id = t.ok(&["--root", &root, "image", "inspect", "-f", "{{.Id}}", &image]);
    let id = id.trim();
    let before = state(&root);
    let locks = locked(&root);
    t.set_global(&["--storage-opt", &option(&root)]);
    t.run(&["images"]).shows("R/O").shows("true");
    t.run(&["images", "--format", "{{.ReadOnly}} {{.Tag}}"])
        .prints("true latest\n");
    t.run(&["images", "--format", "json"])
        .shows("\"ReadOnly\": true");
    t.run(&["images", "-q", "--no-trunc", "--filter", "readonly=true"])
        .prints(&format!("sha256:{id}\n"));
    t.run(&["images", "-q", "--filter", "readonly=false"])
        .prints("");
    t.run(&["image", "exists", &image]).code(0);
    t.run(&["image", "inspect", "-f", "{{.Id}}", &id[..12]])
        .prints(&format!("{id}\n"));
    t.run(&["history", "-q", &image]).code(0);
    t.run(&["image", "tree", &image])
        .code(0)
        .shows("Image Layers");
    t.run(&["info", "--format", "{{.Store.GraphOptions}}"])
        .shows(&format!("overlay.imagestore:{root}"));
    // What is in it is used there.
    let write = "cat /odd/keep; echo mine >/odd/keep; rm -rf /odd/dir";
    t.run(&[
        "run",
        "--name",
        "c",
        "--pull=never",
        &image,
        "sh",
        "-c",
        write,
    ])
    .prints("keep\n");
    t.sh(&[], &image, "cat /odd/keep; ls -d /odd/dir")
        .prints("keep\n/odd/dir\n");
    assert_eq!(own_layers(t), 0);
    t.run(&["inspect", "-f", "{{.GraphDriver.Data.LowerDir}}", "c"])
        .shows(&format!("{root}/layers/"));
    t.run(&["diff", "c"])
        .shows("D /odd/dir")
        .shows("C /odd/keep");
    let program = t.program.to_str().unwrap().to_owned();
    let option = option(&root);
    let look = format!("cat $({program} --storage-opt {option} image mount {image})/odd/keep");
    t.run(&["unshare", "sh", "-c", &look]).prints("keep\n");
    let mount = format!("type=image,source={image},destination=/there");
    t.run(&[
        "run",
        "--rm",
        "--mount",
        &mount,
        &image,
        "cat",
        "/there/odd/keep",
    ])
    .prints("keep\n");
    // Out of it, as of any other.
    let archive = t.home("out.tar");
    let archive = archive.to_str().unwrap();
    t.run(&["save", "-q", "-o", archive, &image]).code(0);
    let elsewhere = t.mkdir("elsewhere");
    t.run(&["--root", &elsewhere, "load", "-q", "-i", archive])
        .code(0);
    let pushed = format!("{}/lent:1", registry::writable().address);
    t.run(&["push", "-q", "--tls-verify=false", &image, &pushed])
        .code(0);
    // Nothing takes it away.
    let refusal = format!("cannot remove read-only image {id:?}");
    t.run(&["rmi", &image]).refused(125).says(&refusal);
    t.run(&["rmi", "-f", id]).refused(125).says(&refusal);
    t.run(&["untag", &image]).refused(125);
    t.run(&["rmi", "-a", "-f"]).prints("").code(0);
    t.run(&["image", "prune", "-a", "-f"]).prints("").code(0);
    t.run(&["system", "check"]).prints("").code(0);
    t.run(&["system", "check", "--repair"]).prints("").code(0);
    t.run(&["system", "df", "--format", "{{.Type}} {{.Total}}"])
        .shows("Images 1\n");
    t.run(&["images", "-q"]).prints(&format!("{}\n", &id[..12]));
    // A container knows where its layers are, whatever the options say.
    t.set_global(&[]);
    t.run(&["images", "-q"]).prints("");
    t.run(&["start", "-a", "c"]).prints("mine\n");
    t.run(&["system", "check"]).prints("").code(0);
    t.run(&["rm", "c"]).code(0);
    drop(locks);
    unchanged(&root, &before);
}

fn named_pulled_and_committed(t: &mut Rcon) {
    let (root, image) = filled(t, "shared");
    let before = state(&root);
    t.set_global(&["--storage-opt", &option(&root)]);
    let rows = [
        "images",
        "--sort",
        "repository",
        "--format",
        "{{.ReadOnly}} {{.Repository}}:{{.Tag}}",
    ];
    let lent = format!("true {image}:latest\n").replace(":latest:latest", ":latest");
    t.run(&rows).prints(&lent);
    // A name of one's own, beside those of the store.
    t.run(&["tag", &image, "mine"]).code(0);
    t.run(&rows)
        .shows("false localhost/mine:latest\n")
        .shows(&lent);
    t.run(&["run", "--rm", "mine", "cat", "/odd/keep"])
        .prints("keep\n");
    t.run(&["system", "check"]).prints("").code(0);
    assert_eq!(own_layers(t), 0);
    t.run(&["rmi", "mine"]).code(0);
    t.run(&rows).prints(&lent);
    // What is pulled needs no layers again, and is one's own.
    t.run(&["pull", "-q", &image]).code(0);
    t.run(&rows).prints(&lent.replace("true", "false"));
    assert_eq!(own_layers(t), 0);
    t.run(&["rmi", &image]).code(0);
    t.run(&rows).prints(&lent);
    // One's own layers go on those of the store.
    t.run(&["run", "--name", "c", &image, "sh", "-c", "echo new >/new"])
        .code(0);
    t.run(&["commit", "-q", "c", "made"]).code(0);
    assert_eq!(own_layers(t), 1);
    t.run(&["rm", "c"]).code(0);
    t.run(&["run", "--rm", "made", "cat", "/new", "/odd/keep"])
        .prints("new\nkeep\n");
    t.run(&["rmi", "made"]).code(0);
    assert_eq!(own_layers(t), 0);
    unchanged(&root, &before);
}

fn in_storage_conf(t: &mut Rcon) {
    // Where podman's graphroot was set, our things are beside podman's.
    let (root, image) = filled(t, "shared/rcon");
    let shared = root.strip_suffix("/rcon").unwrap();
    let nothing = t.mkdir("podman-only");
    let conf = |stores: &str| {
        let text = format!("[storage.options]\nadditionalimagestores = [{stores}]\n");
        t.write(".config/containers/storage.conf", text);
    };
    conf(&format!("'/no/such/folder', '{nothing}', '{shared}'"));
    t.run(&["run", "--rm", "--pull=never", &image, "cat", "/odd/keep"])
        .prints("keep\n");
    t.run(&["info", "--format", "{{.Store.GraphOptions}}"])
        .prints(&format!("map[overlay.imagestore:{root}]\n"));
    t.run(&["rmi", &image]).refused(125).says("read-only image");
    conf("'here'");
    t.run(&["images"]).refused(125).says("not an absolute path");
    conf("");
    t.run(&["images", "-q"]).prints("");
    t.set_env("STORAGE_OPTS", &option(shared));
    t.run(&["images", "--format", "{{.ReadOnly}}"])
        .prints("true\n");
    t.set_env("STORAGE_OPTS", "");
    for wrong in [&*nothing, "/no/such/folder"] {
        t.run(&["--storage-opt", &option(wrong), "images"])
            .refused(125)
            .says("there is no store of rcon in");
    }
}

/// Its files have the owners of another's containers: they are taken over when they are needed.
fn of_another_user(t: &mut Rcon) {
    let other = match t.mode {
        Mode::ManyIds => Mode::OneId,
        Mode::OneId => Mode::ManyIds,
    };
    let Some(user) = lab().user(other).filter(|_| lab().root) else {
        return skip("only root has the other user, whose store it would be");
    };
    let other = Rcon::new(other, user);
    let (root, image) = filled(&other, "shared");
    let with = option(&root);
    // Nobody gets into it before its owner says so.
    t.run(&["--storage-opt", &with, "images"]).refused(125);
    other
        .run(&["unshare", "chmod", "-R", "a+rX", &root])
        .code(0);
    let script = "cd /odd; cat keep; ls -d gone opaque/old 2>/dev/null; stat -c '%a %h' setuid hard; stat -c '%u %g' owned keep
        echo more >>keep; cat hard; chown 5:6 keep; stat -c '%u %g' hard";
    let theirs = other.ok(&["run", "--rm", &other.pull("odd"), "sh", "-c", script]);
    let before = state(&root);
    let locks = locked(&root);
    t.set_global(&["--storage-opt", &with]);
    t.run(&["images", "--format", "{{.ReadOnly}}"])
        .prints("true\n");
    t.run(&["image", "tree", &image]).code(0);
    assert_eq!(own_layers(t), 0);
    let mine = t.ok(&[
        "run",
        "--name",
        "c",
        "--pull=never",
        &image,
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(mine, theirs);
    let taken = own_layers(t);
    assert!(taken > 1);
    t.run(&["run", "--rm", &image, "cat", "/odd/keep"])
        .prints("keep\n");
    assert_eq!(own_layers(t), taken);
    // What a container is made of stays; what is not needed any more is no more kept than it was asked for.
    t.run(&["image", "prune", "-a", "-f"]).code(0);
    t.run(&["start", "-a", "c"]).shows("more\n");
    t.run(&["rm", "c"]).code(0);
    t.run(&["image", "prune", "-a", "-f"]).code(0);
    assert_eq!(own_layers(t), 0);
    t.run(&["tag", &image, "mine"]).code(0);
    assert_eq!(own_layers(t), taken);
    t.run(&["run", "--rm", "mine", "cat", "/odd/keep"])
        .prints("keep\n");
    t.run(&["rmi", "mine"]).code(0);
    assert_eq!(own_layers(t), 0);
    t.run(&["system", "check"]).prints("").code(0);
    drop(locks);
    unchanged(&root, &before);
    // A file that its owner keeps to himself.
    let script = format!("chmod 600 $(find {root}/layers -name keep)");
    other.run(&["unshare", "sh", "-c", &script]).code(0);
    t.run(&["run", "--rm", "--pull=never", &image, "true"])
        .refused(125)
        .says("cannot read layer")
        .says("unshare chmod -R a+rX");
    // What was taken over until then.
    t.run(&["image", "prune", "-a", "-f"]).code(0);
    t.set_global(&[]);
    other.finish();
}
