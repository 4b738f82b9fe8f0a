//! What `-v`, `--mount` and `volume create --opt` can be asked for beyond a plain directory.

use std::fs;

use crate::lab::Rcon;
use crate::lab::fake::{Fake, Fault};
use crate::lab::scenario::scenarios;
use crate::lab::tar::{Entry, Image, layer};

scenarios!(
    given_to_the_user,
    new_volumes,
    owners_that_are_not_changed,
    overlays,
    images,
    parts,
    volumes_with_options,
    volumes_from_outside,
    fields_of_mounts
);

const OWNERS: &str = "stat -c '%u:%g %n' /v /v/d /v/d/f; touch /v/d/new && echo written";
const APPS: &str = "1000:1000 /v\n1000:1000 /v/d\n1000:1000 /v/d/f\nwritten\n";

fn given_to_the_user(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("dir");
    t.write("dir/d/f", "text");
    for mount in [
        vec!["-v".to_string(), format!("{dir}:/v:U")],
        // A second time there is nothing to change.
        vec!["-v".to_string(), format!("{dir}:/v:U,z")],
        vec![
            "--mount".to_string(),
            format!("type=bind,src={dir},dst=/v,U=true"),
        ],
    ] {
        let mut words = vec!["run", "--rm", "-u", "app"];
        words.extend(mount.iter().map(String::as_str));
        words.extend([image.as_str(), "sh", "-c", OWNERS]);
        t.run(&words).prints(APPS);
    }
    // Those of the user who makes the container, again.
    let bind = format!("{dir}:/v:U");
    t.run(&[
        "run", "--rm", "-v", &bind, &image, "stat", "-c", "%u", "/v/d/f",
    ])
    .prints("0\n");
    fs::remove_dir_all(&dir).unwrap();

    // Volumes, also read-only, and memory.
    let fill = "mkdir -p /v/d; touch /v/d/f";
    t.ok(&["run", "--rm", "-v", "data:/v", &image, "sh", "-c", fill]);
    let read = "stat -c '%u:%g %n' /v /v/d /v/d/f; touch /v/new";
    let out = t.sh(&["-u", "app", "-v", "data:/v:U,ro"], &image, read);
    out.code(1).shows(APPS.strip_suffix("written\n").unwrap());
    out.says("read-only");
    let tmpfs = "type=tmpfs,dst=/v,chown";
    let script = "stat -c %u:%g /v; mkdir /v/d && echo made";
    t.sh(&["-u", "app", "--mount", tmpfs], &image, script)
        .prints("1000:1000\nmade\n");
    // A container that is started again gives what has come since.
    t.ok(&[
        "create",
        "--name",
        "c",
        "-u",
        "app",
        "-v",
        "data:/v:U",
        &image,
        "sh",
        "-c",
        OWNERS,
    ]);
    t.run(&["start", "-a", "c"]).prints(APPS);
    let touch = "rm /v/d/new; touch /v/d/f2; chown 0:0 /v/d/f";
    t.ok(&["run", "--rm", "-v", "data:/v", &image, "sh", "-c", touch]);
    t.run(&["start", "-a", "c"]).prints(APPS);
    t.ok(&["rm", "c"]);
    t.ok(&["volume", "rm", "data"]);
}

/// A new volume is its first user's, unless the image has something in its place.
fn new_volumes(t: &mut Rcon) {
    let image = t.pull("busybox");
    let owner = |volume: &str, user: &str| {
        let script = "stat -c %u:%g ${0#*:}";
        t.ok(&[
            "run", "--rm", "-u", user, "-v", volume, &image, "sh", "-c", script, volume,
        ])
    };
    assert_eq!(owner("a:/nowhere", "app"), "1000:1000");
    assert_eq!(owner("a:/nowhere", "0"), "1000:1000");
    assert_eq!(owner("b:/nowhere", "0"), "0:0");
    assert_eq!(owner("b:/nowhere", "app"), "0:0");
    assert_eq!(owner("c:/home/app", "0"), "1000:1000");
    assert_eq!(owner("d:/var/www", "app"), "0:0");
    t.ok(&["volume", "create", "made"]);
    assert_eq!(owner("made:/nowhere", "app"), "1000:1000");
    t.ok(&["volume", "rm", "-a"]);
}

