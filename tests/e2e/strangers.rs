//! Round trips with other tools: what rcon unpacks is, file by file, what umoci unpacks.

use std::collections::BTreeSet;
use std::process::Command;

use crate::lab::scenario::scenarios;
use crate::lab::{Mode, Rcon, lab, skip};

scenarios!(same_as_umoci);

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
