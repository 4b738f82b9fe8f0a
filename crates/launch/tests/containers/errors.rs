//! What goes wrong is said in the words that people know, and leaves nothing behind.

use rcon_launch::{Error, Rootfs};

use super::{Test, failure, run};
use crate::common::{Scene, bind, pipes, spec};

pub const TESTS: &[Test] = &[
    ("programs", programs),
    ("users_and_folders", users_and_folders),
    ("bad_requests", bad_requests),
    ("network_set_up", network_set_up),
    ("refused_maps", refused_maps),
    ("layers", layers),
    ("nothing_is_left", nothing_is_left),
];

fn programs(scene: &Scene) {
    let said = |words: &[&str]| {
        let error = failure(scene, &spec(words), |_| {});
        (error.exit_code(), error.to_string())
    };
    let text = |code: i32, text: &str| (code, text.to_owned());
    assert_eq!(
        said(&["ghost"]),
        text(
            127,
            "executable file `ghost` not found in $PATH: No such file or directory"
        )
    );
    assert_eq!(said(&["/bin/ghost"]).0, 127);
    assert_eq!(
        said(&["/etc/text"]),
        text(126, "open executable `/etc/text`: Permission denied")
    );
    assert_eq!(
        said(&["/etc"]),
        text(126, "open executable `/etc`: Permission denied")
    );
    assert_eq!(
        said(&["nothing"]),
        text(126, "open executable `nothing`: Exec format error")
    );
    // There, but its interpreter is not.
    assert_eq!(
        said(&["lost"]),
        text(127, "open executable `lost`: No such file or directory")
    );
    assert_eq!(said(&[""]).0, 127);
    // The same with our own first process.
    let error = failure(scene, &spec(&["nothing"]), |request| request.init = true);
    assert_eq!(
        error.to_string(),
        "open executable `nothing`: Exec format error"
    );
}

fn users_and_folders(scene: &Scene) {
    let spec_true = spec(&["true"]);
    let error = failure(scene, &spec_true, |request| {
        request.user = Some("ghost".to_owned())
    });
    assert_eq!(
        error.to_string(),
        "unable to find user ghost: no matching entries in passwd file"
    );
    let error = failure(scene, &spec_true, |request| {
        request.user = Some("0:ghost".to_owned())
    });
    assert_eq!(error, Error::NoGroup("ghost".to_owned()));
    // Real root has every id there is.
    if scene.maps.to_host_uid(4_000_000).is_none() {
        let unknown = Some("4000000".to_owned());
        let error = failure(scene, &spec_true, |request| request.user = unknown);
        let expected = Error::Unmapped {
            kind: "user".to_owned(),
            id: 4_000_000,
        };
        assert_eq!(error, expected);
        assert!(error.hint().is_some());
    }
    let mut missing = spec(&["true"]);
    missing
        .process_mut()
        .as_mut()
        .unwrap()
        .set_cwd("/not/there".into());
    let error = failure(scene, &missing, |_| {});
    assert_eq!(
        error.to_string(),
        "workdir \"/not/there\" does not exist on container"
    );
    missing
        .process_mut()
        .as_mut()
        .unwrap()
        .set_cwd("/etc/text".into());
    let error = failure(scene, &missing, |_| {});
    assert_eq!(
        error.to_string(),
        "workdir \"/etc/text\" exists on container, but is not a directory"
    );
}

fn bad_requests(scene: &Scene) {
    let mut missing = spec(&["true"]);
    let mut mounts = missing.mounts().clone().unwrap();
    mounts.push(bind(&scene.path("none"), "/x", &["rbind"]));
    missing.set_mounts(Some(mounts));
    let error = failure(scene, &missing, |_| {});
    assert!(
        error
            .to_string()
            .ends_with("on /x: No such file or directory"),
        "{error}"
    );
    let mut odd = spec(&["true"]);
    let sysctls = [("kernel.panic".to_owned(), "1".to_owned())]
        .into_iter()
        .collect();
    odd.linux_mut().as_mut().unwrap().set_sysctl(Some(sysctls));
    let error = failure(scene, &odd, |_| {});
    assert!(error.to_string().contains("kernel.panic"), "{error}");
    let mut none = spec(&["true"]);
    none.process_mut()
        .as_mut()
        .unwrap()
        .set_args(Some(Vec::new()));
    assert_eq!(
        failure(scene, &none, |_| {}),
        Error::Invalid("no command specified".to_owned())
    );
}

fn network_set_up(scene: &Scene) {
    let spec = spec(&["true"]);
    let error = failure(scene, &spec, |request| {
        request.in_netns = Some(Box::new(|| Err("no tap to be had".to_owned().into())));
    });
    assert_eq!(error, Error::Network("no tap to be had".to_owned().into()));
}

fn refused_maps(scene: &Scene) {
    let mut maps = scene.maps.clone();
    maps.method = rcon_sys::ids::MapMethod::Newuidmap {
        newuidmap: "/bin/false".into(),
        newgidmap: "/bin/busybox-is-not-here".into(),
    };
    let spec = spec(&["true"]);
    let (stdio, reader) = pipes();
    let mut request = scene.request(&spec, stdio);
    request.maps = &maps;
    let error = run(request, reader).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/bin/false refused the id map: exit status: 1"
    );
    assert_eq!(error.exit_code(), 125);
    let error = rcon_sys::userns::run(&maps, |_| 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/bin/false refused the id map: exit status: 1"
    );
}

fn layers(scene: &Scene) {
    let spec = spec(&["true"]);
    let error = failure(scene, &spec, |request| {
        if let Rootfs::Overlay { lower, .. } = &mut request.rootfs {
            lower.push(scene.path("none"));
        }
    });
    assert!(
        error.to_string().contains("cannot open the layer"),
        "{error}"
    );
    let error = failure(scene, &spec, |request| {
        if let Rootfs::Overlay { upper, work, .. } = &mut request.rootfs {
            *upper = "/proc".into();
            *work = "/proc/self".into();
        }
    });
    assert!(matches!(error, Error::Overlay { .. }), "{error}");
    assert!(error.hint().is_some());
}

fn nothing_is_left(scene: &Scene) {
    let spec = spec(&["sleep", "1000"]);
    let before = open_files();
    for _ in 0..3 {
        let (stdio, reader) = pipes();
        let created = rcon_launch::create(scene.request(&spec, stdio)).unwrap();
        let pid = created.running.pid.as_raw_nonzero();
        created.abort();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        drop(reader);
        let (stdio, reader) = pipes();
        let mut request = scene.request(&spec, stdio);
        request.user = Some("ghost".to_owned());
        run(request, reader).unwrap_err();
    }
    assert_eq!(open_files(), before);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
