use super::*;

fn resources(text: &str) -> LinuxResources {
    serde_json::from_str(text).unwrap()
}

fn shown(text: &str) -> Vec<String> {
    let list = unified::settings(&resources(text)).unwrap();
    list.iter()
        .map(|s| format!("{}={}", s.file, s.value))
        .collect()
}

#[test]
fn memory() {
    assert_eq!(
        shown(
            r#"{"memory":{"limit":100,"swap":150,"reservation":50,"kernel":-1,"useHierarchy":true}}"#
        ),
        ["memory.swap.max=50", "memory.max=100", "memory.low=50"]
    );
    assert_eq!(
        shown(r#"{"memory":{"limit":-1}}"#),
        ["memory.swap.max=max", "memory.max=max"]
    );
    assert_eq!(
        shown(r#"{"memory":{"limit":100,"swap":-1}}"#),
        ["memory.swap.max=max", "memory.max=100"]
    );
    assert!(shown(r#"{"memory":{"limit":0,"swap":0}}"#).is_empty());
    for bad in [
        r#"{"memory":{"limit":100,"swap":50}}"#,
        r#"{"memory":{"swap":50}}"#,
        r#"{"memory":{"disableOOMKiller":true}}"#,
        r#"{"memory":{"swappiness":0}}"#,
        r#"{"memory":{"kernel":5}}"#,
        r#"{"memory":{"kernelTCP":5}}"#,
        r#"{"memory":{"useHierarchy":false}}"#,
        r#"{"blockIO":{"leafWeight":10}}"#,
        r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"leafWeight":10}]}}"#,
        r#"{"cpu":{"realtimeRuntime":5}}"#,
        r#"{"unified":{"../x.y":"1"}}"#,
        r#"{"unified":{"release_agent":"1"}}"#,
        r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#,
    ] {
        assert!(unified::settings(&resources(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_limit_below_what_is_used_is_refused_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("memory.current"), "1000\n").unwrap();
    let check = |text| unified::check_memory(dir.path(), &resources(text));
    let refused = check(r#"{"memory":{"limit":999,"checkBeforeUpdate":true}}"#).unwrap_err();
    assert!(refused.to_string().contains("1000 bytes are in use"));
    for text in [
        r#"{"memory":{"limit":1000,"checkBeforeUpdate":true}}"#,
        r#"{"memory":{"limit":-1,"checkBeforeUpdate":true}}"#,
        r#"{"memory":{"limit":999}}"#,
        "{}",
    ] {
        check(text).unwrap();
    }
}

#[test]
fn processors() {
    assert_eq!(
        shown(r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1","mems":"0"}}"#),
        [
            "cpu.weight=100",
            "cpu.max=50000 100000",
            "cpuset.cpus=0-1",
            "cpuset.mems=0"
        ]
    );
    assert_eq!(shown(r#"{"cpu":{"quota":-1}}"#), ["cpu.max=max"]);
    assert_eq!(shown(r#"{"cpu":{"period":20000}}"#), ["cpu.max=max 20000"]);
    let weights = [0, 2, 3, 1024, 262_144, u64::MAX].map(unified::weight_of_shares);
    assert_eq!(weights, [1, 1, 2, 100, 10_000, 10_000]);
}

#[test]
fn the_rest() {
    assert_eq!(shown(r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
    assert_eq!(shown(r#"{"pids":{"limit":7}}"#), ["pids.max=7"]);
    assert_eq!(
        shown(
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#
        ),
        ["io.max=8:0 rbps=1024", "io.max=8:0 wiops=max"]
    );
    assert_eq!(
        shown(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#),
        ["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"]
    );
    assert_eq!(
        shown(r#"{"unified":{"memory.high":"5"}}"#),
        ["memory.high=5"]
    );
}

#[test]
fn only_real_limits_need_a_cgroup() {
    for text in ["{}", r#"{"memory":{"limit":0}}"#] {
        assert!(!limits_anything(&resources(text)), "{text}");
    }
    // Rules for devices only where they can be kept.
    let rules = resources(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    assert_eq!(limits_anything(&rules), devices::can_be_kept());
    assert!(limits_anything(&resources(r#"{"pids":{"limit":1}}"#)));
    // What cannot be done is not silently left out either.
    assert!(limits_anything(&resources(
        r#"{"memory":{"disableOOMKiller":true}}"#
    )));
}

#[test]
fn paths_of_a_specification() {
    let of = |path: &str, manager| {
        let mut spec = oci_spec::runtime::Spec::default();
        let mut linux = oci_spec::runtime::Linux::default();
        linux.set_resources(None);
        linux.set_cgroups_path(Some(path.into()));
        spec.set_linux(Some(linux));
        Settings::of_spec(&spec, "x", manager)
    };
    let scope = of("user.slice:libpod:abc", Manager::Systemd).unwrap();
    assert_eq!(scope.manager, Manager::Systemd);
    assert_eq!(
        (scope.parent.as_deref(), scope.name.as_str()),
        (Some("user.slice"), "libpod-abc")
    );
    let folder = of("/a/b", Manager::Auto).unwrap();
    assert_eq!(
        (folder.manager, folder.parent.as_deref()),
        (Manager::Cgroupfs, Some("/a"))
    );
    assert_eq!((folder.name.as_str(), folder.is_required()), ("b", true));
    assert_eq!(of("b", Manager::Auto).unwrap().parent, None);
    assert_eq!(of("", Manager::Auto).unwrap().name, "rcon-x");
    assert!(of("/a/../../b", Manager::Auto).is_err());
    assert!(of("/a/b", Manager::Systemd).is_err());
    assert!(of("a:b:c", Manager::Cgroupfs).is_err());
}

#[test]
fn a_cgroup_is_written_down_and_read_again() {
    let group = Cgroup {
        dirs: Dirs::Unified("/sys/fs/cgroup/a/rcon-1".into()),
        scope: Some("rcon-1.scope".into()),
        foreign: false,
    };
    let text = serde_json::to_string(&group).unwrap();
    assert_eq!(serde_json::from_str::<Cgroup>(&text).unwrap(), group);
    assert_eq!(group.path(), "/a/rcon-1");
    assert!(!group.exists() && group.oom_kills() == 0 && group.pids().is_empty());
    assert!(group.remove().is_ok());
}

#[test]
fn names_that_are_none_are_refused() {
    for name in ["", "..", "a/b"] {
        assert!(prepare(&Settings::named(name)).is_err(), "{name:?}");
    }
}
