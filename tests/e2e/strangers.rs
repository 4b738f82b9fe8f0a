//! Round trips with other tools: what rcon unpacks is, file by file, what umoci unpacks.

use std::collections::BTreeSet;
use std::process::Command;

use crate::as_runtime::Podman;
use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, lab, registry, skip};

scenarios!(same_as_umoci, there_and_back_with_podman);

/// All there is to say of a tree, in records that end with a zero: kinds, modes, owners (if they count), times, sizes,
/// links, contents, the attributes of users.
fn survey(owners: bool) -> String {
    let owner = if owners { "%U:%G" } else { "" };
    // Sizes and links of directories are the file system's own affair.
    format!(
        "find . -mindepth 1 -type d -printf 'd %m {owner} %T@ %p\\0'
         find . -mindepth 1 ! -type d -printf '%y %m {owner} %T@ %s %n %l %p\\0'
         find . -type f -print0 | sort -z | xargs -0 sha256sum -z
         find . ! -type l -exec getfattr -d -m '^user[.][^r]' -h {{}} + | tr '\\n' '\\0'"
    )
}

fn records(bytes: &[u8]) -> BTreeSet<String> {
    bytes
        .split(|&byte| byte == 0)
        .map(|record| String::from_utf8_lossy(record).into_owned())
        .collect()
}

fn same_as_umoci(t: &mut Rcon) {
    if !lab().root {
        return skip("only root can unpack with owners");
    }
    let owners = t.mode == Mode::ManyIds;
    for name in ["busybox", "odd", "tall", "webapp"] {
        let image = t.pull(name);
        let bundle = t.dir.join(format!("umoci-{name}"));
        let out = Command::new("umoci")
            .args(["unpack", "--image"])
            .arg(format!("{}:{name}", lab().cache.join("layout").display()))
            .arg(&bundle)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let theirs = Command::new("sh")
            .args(["-c", &survey(owners)])
            .current_dir(bundle.join("rootfs"))
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        std::fs::remove_dir_all(&bundle).unwrap();
        let program = t.program.to_str().unwrap();
        let script = format!(
            "export LC_ALL=C; cd $({program} image mount {image}) && {{ {}; }}",
            survey(owners).replace('\n', ";")
        );
        let ours = t
            .command(&["unshare", "sh", "-c", &script])
            .output()
            .unwrap();
        assert!(
            ours.status.success(),
            "{}",
            String::from_utf8_lossy(&ours.stderr)
        );
        let (ours, theirs) = (records(&ours.stdout), records(&theirs.stdout));
        assert!(ours.len() > 20);
        let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Vec<String> {
            a.difference(b).take(10).cloned().collect()
        };
        assert!(
            ours == theirs,
            "{name}\nonly rcon: {:#?}\nonly umoci: {:#?}",
            only(&ours, &theirs),
            only(&theirs, &ours)
        );
    }
}

/// An image of rcon's in every form that it can have is podman's by the same id, and runs there as it does here; what podman
/// makes of it comes back.
fn there_and_back_with_podman(t: &mut Rcon) {
    let image = t.pull("busybox");
    let Some(podman) = Podman::new(t) else { return };
    let change = "rm /etc/group; echo new >/new; ln /new /hard; ln -s new /soft; chmod 4755 /new
        mkdir -p /dir/dir; chown 5:6 /dir; chmod 1777 /dir; touch -d '2001-02-03 04:05:06' /dir/old; mkfifo /fifo
        dd if=/dev/zero of=/holes bs=1 count=1 seek=1000000 2>/dev/null";
    let look = "ls /etc/group 2>/dev/null; cat /soft; stat -c '%A %h %u:%g %s %Y %n' /new /hard /soft /dir /dir/old /fifo /holes";
    t.ok(&["run", "--name", "c", &image, "sh", "-c", change]);
    let here = t.ok(&["run", "--rm", &image, "true"]);
    assert_eq!(here, "");
    let address = registry::writable().address.as_str();
    let number = t.dir.file_name().unwrap().to_str().unwrap().to_owned();
    for format in ["oci", "docker"] {
        let name = format!("localhost/{format}:1");
        t.ok(&[
            "commit", "-q", "-f", format, "--change", "ENV A=b", "c", &name,
        ]);
        let id = t.inspect(&name, "{{.Id}}");
        let here = t.ok(&["run", "--rm", &name, "sh", "-c", look]);
        assert!(
            here.starts_with("new\n") && here.lines().count() == 8,
            "{here}"
        );
        let runs = |name: &str| {
            let words = ["run", "--rm", "--network=none", name, "sh", "-c", look];
            assert_eq!(podman.ok(&words), here, "{name}");
            assert_eq!(podman.ok(&["image", "inspect", "-f", "{{.Id}}", name]), id);
            podman.ok(&["rmi", "-f", name]);
        };
        for words in [
            &["--compression-format", "gzip"][..],
            &["--compression-format", "zstd", "--format", "oci"],
            &["--format", "v2s2"],
        ] {
            let to = format!("{address}/strangers-{number}/{format}:1");
            let push = [&["push", "-q", "--tls-verify=false"], words, &[&name, &to]].concat();
            t.ok(&push);
            podman.ok(&["pull", "-q", "--tls-verify=false", &to]);
            runs(&to);
        }
        for kind in ["docker-archive", "oci-archive", "docker-dir", "oci-dir"] {
            let (ours, theirs) = (t.home("ours"), t.home("theirs"));
            let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
            t.ok(&["save", "-q", "--format", kind, "-o", ours, &name]);
            let named = |said: String| said.trim().replace("Loaded image: ", "");
            // Its `load` does not know folders of this kind, and other folders have no names.
            let from = named(match kind {
                "docker-dir" => podman.ok(&["pull", "-q", &format!("dir:{ours}")]),
                _ => podman.ok(&["load", "-q", "-i", ours]),
            });
            podman.ok(&["save", "-q", "--format", kind, "-o", theirs, &from]);
            runs(&from);
            t.ok(&["rmi", "-f", &name]);
            let back = named(match kind {
                "docker-dir" => t.ok(&["pull", "-q", &format!("dir:{theirs}")]),
                _ => t.ok(&["load", "-q", "-i", theirs]),
            });
            assert_eq!(t.inspect(&back, "{{.Id}}"), id, "{kind}");
            assert_eq!(
                t.ok(&["run", "--rm", &back, "sh", "-c", look]),
                here,
                "{kind}"
            );
            t.ok(&["tag", &id, &name]);
            for path in [ours, theirs] {
                let gone = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
                gone.unwrap();
            }
        }
    }
    podman.clear();
}
