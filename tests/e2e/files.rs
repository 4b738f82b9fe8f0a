//! What a container sees of files: its own root, bind mounts, volumes, tmpfs, read-only roots.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::lab::Rcon;
use crate::lab::scenario::scenarios;

scenarios!(
    root_is_its_own,
    bind_mounts,
    mount_option,
    refused_mounts,
    named_volumes,
    anonymous_volumes,
    temporary_file_systems,
    read_only_root,
    devices,
);

fn root_is_its_own(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.sh(
        &[],
        &image,
        "echo x > /bin/new && rm /etc/group && ls /bin/new",
    )
    .prints("/bin/new\n");
    // The image is as it was.
    t.sh(&[], &image, "ls /bin/new; ls /etc/group")
        .code(0)
        .shows("/etc/group");
    t.sh(&[], &image, "df / | tail -n1 | grep -q overlay || df /")
        .code(0);
    // Renaming a folder of a lower layer, appending to a file of it, links.
    let script = "mv /var/www /var/moved && echo y >> /etc/passwd && tail -n1 /etc/passwd && ln /etc/group /etc/hard && stat -c %h /etc/hard";
    t.run(&["run", "--rm", &image, "sh", "-c", script])
        .prints("y\n2\n");
}

fn bind_mounts(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("shared");
    t.write("shared/from-host", "host\n");
    let at = |options: &str| format!("{dir}:/mnt/deep{options}");
    t.sh(
        &["-v", &at("")],
        &image,
        "cat /mnt/deep/from-host && echo back > /mnt/deep/out",
    )
    .prints("host\n");
    let made = t.home("shared/out");
    assert_eq!(fs::read_to_string(&made).unwrap(), "back\n");
    assert_eq!(
        fs::metadata(&made).unwrap().uid(),
        t.user.uid,
        "root of the container is the user outside"
    );
    t.run(&[
        "run",
        "--rm",
        "-v",
        &at(":ro"),
        &image,
        "touch",
        "/mnt/deep/no",
    ])
    .code(1)
    .says("read-only");
    t.run(&[
        "run",
        "--rm",
        "-v",
        &at(":ro"),
        &image,
        "cat",
        "/mnt/deep/out",
    ])
    .prints("back\n");
    // One file over another.
    let file = t.write("motd", "mounted\n");
    t.run(&[
        "run",
        "--rm",
        "-v",
        &format!("{file}:/etc/group"),
        &image,
        "cat",
        "/etc/group",
    ])
    .prints("mounted\n");
    // Options that podman takes and that change nothing here.
    t.run(&["run", "--rm", "-v", &at(":rw,z"), &image, "ls", "/mnt/deep"])
        .prints("from-host\nout\n");
}

fn mount_option(t: &mut Rcon) {
    let image = t.pull("busybox");
    let dir = t.mkdir("shared");
    t.write("shared/file", "x\n");
    let bind = format!("type=bind,source={dir},destination=/m,ro=true");
    t.sh(
        &["--mount", &bind],
        &image,
        "cat /m/file; touch /m/no || echo denied",
    )
    .prints("x\ndenied\n");
    let bind = format!("type=bind,src={dir},target=/m");
    t.run(&["run", "--rm", "--mount", &bind, &image, "touch", "/m/yes"])
        .code(0);
    t.sh(
        &["--mount", "type=tmpfs,destination=/m,tmpfs-size=1m"],
        &image,
        "df -k /m | tail -n1 | awk '{print $2}'",
    )
    .prints("1024\n");
    t.run(&[
        "run",
        "--rm",
        "--mount",
        "type=nosuch,destination=/m",
        &image,
        "true",
    ])
    .refused(125)
    .says("nosuch");
    t.run(&[
        "run",
        "--rm",
        "--mount",
        &format!("type=bind,source={dir}"),
        &image,
        "true",
    ])
    .refused(125);
}

fn refused_mounts(t: &mut Rcon) {
    let image = t.pull("busybox");
    let refuse = |volume: &str, says: &str| {
        t.run(&["run", "--rm", "-v", volume, &image, "true"])
            .refused(125)
            .says(says);
    };
    refuse("/nonexistent-dir:/x", "/nonexistent-dir");
    refuse("rel/path:/x", "rel/path");
    refuse("/tmp:relative", "relative");
    refuse("/tmp:/x:nosuch", "nosuch");
    refuse(":/x", "empty");
    t.has_containers(0);
}

fn named_volumes(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.sh(&["-v", "keep:/data"], &image, "echo kept > /data/x")
        .code(0)
        .quiet();
    t.run(&["run", "--rm", "-v", "keep:/data", &image, "cat", "/data/x"])
        .prints("kept\n");
    // A new volume gets what the image has at that place.
    t.run(&[
        "run",
        "--rm",
        "-v",
        "copy:/etc",
        &image,
        "cat",
        "/etc/group",
    ])
    .shows("root:");
    // Volumes with names outlive containers; the scenario takes them away by hand.
    let volumes = t.root().join("volumes");
    assert!(volumes.exists(), "no {}", volumes.display());
    let dir = volumes.to_str().unwrap();
    t.run(&["unshare", "rm", "-rf", dir]).code(0);
}

fn anonymous_volumes(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.sh(&["-v", "/data"], &image, "echo x > /data/x").code(0);
    let id = t.ok(&[
        "create",
        "-v",
        "/data",
        &image,
        "sh",
        "-c",
        "echo x >> /data/x; wc -l < /data/x",
    ]);
    t.run(&["start", "-a", &id]).prints("1\n");
    t.run(&["start", "-a", &id]).prints("2\n");
    t.run(&["rm", "-v", &id]).code(0);
}

fn temporary_file_systems(t: &mut Rcon) {
    let image = t.pull("busybox");
    let out = t.run(&["run", "--rm", "--tmpfs", "/scratch:size=2m,mode=0700", &image, "sh", "-c", "grep ' /scratch ' /proc/mounts; df -k /scratch | tail -n1 | awk '{print $2}'; stat -c %a /scratch"]);
    out.shows("tmpfs")
        .shows("nosuid")
        .shows("nodev")
        .shows("\n2048\n700\n");
    t.sh(
        &["--tmpfs", "/scratch"],
        &image,
        "echo x > /scratch/x && cat /scratch/x",
    )
    .prints("x\n");
    t.run(&["run", "--rm", "--tmpfs", "relative", &image, "true"])
        .refused(125)
        .says("relative");
}

fn read_only_root(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", "--read-only", &image, "touch", "/x"])
        .code(1)
        .says("read-only");
    // As with podman, what programs need for scratch stays writable.
    let script = "for d in /tmp /run /var/tmp /dev/shm; do touch $d/x || exit 1; done; echo fine";
    t.run(&["run", "--rm", "--read-only", &image, "sh", "-c", script])
        .prints("fine\n");
}

fn devices(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
        echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
        test -L /dev/fd && test -L /dev/stdin && test -d /dev/pts && test -d /dev/shm && test -d /dev/mqueue && echo there; \
        ls /dev | grep -c -E '^(sd|vd|nvme|mem|kmsg)' ";
    t.run(&["run", "--rm", &image, "sh", "-c", script])
        .shows("4\n4\nthere\n0\n");
}
