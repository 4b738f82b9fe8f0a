//! What a program finds: its files, environment, ids and devices.

use oci_spec::runtime::{MountBuilder, Spec};
use rcon_launch::Rootfs;

use super::{Test, output, run, shell};
use crate::common::{Scene, bind, pipes, spec};

pub const TESTS: &[Test] = &[
    ("environment", environment),
    ("users", users),
    ("devices", devices),
    ("binds", binds),
    ("links_lead_nowhere", links_lead_nowhere),
    ("copy_up", copy_up),
    ("folder_as_root", folder_as_root),
    ("read_only_root", read_only_root),
    ("working_directory", working_directory),
    ("sysctls", sysctls),
    ("host_network", host_network),
    ("limits", limits),
];

fn environment(scene: &Scene) {
    let text = shell(
        scene,
        "echo $$ $HOME $(hostname) $(pwd) $(id -u) $TERM; umask; env | wc -l",
    );
    assert_eq!(text, "1 /root box / 0 xterm\n0022\n5\n");
    // What is open: the streams, and what the shell needs for looking.
    assert_eq!(shell(scene, "cd /proc/self/fd; echo *"), "0 1 2 3\n");
}

fn users(scene: &Scene) {
    let spec = spec(&["sh", "-c", "id; echo $HOME; echo again > /dev/stdout"]);
    let as_user = |user: &str, groups: &[&str]| {
        let (stdio, reader) = pipes();
        let mut request = scene.request(&spec, stdio);
        request.user = Some(user.to_owned());
        request.group_add = groups.iter().map(|group| (*group).to_owned()).collect();
        run(request, reader)
    };
    if scene.maps.is_single() {
        let error = as_user("web", &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "user id 33 is not mapped into the container"
        );
        assert_eq!(as_user("0:0", &[]).unwrap().0, 0);
        return;
    }
    let (code, text) = as_user("web", &["77"]).unwrap();
    assert_eq!(
        (code, text.as_str()),
        (
            0,
            "uid=33(web) gid=34(web) groups=4(log),34(web),77\n/var/www\nagain\n"
        )
    );
    let (_, text) = as_user("1000:log", &[]).unwrap();
    assert_eq!(text, "uid=1000 gid=4(log) groups=4(log)\n/\nagain\n");
}

fn devices(scene: &Scene) {
    let script = "echo x > /dev/null && head -c2 /dev/zero | wc -c; cat /dev/full >/dev/null & \
                  ls -l /dev/urandom /dev/random /dev/tty | cut -c1; \
                  for n in fd stdin stdout stderr ptmx core; do readlink /dev/$n; done; \
                  stat -f -c %T /dev/shm /dev/pts; stat -c %a /dev /dev/shm";
    let text = shell(with_tools(scene), script);
    assert_eq!(
        text,
        "2\nc\nc\nc\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n\
         /proc/kcore\ntmpfs\ndevpts\n755\n1777\n"
    );
}

/// Some more programs in the image.
fn with_tools(scene: &Scene) -> &Scene {
    for name in ["head", "cut"] {
        let _ = std::os::unix::fs::symlink("busybox", scene.path("layer/bin").join(name));
    }
    scene
}

fn with_mount(words: &[&str], mount: oci_spec::runtime::Mount) -> Spec {
    let mut spec = spec(words);
    let mut mounts = spec.mounts().clone().unwrap();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    spec
}

fn binds(scene: &Scene) {
    let source = scene.path("shared");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("file"), "from outside\n").unwrap();
    let spec = with_mount(
        &["sh", "-c", "cat /a/b/file; echo new > /a/b/made"],
        bind(&source, "/a/b", &["rbind"]),
    );
    assert_eq!(output(scene, &spec), "from outside\n");
    assert_eq!(
        std::fs::read_to_string(source.join("made")).unwrap(),
        "new\n"
    );
    for option in ["ro", "rro"] {
        let spec = with_mount(
            &["sh", "-c", "cat /file; echo x > /file || echo refused"],
            bind(&source.join("file"), "/file", &["rbind", option, "nosuid"]),
        );
        let text = output(scene, &spec);
        assert!(text.starts_with("from outside\n"), "{text}");
        assert!(text.ends_with("Read-only file system\nrefused\n"), "{text}");
    }
}

