//! The records of containers as other versions wrote them.

use std::fs;

use crate::lab::Rcon;
use crate::lab::scenario::scenarios;

scenarios!(older_records, records_of_before, records_of_the_future,);

/// What the records of the first version had.
const CONFIG: [&str; 17] = [
    "format",
    "id",
    "name",
    "created",
    "image_id",
    "image_name",
    "image_digest",
    "image_config",
    "options",
    "network",
    "ports",
    "names",
    "auto_remove",
    "restart",
    "volumes",
    "create_command",
    "",
];

const STATE: [&str; 9] = [
    "status",
    "process",
    "monitor",
    "boot_id",
    "started",
    "finished",
    "exit_code",
    "error",
    "ports",
];

fn older_records(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.named_sh("old", &image, "echo then; exit 4").code(4);
    let id = t.inspect("old", "{{.Id}}");
    let dir = t.root().join("containers").join(&id);
    for (name, keys) in [("config.json", &CONFIG[..]), ("state.json", &STATE[..])] {
        let path = dir.join(name);
        let text = fs::read(&path).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let map = value.as_object_mut().unwrap();
        map.retain(|key, _| keys.contains(&key.as_str()));
        assert!(map.len() >= keys.len() - 1, "{map:?}");
        // Of a later version than ours, what we do not know.
        map.insert("of_the_future".into(), true.into());
        fs::write(&path, value.to_string()).unwrap();
    }
    assert_eq!(
        t.inspect(
            "old",
            "{{.State.Status}} {{.State.ExitCode}} {{.HostConfig.RestartPolicy.Name}}"
        ),
        "exited 4 no"
    );
    t.run(&["ps", "-a"]).shows("Exited (4)");
    t.run(&["logs", "old"]).prints("then\n");
    t.run(&["start", "-a", "old"]).code(4).shows("then");
    t.run(&["rm", "old"]).prints("old\n");
}

/// The records of a container as version 1 of them first had all its fields, with another id.
const CONFIG_1: &str = include_str!("fixtures/records-1/config.json");

const STATE_1: &str = include_str!("fixtures/records-1/state.json");

fn records_of_before(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "old", &image, "true"]);
    let (id, image_id) = (t.inspect("old", "{{.Id}}"), t.inspect("old", "{{.Image}}"));
    let dir = t.root().join("containers").join(&id);
    let put = |name: &str, text: &str| {
        let text = text.replace("@ID@", &id).replace("@IMAGE@", &image_id);
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        std::os::unix::fs::chown(&path, Some(t.user.uid), Some(t.user.gid)).unwrap();
    };
    // Its volume, as that version named it.
    let config: serde_json::Value = serde_json::from_str(CONFIG_1).unwrap();
    t.ok(&[
        "volume",
        "create",
        config["volumes"][0]["name"].as_str().unwrap(),
    ]);
    put("config.json", CONFIG_1);
    put("state.json", STATE_1);
    put(
        "log",
        "2026-11-24T18:00:00.000000000+00:00 stdout F of old\n",
    );
    t.run(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"])
        .shows("old Exited (4)");
    let shown = "{{.Config.Hostname}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}} {{.Config.Labels.a}} \
        {{.Config.StopSignal}} {{.State.ExitCode}} {{(index .Mounts 0).Destination}}";
    assert_eq!(t.inspect("old", shown), "host no 0 b 10 4 /data");
    t.run(&["logs", "old"]).prints("of old\n");
    t.run(&["start", "-a", "old"]).code(4).shows("now host");
    t.run(&["rename", "old", "older"]).code(0);
    t.run(&["rm", "-v", "older"]).prints("older\n");
    t.has_containers(0);
}

fn records_of_the_future(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "new", &image, "true"]);
    let id = t.inspect("new", "{{.Id}}");
    let path = t.root().join("containers").join(&id).join("config.json");
    let now = fs::read(&path).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&now).unwrap();
    value["format"] = 2.into();
    // One that could be read, and one that could not.
    let readable = value.to_string();
    value["options"] = "something else".into();
    for text in [readable, value.to_string()] {
        fs::write(&path, &text).unwrap();
        for args in [
            &["ps", "-a"][..],
            &["inspect", "new"],
            &["start", "new"],
            &["rm", "-f", "new"],
            &["rm", "-f", "-a"],
            &["container", "prune", "-f"],
            &["rmi", "-f", &image],
            &["system", "prune", "-a", "-f"],
        ] {
            let out = t.run(args);
            assert!(
                out.code != 0 && out.stderr.contains("newer version of rcon"),
                "{}",
                out.story()
            );
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    // Nothing of it is lost for who can read it.
    fs::write(&path, now).unwrap();
    t.run(&["start", "-a", "new"]).code(0);
}
