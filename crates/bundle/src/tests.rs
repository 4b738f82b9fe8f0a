use super::*;

fn image() -> ImageConfig {
    ImageConfig::parse(
        br#"{"config":{"Env":["FOO=img","SECRET"],"Cmd":["/bin/sh"],"WorkingDir":"/wd/","User":"app:www",
            "Labels":{"a":"image","b":"image"},"StopSignal":"SIGQUIT","Healthcheck":{"Test":["NONE"]}}}"#,
    )
    .unwrap()
}

fn context() -> Context {
    Context {
        container_id: "0b8df0096010fcdac9104394bfcb3b639742812a361c4f86998675e63344750b".into(),
        host_name: "vm".into(),
        gids: 65537,
        uids: 65537,
        ..Context::default()
    }
}

#[test]
fn a_container_with_nothing_said() {
    let bundle = build(&image(), &Options::default(), &context()).unwrap();
    let process = bundle.spec.process().clone().unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &["/bin/sh"]);
    assert_eq!(process.cwd(), &PathBuf::from("/wd"));
    assert!(bundle.create_cwd);
    assert_eq!(process.terminal(), Some(false));
    assert_eq!(process.no_new_privileges(), Some(false));
    assert_eq!(
        (
            process.user().uid(),
            process.user().gid(),
            process.user().umask()
        ),
        (0, 0, Some(0o022))
    );
    let env = process.env().clone().unwrap();
    assert!(
        env.contains(&"FOO=img".to_string()) && env.contains(&"HOSTNAME=0b8df0096010".to_string())
    );
    assert!(!env.iter().any(|e| e.starts_with("SECRET")));
    assert_eq!(bundle.spec.hostname().as_deref(), Some("0b8df0096010"));
    assert_eq!(bundle.user.as_deref(), Some("app:www"));
    assert_eq!(bundle.stop_signal, 3);
    assert_eq!(bundle.labels["b"], "image");
    assert!(bundle.healthcheck.is_some());
    assert_eq!(bundle.spec.root().as_ref().unwrap().readonly(), Some(false));
    // A user of the image who is not root by name has no capability at all.
    assert!(
        process
            .capabilities()
            .as_ref()
            .unwrap()
            .effective()
            .as_ref()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn the_users_words_win() {
    let options = Options {
        command: vec!["x".into()],
        user: Some("root".into()),
        workdir: Some("/a/../b/".into()),
        hostname: Some("h.example".into()),
        read_only: true,
        tty: true,
        umask: Some(0o077),
        stop_signal: Some(9),
        labels: [("a".to_string(), "user".to_string())].into(),
        annotations: [("k".to_string(), "v".to_string())].into(),
        security: parse::security(&["no-new-privileges".into()]).unwrap(),
        ..Options::default()
    };
    let bundle = build(&image(), &options, &context()).unwrap();
    let process = bundle.spec.process().clone().unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &["x"]);
    assert_eq!(process.cwd(), &PathBuf::from("/b"));
    assert!(!bundle.create_cwd);
    assert_eq!(
        (process.terminal(), process.no_new_privileges()),
        (Some(true), Some(true))
    );
    assert_eq!(process.user().umask(), Some(0o077));
    assert_eq!(bundle.spec.hostname().as_deref(), Some("h.example"));
    assert_eq!(bundle.spec.root().as_ref().unwrap().readonly(), Some(true));
    assert_eq!(bundle.spec.annotations().as_ref().unwrap()["k"], "v");
    assert_eq!(bundle.stop_signal, 9);
    assert_eq!(
        (bundle.labels["a"].as_str(), bundle.labels["b"].as_str()),
        ("user", "image")
    );
    assert_eq!(
        process
            .capabilities()
            .as_ref()
            .unwrap()
            .effective()
            .as_ref()
            .unwrap()
            .len(),
        11
    );
}

#[test]
fn what_cannot_be() {
    let long = "a".repeat(65);
    for (options, message) in [
        (
            Options {
                workdir: Some("x".into()),
                ..Options::default()
            },
            format!(
                "workdir \"x\" does not exist on container {}",
                context().container_id
            ),
        ),
        (
            Options {
                hostname: Some(long.clone()),
                ..Options::default()
            },
            format!("invalid host name {long:?}: at most 64 bytes, no control characters"),
        ),
        (
            Options {
                entrypoint: Some(vec![String::new()]),
                ..Options::default()
            },
            "no command or entrypoint provided, and no CMD or ENTRYPOINT from image".into(),
        ),
    ] {
        assert_eq!(
            build(&image(), &options, &context())
                .unwrap_err()
                .to_string(),
            message
        );
    }
}