/// Places of mounts that are links to the outside stay inside.
fn links_lead_nowhere(scene: &Scene) {
    let host = scene.path("host");
    let source = scene.path("payload");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("mark"), "mark\n").unwrap();
    let link = scene.path("layer/escape");
    let _ = std::os::unix::fs::symlink(&host, &link);
    let spec = with_mount(
        &["sh", "-c", "cat /escape/deep/mark"],
        bind(&source, "/escape/deep", &["bind"]),
    );
    assert_eq!(output(scene, &spec), "mark\n");
    assert!(std::fs::read_dir(&host).unwrap().next().is_none());
}

fn copy_up(scene: &Scene) {
    let mount = MountBuilder::default()
        .destination("/etc")
        .typ("tmpfs")
        .source("tmpfs")
        .options(["tmpcopyup", "nosuid"].map(str::to_owned).to_vec())
        .build()
        .unwrap();
    let spec = with_mount(&["sh", "-c", "cat /etc/text; stat -f -c %T /etc"], mount);
    assert_eq!(output(scene, &spec), "no program\ntmpfs\n");
}

fn folder_as_root(scene: &Scene) {
    let spec = spec(&["sh", "-c", "echo $$; touch /made"]);
    let (stdio, reader) = pipes();
    let mut request = scene.request(&spec, stdio);
    request.rootfs = Rootfs::Dir(scene.path("layer"));
    assert_eq!(run(request, reader).unwrap(), (0, "1\n".to_owned()));
    assert!(scene.path("layer/made").exists());
}

fn read_only_root(scene: &Scene) {
    let mut spec = spec(&["sh", "-c", "touch /x || touch /dev/shm/x"]);
    spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
    assert!(output(scene, &spec).contains("Read-only file system"));
}

fn working_directory(scene: &Scene) {
    let mut spec = spec(&["pwd"]);
    spec.process_mut()
        .as_mut()
        .unwrap()
        .set_cwd("/not/there".into());
    let (stdio, reader) = pipes();
    let mut request = scene.request(&spec, stdio);
    request.create_cwd = true;
    assert_eq!(
        run(request, reader).unwrap(),
        (0, "/not/there\n".to_owned())
    );
}

fn sysctls(scene: &Scene) {
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax";
    assert_eq!(shell(scene, script), "0\n8200\n");
}

fn host_network(scene: &Scene) {
    use oci_spec::runtime::LinuxNamespaceType::Network;
    let mut spec = spec(&["sh", "-c", "readlink /proc/self/ns/net; touch /sys/x"]);
    let linux = spec.linux_mut().as_mut().unwrap();
    let mut namespaces = linux.namespaces().clone().unwrap();
    namespaces.retain(|namespace| namespace.typ() != Network);
    linux.set_namespaces(Some(namespaces));
    linux.set_sysctl(None);
    let (stdio, reader) = pipes();
    let (_, text) = run(scene.request(&spec, stdio), reader).unwrap();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(text.starts_with(own.to_str().unwrap()), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
}

fn limits(scene: &Scene) {
    use oci_spec::runtime::{PosixRlimitBuilder, PosixRlimitType};
    let mut spec = spec(&["sh", "-c", "ulimit -n; ulimit -Hn"]);
    let limit = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(100_u64)
        .hard(200_u64)
        .build()
        .unwrap();
    spec.process_mut()
        .as_mut()
        .unwrap()
        .set_rlimits(Some(vec![limit]));
    assert_eq!(output(scene, &spec), "100\n200\n");
}
