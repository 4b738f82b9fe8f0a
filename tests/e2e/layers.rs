//! What layers can hold, good and bad, and what of it a container sees.

use std::fs;

use crate::lab::Rcon;
use crate::lab::fake::{Fake, Fault};
use crate::lab::scenario::scenarios;
use crate::lab::tar::{Entry, Image, layer};

scenarios!(
    odd_files,
    owners,
    many_layers,
    compressions_agree,
    escapes,
    devices_in_layers,
    whiteouts_of_everything
);

fn odd_files(t: &mut Rcon) {
    let image = t.pull("odd");
    let sh = |script: &str| {
        t.sh(&[], &image, &format!("cd /odd; {script}"))
            .ok()
            .to_owned()
    };
    assert_eq!(
        sh("ls -d gone dir/a opaque/old opaque/sub 2>/dev/null; cat dir/b opaque/new"),
        "b\nnew"
    );
    assert_eq!(
        sh("cat replaced; cat becomes-dir/inside; ls becomes-dir"),
        "a file now\ninside\ninside"
    );
    assert_eq!(
        sh("cat soft absolute climbing hard; stat -c %h keep hard"),
        "keep\nkeep\nkeep\nkeep\n2\n2"
    );
    assert_eq!(
        sh("test -p fifo && stat -c '%a %n' setuid sticky mode0"),
        "4755 setuid\n1777 sticky\n0 mode0"
    );
    assert_eq!(
        sh("cat 'with space'; cat with*line; cat byte-*"),
        "space\nnewline\nbyte"
    );
    assert_eq!(
        sh("stat -c %s sparse; tail -c 3 sparse; head -c 1048576 sparse | tr -d '\\0' | wc -c"),
        "1048579\nend0"
    );
    assert_eq!(sh("cat long/*/*/*/*/file"), "deep");
    assert_eq!(sh("stat -c %Y owned"), "1234567890");
    assert_eq!(sh("find / -xdev -name '.wh.*'"), "");
}

fn owners(t: &mut Rcon) {
    let image = t.pull("odd");
    let owner = |path: &str| t.ok(&["run", "--rm", &image, "stat", "-c", "%u:%g", path]);
    // With one id they are made up.
    assert_eq!(owner("/odd/owned"), "1234:5678");
    assert_eq!(owner("/home/app/note"), "1000:1000");
    t.sh(
        &["-u", "app"],
        &image,
        "echo x >> /home/app/note && echo y > /home/app/new && stat -c %u /home/app/new",
    )
    .prints("1000\n");
    assert_eq!(owner("/odd/keep"), "0:0");
}

fn many_layers(t: &mut Rcon) {
    let image = t.pull("tall");
    t.sh(&[], &image, "cat /tall/last; ls /tall | wc -l")
        .prints("40\n41\n");
}

fn compressions_agree(t: &mut Rcon) {
    let list = "find / -xdev -exec stat -c '%n %f %u %g %s %Y' {} + 2>/dev/null | grep -v -E '^/(etc/(hosts|resolv.conf|hostname)|run|dev|proc|sys)|^/ |^/etc ' | sort | sha256sum";
    let sums: Vec<String> = ["busybox:latest", "busybox:docker", "busybox:zstd"]
        .iter()
        .map(|tag| {
            let image = t.pull(tag);
            let sum = t.ok(&["run", "--rm", &image, "sh", "-c", list]);
            t.run(&["rmi", "-f", &image]).code(0);
            sum
        })
        .collect();
    assert!(sums[0] == sums[1] && sums[1] == sums[2], "{sums:#?}");
}