fn owners_that_are_not_changed(t: &mut Rcon) {
    let image = t.pull("busybox");
    let out = t.run(&["run", "--rm", "-v", "/etc:/v:U", &image, "true"]);
    out.refused(125)
        .says("chowning host path \"/etc\" is not allowed");
    // A link leads nowhere else.
    let dir = t.mkdir("dir");
    let other = t.write("other", "text");
    let link = format!("{dir}/link");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(t.user.uid), Some(t.user.gid)).unwrap();
    let before = fs::metadata(&other).unwrap();
    let bind = format!("{dir}:/v:U");
    t.ok(&["run", "--rm", "-u", "app", "-v", &bind, &image, "true"]);
    use std::os::unix::fs::MetadataExt;
    let after = fs::metadata(&other).unwrap();
    assert_eq!((before.uid(), before.gid()), (after.uid(), after.gid()));
    t.run(&["run", "--rm", "-v", "/v:/v:U,U", &image, "true"])
        .refused(125)
        .says("can only specify 1 'U' option");
    fs::remove_dir_all(&dir).unwrap();
}

fn overlays(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("dir");
    t.write("dir/f", "hosted");
    let bind = format!("{dir}:/v:O");
    let script = "cat /v/f; echo changed > /v/f; echo new > /v/new; cat /v/f /v/new";
    t.run(&["run", "--rm", "-v", &bind, &image, "sh", "-c", script])
        .prints("hostedchanged\nnew\n");
    assert_eq!(fs::read_to_string(format!("{dir}/f")).unwrap(), "hosted");
    assert!(fs::metadata(format!("{dir}/new")).is_err());
    // Each start begins anew.
    t.ok(&[
        "create", "--name", "c", "-v", &bind, &image, "sh", "-c", script,
    ]);
    for _ in 0..2 {
        t.run(&["start", "-a", "c"]).prints("hostedchanged\nnew\n");
    }
}

fn images(t: &mut Rcon) {
    let image = t.pull("busybox");
    let layered = t.pull("tall");
    for name in [&image, &layered] {
        let mount = format!("type=image,source={name},target=/i");
        let out = t.sh(&["--mount", &mount], &image, "ls -d /i/bin; touch /i/x");
        out.code(1).shows("/i/bin\n").says("read-only");
        let mount = format!("type=image,src={name},dst=/i,rw=true");
        t.sh(&["--mount", &mount], &image, "echo x > /i/x; cat /i/x")
            .prints("x\n");
        t.run(&["run", "--rm", name, "ls", "/x"]).code(1);
    }
    t.run(&[
        "run",
        "--rm",
        "--mount",
        "type=image,src=nosuch,dst=/i",
        &image,
        "true",
    ])
    .refused(125)
    .says("nosuch");
    // However many layers it has.
    let files: Vec<String> = (0..300).map(|number| format!("f{number}")).collect();
    let file = |name: &String| layer(&[Entry::File(name, b"x")]);
    let layers: Vec<Vec<u8>> = files.iter().map(file).collect();
    let high = Fake::start(Image::of(&layers), Fault::None);
    let high = high.name();
    t.ok(&["pull", "-q", &high]);
    for (how, end) in [("ro", "1"), ("rw", "0")] {
        let mount = format!("type=image,src={high},dst=/i,{how}=true");
        let script = "ls /i | wc -l; cat /i/f0 /i/f299; touch /i/new 2>/dev/null; echo $?";
        t.run(&["run", "--rm", "--mount", &mount, &image, "sh", "-c", script])
            .prints(&format!("300\nxx{end}\n"));
    }
    t.ok(&["rmi", &high]);
    // An image that a container has mounted stays.
    let mount = format!("type=image,src={layered},dst=/i");
    t.ok(&[
        "create", "--name", "c", "--mount", &mount, &image, "ls", "-d", "/i/bin",
    ]);
    t.run(&["rmi", &layered]).refused(2).says("use");
    t.run(&["start", "-a", "c"]).prints("/i/bin\n");
    assert_eq!(
        t.inspect(
            "c",
            "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}"
        ),
        "image /i false"
    );
    t.ok(&["rm", "c"]);
    t.run(&["rmi", &layered]).code(0);
}

fn parts(t: &mut Rcon) {
    let image = t.pull("busybox");
    let mount = format!("type=image,src={image},dst=/i,subpath=etc");
    t.run(&["run", "--rm", "--mount", &mount, &image, "ls", "/i/group"])
        .prints("/i/group\n");
    let mount = format!("type=image,src={image},dst=/g,subpath=/etc/group");
    t.run(&[
        "run",
        "--rm",
        "--mount",
        &mount,
        &image,
        "cmp",
        "/g",
        "/etc/group",
    ])
    .prints("");
    let fill = "mkdir /v/a; echo one > /v/a/f; ln -s /etc /v/out";
    t.ok(&["run", "--rm", "-v", "data:/v", &image, "sh", "-c", fill]);
    let of = |part: &str| format!("type=volume,src=data,dst=/v,subpath={part}");
    let cat = |part: &str| t.run(&["run", "--rm", "--mount", &of(part), &image, "cat", "/v/f"]);
    cat("a").prints("one\n");
    for bad in ["nosuch", "out"] {
        cat(bad).refused(126).says(bad);
    }
    cat("../data").refused(125).says("subpath");
    t.ok(&["volume", "rm", "data"]);
}

