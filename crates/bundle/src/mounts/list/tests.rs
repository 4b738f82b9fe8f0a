use super::*;
use crate::mounts::{tmpfs, volume};

fn context() -> Context {
    Context {
        resolv_file: Some("/c/resolv.conf".into()),
        hosts_file: Some("/c/hosts".into()),
        hostname_file: Some("/c/hostname".into()),
        container_env_file: Some("/c/env".into()),
        gids: 65537,
        ..Context::default()
    }
}

fn shown(image: &ImageConfig, options: &Options, context: &Context) -> Vec<String> {
    let list = list(image, options, context, false).unwrap();
    let line = |m: &Mount| {
        format!(
            "{} {} {} {}",
            m.destination().display(),
            m.typ().as_deref().unwrap_or_default(),
            m.source().as_ref().unwrap().display(),
            m.options().as_ref().unwrap().join(",")
        )
    };
    list.iter().map(line).collect()
}

fn with(binds: &[&str]) -> Options {
    let mounts = binds
        .iter()
        .map(|b| volume(b, Path::new("/")).unwrap())
        .collect();
    Options {
        mounts,
        ..Options::default()
    }
}

fn places(options: &Options) -> Vec<String> {
    let lines = shown(&ImageConfig::default(), options, &context());
    lines
        .iter()
        .map(|l| l.split(' ').next().unwrap_or_default().to_string())
        .collect()
}

#[test]
fn the_default_list() {
    assert_eq!(
        shown(&ImageConfig::default(), &Options::default(), &context()),
        [
            "/proc proc proc nosuid,noexec,nodev",
            "/dev tmpfs tmpfs nosuid,noexec,strictatime,mode=755,size=65536k",
            "/sys sysfs sysfs nosuid,noexec,nodev,ro",
            "/dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
            "/dev/mqueue mqueue mqueue nosuid,noexec,nodev",
            "/dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=67108864",
            "/run/.containerenv bind /c/env bind,rprivate",
            "/etc/resolv.conf bind /c/resolv.conf bind,rprivate",
            "/etc/hosts bind /c/hosts bind,rprivate",
            "/etc/hostname bind /c/hostname bind,rprivate",
            "/sys/fs/cgroup cgroup cgroup rprivate,nosuid,noexec,nodev,relatime,ro",
        ]
    );
}

#[test]
fn parents_come_first() {
    let mut options = with(&["/tmp:/z/y/x", "/tmp:/a", "/tmp:/z", "/tmp:/z/y"]);
    options.mounts.push(tmpfs("/c/d").unwrap());
    let order = places(&options);
    let at = |p: &str| order.iter().position(|o| o == p).unwrap();
    assert!(at("/z") < at("/z/y") && at("/z/y") < at("/z/y/x") && at("/dev") < at("/dev/shm"));
    assert!(at("/a") < at("/c/d"));
}

#[test]
fn the_users_take_the_place_of_ours() {
    let lines = shown(
        &ImageConfig::default(),
        &with(&["/tmp:/dev/shm", "/dev/null:/etc/hosts:ro"]),
        &context(),
    );
    assert!(lines.contains(&"/dev/shm bind /tmp rw,rprivate,rbind".to_string()));
    assert!(lines.contains(&"/etc/hosts bind /dev/null ro,rprivate,rbind".to_string()));
    assert_eq!(lines.len(), 11);
}

#[test]
fn nothing_is_created_in_a_directory_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hosts"), "").unwrap();
    let order = places(&with(&[&format!("{}:/etc", dir.path().display())]));
    assert!(order.contains(&"/etc/hosts".to_string()));
    assert!(
        !order.contains(&"/etc/hostname".to_string())
            && !order.contains(&"/etc/resolv.conf".to_string())
    );
    let mut options = with(&[&format!("{}:/var", dir.path().display())]);
    options.read_only = true;
    let order = places(&options);
    assert!(order.contains(&"/tmp".to_string()) && !order.contains(&"/var/tmp".to_string()));
    // In memory and in volumes it may be.
    let options = Options {
        mounts: vec![tmpfs("/etc").unwrap()],
        ..Options::default()
    };
    assert!(places(&options).contains(&"/etc/hostname".to_string()));
}

#[test]
fn volumes_come_from_the_context() {
    let image = ImageConfig {
        volumes: vec!["/vol".into()],
        ..ImageConfig::default()
    };
    let options = with(&["data:/data:ro"]);
    let error = list(&image, &options, &context(), false)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "no directory is known for the volume at /data");
    let mut context = context();
    context.volumes = [
        ("/data".to_string(), VolumeAt::Folder("/v/d".into())),
        ("/vol".to_string(), VolumeAt::Folder("/v/a".into())),
    ]
    .into();
    let lines = shown(&image, &options, &context);
    assert!(lines.contains(&"/data bind /v/d ro,rprivate,nosuid,nodev,rbind".to_string()));
    assert!(lines.contains(&"/vol bind /v/a rprivate,rw,nodev,exec,nosuid,rbind".to_string()));
    let memory = Options {
        image_volume: ImageVolumes::Tmpfs,
        ..Options::default()
    };
    let lines = shown(&image, &memory, &context);
    assert!(
        lines.contains(&"/vol tmpfs tmpfs rprivate,rw,nodev,exec,nosuid,tmpcopyup".to_string())
    );
}