/// Layers that try to write outside: whatever the answer, nothing outside is written.
fn escapes(t: &mut Rcon) {
    let canary = t.home("canary");
    let target = canary.to_str().unwrap();
    t.write("victim", "untouched\n");
    let victim = t.home("victim");
    let victim_path = victim.to_str().unwrap();
    let home = t.home("");
    let home = home.to_str().unwrap().trim_end_matches('/').to_owned();
    // Up from wherever it is unpacked, and short enough for a header.
    let up = "../".repeat(14);
    let climb = format!("{up}{target}");
    let rooted = target.to_owned();
    let through = format!("way{target}");
    let victim_climb = format!("{up}{victim_path}");
    let bad: [Vec<Entry>; 8] = [
        vec![Entry::File(&climb, b"x")],
        vec![Entry::File(&rooted, b"x")],
        vec![
            Entry::Symlink("way", &home),
            Entry::File("way/canary", b"x"),
        ],
        vec![Entry::Symlink("way", "/"), Entry::File(&through, b"x")],
        vec![
            Entry::Hardlink("stolen", victim_path),
            Entry::File("stolen", b"x"),
        ],
        vec![
            Entry::Hardlink("stolen", &victim_climb),
            Entry::File("stolen", b"x"),
        ],
        vec![
            Entry::Symlink("link", victim_path),
            Entry::File("link", b"x"),
        ],
        vec![
            Entry::Dir("d"),
            Entry::Symlink("d/up", &up),
            Entry::File("d/up/var/tmp/canary", b"x"),
        ],
    ];
    for (n, entries) in bad.iter().enumerate() {
        // tar names of the old kind hold 100 bytes.
        let fits = entries.iter().all(|e| match e {
            Entry::File(n, _) | Entry::Dir(n) | Entry::Device(n, ..) => n.len() <= 100,
            Entry::Symlink(n, l) | Entry::Hardlink(n, l) => n.len() <= 100 && l.len() <= 100,
        });
        if !fits {
            assert!(
                std::env::var_os("RCON_TEST_TMP").is_some(),
                "layer {n} has names that are too long"
            );
            continue;
        }
        let fake = Fake::start(Image::of(&[layer(entries)]), Fault::None);
        let out = t.run(&["pull", "-q", &fake.name()]);
        assert!(
            out.code == 0 || out.code == 125,
            "layer {n}\n{}",
            out.story()
        );
        assert!(
            !canary.exists() && !std::path::Path::new("/var/tmp/canary").exists(),
            "layer {n} wrote outside\n{}",
            out.story()
        );
        assert_eq!(
            fs::read_to_string(&victim).unwrap(),
            "untouched\n",
            "layer {n} wrote into a file outside"
        );
    }
}

fn devices_in_layers(t: &mut Rcon) {
    let busybox = fs::read("/bin/busybox").unwrap();
    let entries = [
        Entry::Dir("bin"),
        Entry::Dir("devices"),
        Entry::File("bin/busybox", &busybox),
        Entry::Device("devices/kmsg", 1, 11),
        Entry::Device("devices/mem", 1, 1),
    ];
    let fake = Fake::start(Image::of(&[layer(&entries)]), Fault::None);
    t.run(&["pull", "-q", &fake.name()]).code(0);
    // There is no node, or one that is of no use.
    let out = t.run(&[
        "run",
        "--rm",
        &fake.name(),
        "/bin/busybox",
        "head",
        "-c",
        "1",
        "/devices/mem",
    ]);
    assert_ne!(out.code, 0, "{}", out.story());
}

fn whiteouts_of_everything(t: &mut Rcon) {
    let busybox = fs::read("/bin/busybox").unwrap();
    let layers = [
        layer(&[
            Entry::Dir("bin"),
            Entry::File("bin/busybox", &busybox),
            Entry::Dir("a"),
            Entry::File("a/x", b"1"),
            Entry::Dir("a/d"),
            Entry::File("a/d/y", b"1"),
        ]),
        // A whole folder goes and comes back as something else in the same layer, and once more above.
        layer(&[
            Entry::File(".wh.a", b""),
            Entry::Dir("a"),
            Entry::File("a/new", b"2"),
        ]),
        layer(&[
            Entry::File("a/.wh.new", b""),
            Entry::Symlink("a/d", "nowhere"),
        ]),
        layer(&[Entry::Dir("a/d"), Entry::File("a/d/z", b"4")]),
    ];
    let fake = Fake::start(Image::of(&layers), Fault::None);
    t.run(&["pull", "-q", &fake.name()]).code(0);
    t.run(&["run", "--rm", &fake.name(), "/bin/busybox", "find", "/a"])
        .prints("/a\n/a/d\n/a/d/z\n");
}