#[test]
fn the_hosts_network_brings_its_name() {
    let options = Options {
        network: Network::Host,
        ..Options::default()
    };
    let bundle = build(&image(), &options, &context()).unwrap();
    assert_eq!(bundle.spec.hostname().as_deref(), Some("vm"));
}

#[test]
fn options_survive_being_written_down() {
    let options = Options {
        mounts: vec![parse::tmpfs("/t:size=1m").unwrap()],
        ulimits: vec![
            parse::ulimit("nofile=1:2").unwrap().unwrap(),
            parse::Ulimit::Host,
        ],
        entrypoint: Some(vec![]),
        ..Options::default()
    };
    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
    // Records of an older program lack what is new.
    assert_eq!(
        serde_json::from_str::<Options>("{}").unwrap(),
        Options::default()
    );
}

#[test]
fn the_specification_survives_being_written_down() {
    let bundle = build(&image(), &Options::default(), &context()).unwrap();
    let text = serde_json::to_string(&bundle.spec).unwrap();
    let back: Spec = serde_json::from_str(&text).unwrap();
    assert_eq!(back, bundle.spec);
    assert!(text.contains("\"CAP_NET_BIND_SERVICE\"") && text.contains("\"SCMP_ACT_ALLOW\""));
}

/// Pieces of values in random order, given to every parser: whatever comes out, nothing panics.
#[test]
fn garbage_never_panics() {
    const PIECES: [&str; 40] = [
        "/",
        ":",
        ",",
        "=",
        "..",
        ".",
        "a",
        "/a",
        "ro",
        "rw",
        "z",
        "size",
        "mode",
        "type=bind",
        "type=tmpfs",
        "src=",
        "dst=/b",
        "\"",
        "1",
        "-1",
        "0",
        "65536",
        "99999999999999999999",
        "k",
        "m",
        "GiB",
        "%",
        "é",
        "\0",
        "\n",
        " ",
        "*",
        "SIG",
        "RTMIN+",
        "nofile",
        "seccomp",
        "unmask",
        "[",
        "]",
        "ALL",
    ];
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let cwd = std::path::Path::new("/cwd");
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..6 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            text += PIECES[(seed % PIECES.len() as u64) as usize];
        }
        let mounts = [
            parse::volume(&text, cwd),
            parse::mount(&text, cwd),
            parse::tmpfs(&text),
        ];
        let mounts =
            combine(mounts.into_iter().flatten().collect(), vec![], vec![]).unwrap_or_default();
        assert!(
            mounts
                .iter()
                .all(|m| m.destination.starts_with('/') && !m.destination.contains("..//"))
        );
        let words = [text.clone()];
        let options = Options {
            mounts,
            workdir: Some(text.clone()),
            hostname: Some(text.clone()),
            cap_add: words.to_vec(),
            entrypoint: Some(parse::entrypoint(&text)),
            security: parse::security(&words).unwrap_or_default(),
            shm_size: parse::shm_size(&text).unwrap_or_default(),
            ulimits: parse::ulimit(&text).ok().flatten().into_iter().collect(),
            sysctls: parse::sysctl(&text).ok().flatten().into_iter().collect(),
            stop_signal: parse::signal(&text).ok(),
            umask: parse::umask(&text).unwrap_or_default(),
            expose: parse::expose(&text).ok().flatten().into_iter().collect(),
            env: parse::environment::<&str>(&[], &words, &[]).unwrap_or_default(),
            ..Options::default()
        };
        let image = ImageConfig {
            volumes: words.to_vec(),
            cmd: words.to_vec(),
            env: words.to_vec(),
            ..image()
        };
        let _ = build(&image, &options, &context());
        let _ = (
            volumes(&image, &options),
            parse::add_host(&text),
            parse::labels::<&str>(&[], &words),
        );
        let _ = ImageConfig::parse(text.as_bytes());
    }
}