#[test]
fn volumes_of_memory_and_of_other_places() {
    let mut context = context();
    let words = |text: &str| text.split(',').map(String::from).collect();
    context.volumes = [
        ("/m".to_string(), VolumeAt::Tmpfs(words("size=1m"))),
        ("/n".to_string(), VolumeAt::New("/v/n".into())),
        (
            "/b".to_string(),
            VolumeAt::Bind("/x".into(), words("ro,noexec")),
        ),
    ]
    .into();
    let lines = shown(
        &ImageConfig::default(),
        &with(&["m:/m", "b:/b", "n:/n"]),
        &context,
    );
    assert!(lines.contains(&"/m tmpfs tmpfs rw,rprivate,nosuid,nodev,size=1m".to_string()));
    let new = "/n bind /v/n rw,rprivate,nosuid,nodev,rbind,rcon.give";
    assert!(lines.contains(&new.to_string()), "{lines:?}");
    let bind = "/b bind /x rprivate,nosuid,nodev,rbind,ro,noexec".to_string();
    assert!(lines.contains(&bind), "{lines:?}");
}

#[test]
fn layers_parts_and_owners() {
    let mut context = context();
    context.images = [("/i".to_string(), vec!["/l/2".into(), "/l/1".into()])].into();
    let mut options = with(&["/tmp:/o:O", "/nowhere/:/u:U"]);
    options
        .mounts
        .push(crate::mounts::mount("type=image,src=i,dst=/i,subpath=etc", Path::new("/")).unwrap());
    options.mounts[1].source = Source::Bind(std::env::current_dir().unwrap());
    let lines = shown(&ImageConfig::default(), &options, &context);
    let has = |line: &str| lines.iter().any(|l| l == line);
    assert!(
        has(
            "/i rcon.layers overlay ro,rprivate,nosuid,nodev,lowerdir=/l/2,lowerdir=/l/1,rcon.part=etc"
        ),
        "{lines:?}"
    );
    assert!(has("/o rcon.layers overlay rw,rprivate,lowerdir=/tmp"));
    assert!(
        lines
            .iter()
            .any(|l| l.ends_with("rw,rprivate,rbind,rcon.give"))
    );
    let options = with(&["/etc:/u:U"]);
    let error = list(&ImageConfig::default(), &options, &context, false);
    assert_eq!(
        error.unwrap_err().to_string(),
        "chowning host path \"/etc\" is not allowed"
    );
}

#[test]
fn read_only_roots_keep_scratch_space() {
    let mut options = Options {
        read_only: true,
        ..Options::default()
    };
    let lines = shown(&ImageConfig::default(), &options, &context());
    for place in ["/run", "/tmp", "/var/tmp"] {
        assert!(lines.contains(&format!(
            "{place} tmpfs tmpfs rw,rprivate,nosuid,nodev,tmpcopyup"
        )));
    }
    assert!(
        lines
            .contains(&"/etc/hosts bind /c/hosts bind,rprivate,ro,nosuid,noexec,nodev".to_string())
    );
    options.mounts = vec![tmpfs("/tmp:size=1m").unwrap()];
    let lines = shown(&ImageConfig::default(), &options, &context());
    assert!(
        lines.contains(&"/tmp tmpfs tmpfs size=1m,rw,rprivate,nosuid,nodev,tmpcopyup".to_string())
    );
    options.read_only_tmpfs = false;
    assert!(!places(&options).contains(&"/run".to_string()));
}

#[test]
fn the_hosts_network_and_privilege() {
    let host = Options {
        network: Network::Host,
        ..Options::default()
    };
    let lines = shown(&ImageConfig::default(), &host, &context());
    assert!(lines.contains(&"/sys bind /sys rprivate,nosuid,noexec,nodev,ro,rbind".to_string()));
    let privileged = Options {
        privileged: true,
        ..Options::default()
    };
    let lines = shown(&ImageConfig::default(), &privileged, &context());
    assert!(lines.contains(&"/sys sysfs sysfs nosuid,noexec,nodev,rw".to_string()));
    assert!(lines.contains(
        &"/sys/fs/cgroup cgroup cgroup rprivate,nosuid,noexec,nodev,relatime,rw".to_string()
    ));
}

#[test]
fn few_ids_and_other_sizes() {
    let single = Context {
        gids: 1,
        ..context()
    };
    let options = Options {
        shm_size: Some(1 << 20),
        ..Options::default()
    };
    let lines = shown(&ImageConfig::default(), &options, &single);
    assert!(lines.contains(
        &"/dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620".to_string()
    ));
    assert!(
        lines
            .contains(&"/dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=1048576".to_string())
    );
}

#[test]
fn missing_sources_are_named() {
    let error = list(
        &ImageConfig::default(),
        &with(&["/nope:/b"]),
        &context(),
        false,
    )
    .unwrap_err()
    .to_string();
    assert_eq!(error, "statfs /nope: no such file or directory");
}
