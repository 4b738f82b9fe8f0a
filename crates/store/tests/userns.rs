//! Layers with the owners of their files, unpacked and mounted in a user namespace.
//!
//! What the machine does not allow is skipped, with the reason on standard error.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;

use rcon_store::{Digest, NewImage, Removal, Snapshot, Store};
use rcon_sys::ids::IdMaps;
use rcon_sys::userns;
use rustix::mount::MountFlags;

type Outcome = Result<(), String>;
type Test = fn() -> Outcome;

fn main() -> ExitCode {
    // The flags of the usual harness mean nothing here; a filter that names another test does.
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut failed = false;
    let tests: [(&str, Test); 4] = [
        ("overlay_is_probed_once", overlay_is_probed_once),
        ("owners_and_deletions", owners_and_deletions),
        ("one_id_is_enough", one_id_is_enough),
        ("a_full_disk_leaves_nothing", a_full_disk_leaves_nothing),
    ];
    for (name, test) in tests {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter)) {
            continue;
        }
        match test() {
            Ok(()) => println!("test {name} ... ok"),
            Err(why) if why.starts_with("skipped: ") => eprintln!("test {name} ... {why}"),
            Err(why) => {
                eprintln!("test {name} ... FAILED: {why}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

/// Run something as root of a user namespace.
fn inside(maps: &IdMaps, work: impl FnOnce() -> Outcome) -> Outcome {
    let (status, said) = userns::run(maps, |out| match work() {
        Ok(()) => 0,
        Err(why) => {
            // A message that gets lost leaves the status.
            let _ = out.write_all(why.as_bytes());
            1
        }
    })
    .map_err(|error| format!("skipped: no user namespace: {error}"))?;
    match String::from_utf8_lossy(&said) {
        said if !said.is_empty() => Err(said.into_owned()),
        _ if status.success() => Ok(()),
        _ => Err(format!("the child ended with {status}")),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            return Err(format!("line {}: {}", line!(), stringify!($condition)));
        }
    };
}

fn overlay_is_probed_once() -> Outcome {
    let temp = tempfile::tempdir().map_err(text)?;
    let store = Store::open(temp.path(), &IdMaps::single()).map_err(text)?;
    let overlay = store.probe_overlay().map_err(text)?;
    if !overlay.works {
        return Err(format!("skipped: {}", overlay.reason.unwrap_or_default()));
    }
    check!(temp.path().join("overlay.json").exists());
    check!(store.probe_overlay().map_err(text)?.works);
    check!(fs::read_dir(temp.path().join("tmp")).map_err(text)?.count() == 0);
    Ok(())
}

struct Item {
    kind: tar::EntryType,
    name: &'static str,
    owner: (u64, u64),
    mode: u32,
}

fn archive(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        if item.name == "bin/ping" {
            // A capability in the form of the kernel: version 2, effective, CAP_NET_RAW.
            let value: &[u8] = &[
                1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ];
            builder
                .append_pax_extensions([("SCHILY.xattr.security.capability", value)])
                .unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(item.kind);
        header.set_uid(item.owner.0);
        header.set_gid(item.owner.1);
        header.set_mode(item.mode);
        header.set_size(0);
        if item.kind.is_symlink() {
            builder
                .append_link(&mut header, item.name, "target")
                .unwrap();
        } else {
            builder
                .append_data(&mut header, item.name, &[][..])
                .unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn file(name: &'static str, owner: (u64, u64), mode: u32) -> Item {
    Item {
        kind: tar::EntryType::Regular,
        name,
        owner,
        mode,
    }
}

fn dir(name: &'static str, owner: (u64, u64), mode: u32) -> Item {
    Item {
        kind: tar::EntryType::Directory,
        ..file(name, owner, mode)
    }
}

/// Two layers: owners of all kinds, and deletions of some of it.
fn layers() -> [Vec<u8>; 2] {
    let low = archive(&[
        dir("var", (0, 50), 0o2775),
        file("var/mail", (8, 8), 0o660),
        file("var/gone", (0, 0), 0o644),
        dir("home", (1000, 1000), 0o700),
        file("home/secret", (1000, 1000), 0o600),
        dir("opaque", (0, 0), 0o755),
        file("opaque/below", (0, 0), 0o644),
        file("bin/su", (0, 0), 0o4755),
        file("bin/game", (0, 60), 0o2755),
        file("bin/ping", (0, 0), 0o755),
        file("far", (4_000_000_000, 1), 0o640),
        Item {
            kind: tar::EntryType::Symlink,
            ..file("link", (33, 33), 0o777)
        },
    ]);
    let high = archive(&[
        // As all programs do that make layers: what is above decides how a directory looks.
        dir("var", (0, 50), 0o2775),
        file("var/.wh.gone", (0, 0), 0o644),
        file("opaque/.wh..wh..opq", (0, 0), 0o644),
        file("opaque/above", (0, 0), 0o644),
    ]);
    [low, high]
}

fn put(store: &Store) -> Result<Snapshot, String> {
    let mut ids = Vec::new();
    for tar in layers() {
        let digest = Digest::sha256(&tar);
        let mut stage = store.stage_layer().map_err(text)?;
        stage.unpack(&tar[..]).map_err(text)?;
        let hold = stage.commit(&digest).map_err(text)?;
        // Owners, deletions and devices are back in it, however they are kept here.
        let mut again = Vec::new();
        hold.write_archive(&mut again).map_err(text)?;
        check!(again == tar);
        ids.push(digest);
    }
    let config = serde_json::json!({"rootfs": {"type": "layers", "diff_ids": ids}});
    let record = store
        .put_image(NewImage {
            manifest: b"{}".to_vec(),
            manifest_digest: Digest::sha256(b"{}"),
            media_type: String::new(),
            config: config.to_string().into_bytes(),
            layers: ids,
            names: vec!["localhost/test:latest".to_owned()],
            repo_digests: vec![],
        })
        .map_err(text)?;
    store.create_snapshot("c", &record).map_err(text)
}

fn mount(snapshot: &Snapshot) -> Outcome {
    let lower: Vec<_> = snapshot
        .lower
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        lower.join(":"),
        snapshot.upper.display(),
        snapshot.work.display()
    );
    let options = std::ffi::CString::new(options).map_err(text)?;
    rustix::mount::mount(
        "overlay",
        &snapshot.merged,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .map_err(text)
}

fn stat(path: &Path) -> Result<(u32, u32, u32), String> {
    let meta =
        fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777))
}

/// What the merged tree must look like whoever owns what.
fn check_deletions(root: &Path) -> Outcome {
    check!(!root.join("var/gone").exists());
    check!(root.join("var/mail").exists());
    check!(!root.join("opaque/below").exists());
    check!(root.join("opaque/above").exists());
    Ok(())
}

fn owners_and_deletions() -> Outcome {
    let maps = IdMaps::detect();
    if maps.is_single() {
        let why = maps.why_single.unwrap_or_default();
        return Err(format!("skipped: {why}"));
    }
    let temp = tempfile::tempdir().map_err(text)?;
    let store = Store::open(temp.path(), &maps).map_err(text)?;
    if !store.probe_overlay().map_err(text)?.works {
        return Err("skipped: no overlay in a user namespace".to_owned());
    }
    inside(&maps, || {
        let snapshot = put(&store)?;
        mount(&snapshot)?;
        let root = &snapshot.merged;
        check_deletions(root)?;
        check!(stat(&root.join("var"))? == (0, 50, 0o2775));
        check!(stat(&root.join("var/mail"))? == (8, 8, 0o660));
        check!(stat(&root.join("home"))? == (1000, 1000, 0o700));
        check!(stat(&root.join("home/secret"))? == (1000, 1000, 0o600));
        check!(stat(&root.join("bin/su"))? == (0, 0, 0o4755));
        check!(stat(&root.join("bin/game"))? == (0, 60, 0o2755));
        check!(stat(&root.join("link"))?.0 == 33);
        let mut value = [0; 64];
        let len =
            rustix::fs::getxattr(root.join("bin/ping"), "security.capability", &mut value[..])
                .map_err(text)?;
        check!(len >= 20 && value[5] == 0x20);
        // An id that nobody mapped: kept in a note.
        check!(stat(&root.join("far"))?.2 == 0o640);
        let noted = rustix::fs::getxattr(
            store.layer_dir(&Digest::sha256(&layers()[0])).join("far"),
            "user.rootlesscontainers",
            &mut value[..],
        );
        check!(noted.is_ok() == (stat(&root.join("far"))?.0 == 0));
        // What a container leaves behind.
        let made = root.join("home/made");
        fs::create_dir(&made).map_err(text)?;
        fs::write(made.join("file"), "x").map_err(text)?;
        std::os::unix::fs::chown(&made, Some(1000), Some(1000)).map_err(text)?;
        fs::set_permissions(&made, PermissionsExt::from_mode(0o700)).map_err(text)?;
        fs::remove_dir_all(root.join("var")).map_err(text)
    })?;
    let removed = store.remove_snapshot("c").map_err(text)?;
    let root = rustix::process::geteuid().is_root();
    check!(
        removed
            == if root {
                Removal::Whole
            } else {
                Removal::Partly
            }
    );
    check!(store.snapshot("c").map_err(text)?.is_none());
    // Inside, the rest goes, and the image too.
    inside(&maps, || {
        store.sweep();
        let record = store
            .image_by_name("localhost/test:latest")
            .map_err(text)?
            .ok_or("the image is gone")?;
        let removed = store.remove_image(&record.id).map_err(text)?;
        check!(removed.collected.layers.len() == 2 && !removed.collected.partly);
        Ok(())
    })?;
    check!(fs::read_dir(temp.path().join("tmp")).map_err(text)?.count() == 0);
    Ok(())
}

fn one_id_is_enough() -> Outcome {
    let maps = IdMaps::single();
    let temp = tempfile::tempdir().map_err(text)?;
    let store = Store::open(temp.path(), &maps).map_err(text)?;
    if !store.probe_overlay().map_err(text)?.works {
        return Err("skipped: no overlay in a user namespace".to_owned());
    }
    inside(&maps, || {
        let snapshot = put(&store)?;
        mount(&snapshot)?;
        let root = &snapshot.merged;
        check_deletions(root)?;
        check!(stat(&root.join("home/secret"))? == (0, 0, 0o600));
        check!(stat(&root.join("bin/su"))? == (0, 0, 0o4755));
        Ok(())
    })?;
    check!(store.remove_snapshot("c").map_err(text)? == Removal::Whole);
    Ok(())
}

fn a_full_disk_leaves_nothing() -> Outcome {
    let maps = IdMaps::single();
    let temp = tempfile::tempdir().map_err(text)?;
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["a/one", "b/two", "three"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(300_000);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, &[7; 300_000][..])
            .map_err(text)?;
    }
    let tar = builder.into_inner().map_err(text)?;
    inside(&maps, || {
        // At each size something else does not fit.
        for size in ["64k", "128k", "400k", "700k", "860k"] {
            let options = std::ffi::CString::new(format!("size={size}")).map_err(text)?;
            rustix::mount::mount(
                "tmpfs",
                temp.path(),
                "tmpfs",
                MountFlags::empty(),
                options.as_c_str(),
            )
            .map_err(text)?;
            let store = Store::open(&temp.path().join("store"), &maps).map_err(text)?;
            let mut stage = store.stage_layer().map_err(text)?;
            let error = stage.unpack(&tar[..]).err().ok_or("it fitted")?;
            check!(matches!(error, rcon_store::Error::NoSpace { .. }));
            check!(error.hint().is_some());
            drop(stage);
            let tmp = temp.path().join("store/tmp");
            check!(fs::read_dir(tmp).map_err(text)?.count() == 0);
            rustix::mount::unmount(temp.path(), rustix::mount::UnmountFlags::empty())
                .or_else(|_| {
                    rustix::mount::unmount(temp.path(), rustix::mount::UnmountFlags::DETACH)
                })
                .map_err(text)?;
        }
        Ok(())
    })
}