fn volumes_with_options(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("dir");
    t.write("dir/f", "hosted");
    let device = format!("device={dir}");
    t.ok(&[
        "volume",
        "create",
        "--opt",
        "type=none",
        "--opt",
        "o=bind,ro",
        "-o",
        &device,
        "bound",
    ]);
    let out = t.sh(&["-v", "bound:/v"], &image, "cat /v/f; touch /v/x");
    out.code(1).says("read-only").shows("hosted");
    t.ok(&[
        "volume",
        "create",
        "--opt",
        "type=tmpfs",
        "--opt",
        "device=tmpfs",
        "--opt",
        "o=size=1m,mode=0700",
        "memory",
    ]);
    let script = "stat -c %a /v; df -k /v | awk 'NR == 2 {print $2}'; touch /v/x; ls /v";
    for _ in 0..2 {
        t.run(&["run", "--rm", "-v", "memory:/v", &image, "sh", "-c", script])
            .prints("700\n1024\nx\n");
    }
    t.ok(&["volume", "create", "--opt", "o=uid=1000,gid=1000", "owned"]);
    t.sh(
        &["-u", "app", "-v", "owned:/v"],
        &image,
        "touch /v/x && ls /v",
    )
    .prints("x\n");
    t.run(&[
        "volume",
        "inspect",
        "owned",
        "--format",
        "{{.UID}} {{.GID}} {{.Options.o}}",
    ])
    .prints("1000 1000 uid=1000,gid=1000\n");
    t.run(&["volume", "ls", "-q", "--filter", "opt=type=tmpfs"])
        .prints("memory\n");
    t.run(&["volume", "ls", "-q", "--filter", "opt=type"])
        .prints("bound\nmemory\n");
    // What only the machine's root can mount, and what is no option at all.
    for (options, message) in [
        (&["type=nfs", "device=h:/x"][..], "volumes of type \"nfs\""),
        (&["foo=bar"], "invalid mount option foo"),
        (&["o=size=1m"], "quota"),
        (&["novalue"], "invalid option format"),
    ] {
        let mut words = vec!["volume", "create"];
        options.iter().for_each(|o| words.extend(["--opt", o]));
        words.push("bad");
        t.run(&words).refused(125).says(message);
    }
    t.run(&["volume", "exists", "bad"]).code(1);
    // A directory that has gone is told when it is needed.
    fs::remove_dir_all(&dir).unwrap();
    t.run(&["run", "--rm", "-v", "bound:/v", &image, "true"])
        .refused(125)
        .says(&dir);
    t.ok(&["volume", "rm", "-a"]);
}

fn volumes_from_outside(t: &mut Rcon) {
    let image = t.pull("busybox");
    let fill = "echo text > /v/f; chown app /v/f";
    t.ok(&["run", "--rm", "-v", "data:/v", &image, "sh", "-c", fill]);
    t.run(&["volume", "mount", "data"])
        .refused(125)
        .says("must execute `rcon unshare` first");
    let rcon = t.program.to_str().unwrap();
    let script = format!("cat $({rcon} volume mount data)/f && {rcon} volume unmount data");
    t.run(&["unshare", "sh", "-c", &script])
        .prints("text\ndata\n");
    t.run(&["unshare", rcon, "volume", "mount", "nosuch"])
        .code(125)
        .says("no such volume");
    t.ok(&["volume", "rm", "data"]);
}

fn fields_of_mounts(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("dir");
    let options = |mount: &str| {
        let script = "grep ' /m ' /proc/self/mountinfo | cut -d' ' -f6,7";
        t.ok(&["run", "--rm", "--mount", mount, &image, "sh", "-c", script])
    };
    let bind = |more: &str| options(&format!("type=bind,src={dir},dst=/m{more}"));
    assert!(bind("").starts_with("rw,"));
    assert!(bind(",ro").starts_with("ro,"));
    assert!(bind(",readonly=true").starts_with("ro,"));
    assert!(bind(",noexec,nosuid,nodev").contains("nosuid,nodev,noexec"));
    let mount = format!("type=bind,src={dir},dst=/m,relabel=shared,Z=true");
    t.run(&["run", "--rm", "--mount", &mount, &image, "true"])
        .refused(125)
        .says("cannot pass 'relabel' option more than once");
    let tmpfs = |more: &str, script: &str| {
        let mount = format!("type=tmpfs,dst=/m{more}");
        t.ok(&["run", "--rm", "--mount", &mount, &image, "sh", "-c", script])
    };
    let size = "df -k /m | awk 'NR == 2 {print $2}'";
    assert_eq!(tmpfs(",tmpfs-size=2m", size), "2048");
    assert_eq!(tmpfs(",tmpfs-mode=1711", "stat -c %a /m"), "1711");
}
