//! Health checks: what becomes of their results, and what is done about them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually, tar};

scenarios!(
    from_starting_to_unhealthy,
    actions,
    by_hand,
    of_the_image,
    start_up,
    slow_checks_fail,
    floods_end_in_time,
    updated,
    refusals
);

/// Saves an image with another configuration, as `edit` makes it; the reference it can be pulled by.
fn with_configuration(t: &Rcon, image: &str, edit: impl Fn(&mut Value)) -> String {
    t.mkdir("saved");
    t.ok(&[
        "save",
        "-q",
        "--format",
        "oci-dir",
        "-o",
        "saved/image",
        image,
    ]);
    let dir = t.home("saved/image");
    let blob = |digest: &Value| {
        let name = digest.as_str().unwrap().replace(':', "/");
        let text = fs::read(dir.join("blobs").join(name)).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()
    };
    let describe = |place: &mut Value, value: &Value| {
        let text = value.to_string().into_bytes();
        let digest = tar::digest(&text);
        fs::write(
            Path::new(&dir).join("blobs").join(digest.replace(':', "/")),
            &text,
        )
        .unwrap();
        place["digest"] = digest.into();
        place["size"] = text.len().into();
    };
    let path = dir.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut manifest = blob(&index["manifests"][0]["digest"]);
    let mut config = blob(&manifest["config"]["digest"]);
    edit(&mut config["config"]);
    describe(&mut manifest["config"], &config);
    describe(&mut index["manifests"][0], &manifest);
    fs::write(path, index.to_string()).unwrap();
    format!("oci:{}", dir.display())
}

/// What an image says of its health (HEALTHCHECK) is done, unless the user says something else.
fn of_the_image(t: &mut Rcon) {
    let image = t.pull("busybox");
    let checked = with_configuration(t, &image, |config| {
        config["Healthcheck"] = json!({
            "Test": ["CMD-SHELL", "test -e /ok"], "Interval": 100_000_000, "Timeout": 60_000_000_000_u64, "Retries": 2,
        });
    });
    let image = t.ok(&["pull", "-q", &checked]);
    t.sleeper("c", &[], &image);
    assert_eq!(
        t.inspect(
            "c",
            "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Retries}}"
        ),
        "[CMD-SHELL test -e /ok] 100000000 2"
    );
    becomes(t, "c", STATUS, "unhealthy");
    t.ok(&["exec", "c", "touch", "/ok"]);
    becomes(t, "c", STATUS, "healthy");
    t.sleeper("other", &["--health-cmd", "true"], &image);
    becomes(t, "other", STATUS, "healthy");
    t.sleeper("none", &["--no-healthcheck"], &image);
    assert_eq!(
        t.ok(&["ps", "--filter", "health=none", "--format", "{{.Names}}"]),
        "none"
    );
    t.ok(&["rm", "-f", "-t", "0", "-a"]);
}

fn becomes(t: &Rcon, name: &str, format: &str, value: &str) {
    eventually(&format!("{format} of {name} is {value}"), 60, || {
        (t.inspect(name, format) == value).then_some(())
    });
}

const STATUS: &str = "{{.State.Health.Status}}";

/// A container that is healthy while `/ok` is there.
fn checked<'a>(name: &'a str, image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let health = [
        "--health-cmd",
        "echo looked; test -e /ok",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(health);
    words.extend(more);
    words.extend([
        image,
        "sh",
        "-c",
        "trap 'exit 3' TERM; while :; do sleep 0.05; done",
    ]);
    words
}

fn from_starting_to_unhealthy(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&checked("c", &image, &["--health-start-period", "1h"]));
    // Failures in the start period are passed over.
    eventually("a check was made", 60, || {
        (t.inspect("c", "{{len .State.Health.Log}}") != "0").then_some(())
    });
    assert_eq!(
        t.inspect(
            "c",
            "{{.State.Health.Status}} {{.State.Health.FailingStreak}}"
        ),
        "starting 0"
    );
    t.run(&["ps"]).shows("(starting)");
    t.ok(&["exec", "c", "touch", "/ok"]);
    becomes(t, "c", STATUS, "healthy");
    t.run(&["ps"]).shows("(healthy)");
    t.run(&["ps", "-q", "--filter", "health=healthy"])
        .shows(&t.inspect("c", "{{.Id}}")[..12]);
    t.run(&["ps", "-q", "--filter", "health=unhealthy"])
        .prints("");
    t.ok(&["exec", "c", "rm", "/ok"]);
    becomes(t, "c", STATUS, "unhealthy");
    t.run(&["ps"]).shows("(unhealthy)");
    // No more results are kept than podman keeps, each with what it printed.
    eventually("five results", 60, || {
        (t.inspect("c", "{{len .State.Health.Log}}") == "5").then_some(())
    });
    let last = t.inspect(
        "c",
        "{{(index .State.Health.Log 4).ExitCode}} {{(index .State.Health.Log 4).Output}}",
    );
    assert_eq!(last.trim_end(), "1 looked");
    t.ok(&["exec", "c", "touch", "/ok"]);
    becomes(t, "c", STATUS, "healthy");
    // Nothing was done about it.
    assert_eq!(
        t.inspect("c", "{{.State.Status}} {{.RestartCount}}"),
        "running 0"
    );
    t.run(&[
        "events",
        "--stream=false",
        "--filter",
        "event=health_status",
    ])
    .shows("unhealthy");
}

fn actions(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&checked("kill", &image, &["--health-on-failure", "kill"]));
    t.ok(&checked("stop", &image, &["--health-on-failure", "stop"]));
    t.ok(&checked(
        "again",
        &image,
        &["--health-on-failure", "restart"],
    ));
    t.run(&["wait", "kill"]).prints("137\n");
    t.run(&["wait", "stop"]).prints("3\n");
    eventually("it was restarted", 60, || {
        (t.inspect("again", "{{.State.Status}} {{ne .RestartCount 0}}") == "running true")
            .then_some(())
    });
    t.run(&["stop", "-t", "0", "again"]).code(0);
    assert_eq!(t.inspect("again", "{{.State.Status}}"), "exited");
}

fn by_hand(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&checked("c", &image, &["--health-interval", "disable"]));
    // Nothing is checked by itself.
    t.run(&["healthcheck", "run", "c"]).code(1);
    assert_eq!(t.inspect("c", "{{len .State.Health.Log}}"), "1");
    t.ok(&["exec", "c", "touch", "/ok"]);
    t.run(&["healthcheck", "run", "c"]).prints("");
    assert_eq!(t.inspect("c", STATUS), "healthy");
    t.ok(&["exec", "c", "rm", "/ok"]);
    t.run(&["healthcheck", "run", "c"]).prints("");
    let out = t.run(&["healthcheck", "run", "c"]);
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (1, "unhealthy\n"),
        "{}",
        out.story()
    );
}

fn start_up(t: &mut Rcon) {
    let image = t.pull("busybox");
    let startup = [
        "--health-startup-cmd",
        "test -e /up",
        "--health-startup-interval",
        "100ms",
    ];
    t.ok(&checked("c", &image, &startup));
    t.ok(&["exec", "c", "touch", "/ok"]);
    eventually("three checks failed", 60, || {
        let streak = t.inspect("c", "{{.State.Health.FailingStreak}}");
        (streak.parse::<u32>().unwrap() >= 3).then_some(())
    });
    // The other check is not made before this one has succeeded.
    assert_eq!(t.inspect("c", STATUS), "starting");
    t.ok(&["exec", "c", "touch", "/up"]);
    becomes(t, "c", STATUS, "healthy");
}

/// A container with a check that takes too long, asked for once: how it is then, and how the check ended.
fn cut_off(t: &Rcon, check: &str, limit: &str) -> String {
    let image = t.pull("busybox");
    let health = |name: &str, value: &str| format!("--health-{name}={value}");
    t.ok(&[
        "run",
        "-d",
        "--name",
        "c",
        &health("cmd", check),
        &health("timeout", limit),
        &health("interval", "disable"),
        &health("retries", "1"),
        &image,
        "sleep",
        "1000",
    ]);
    t.run(&["healthcheck", "run", "c"]).code(1);
    t.inspect(
        "c",
        "{{.State.Health.Status}} {{(index .State.Health.Log 0).ExitCode}}",
    )
}

fn slow_checks_fail(t: &mut Rcon) {
    assert_eq!(cut_off(t, "sleep 1000", "200ms"), "unhealthy -1");
    // A check that was cut off leaves nothing in the container.
    let left = t.ok(&["exec", "c", "ps", "-o", "args"]);
    assert_eq!(left.matches("sleep 1000").count(), 1, "{left}");
}

/// The clock runs for a check that prints without end, too.
fn floods_end_in_time(t: &mut Rcon) {
    assert_eq!(cut_off(t, "yes", "500ms"), "unhealthy -1");
}

/// `update` changes the checks of a container that runs, of one that does not, and its variables for its next start.
fn updated(t: &mut Rcon) {
    let image = t.pull("busybox");
    let script = "trap 'exit 0' TERM; echo $A,$B,$C; while :; do sleep 0.05; done";
    t.ok(&[
        "run", "-d", "--name", "c", "-e", "A=1", "-e", "B=2", &image, "sh", "-c", script,
    ]);
    t.run(&["update", "--health-interval", "1s", "c"])
        .refused(125)
        .says("no healthcheck to change");
    assert_eq!(t.inspect("c", "{{.Config.Healthcheck}}"), "<nil>");
    // It had none: from now on it has one, and only what is said changes afterwards.
    let check = ["--health-cmd", "test -e /ok", "--health-interval", "100ms"];
    t.ok(&[&["update", "--health-retries", "1"], &check[..], &["c"]].concat());
    becomes(t, "c", STATUS, "unhealthy");
    t.ok(&["update", "--health-cmd", "true", "c"]);
    becomes(t, "c", STATUS, "healthy");
    assert_eq!(
        t.inspect(
            "c",
            "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Retries}}"
        ),
        "[CMD-SHELL true] 100000000 1"
    );
    t.ok(&[
        "update",
        "--health-cmd",
        "false",
        "--health-on-failure",
        "kill",
        "c",
    ]);
    t.run(&["wait", "c"]).prints("137\n");
    let words = ["--sdnotify", "healthy", "--health-cmd", "true"];
    t.ok(&[&["create", "--name", "d"], &words[..], &[&image, "true"]].concat());
    t.run(&["update", "--no-healthcheck", "d"])
        .refused(125)
        .says("requires a healthcheck");
    // One that does not run; its variables, too.
    t.run(&["update", "--env", "=x", "c"]).refused(125);
    t.ok(&[
        "update",
        "--no-healthcheck",
        "-e",
        "C=3",
        "-e",
        "B=4",
        "--unsetenv",
        "A",
        "c",
    ]);
    t.ok(&["start", "c"]);
    eventually("the second start has spoken", 60, || {
        (t.ok(&["logs", "c"]) == "1,2,\n,4,3").then_some(())
    });
    assert_eq!(t.inspect("c", STATUS), "");
    t.run(&["healthcheck", "run", "c"]).refused(125);
    t.run(&["events", "--stream=false", "--filter", "event=update"])
        .shows("container update");
    t.ok(&["stop", "c"]);
}

fn refusals(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "c", &image, "sleep", "1000"]);
    t.run(&["healthcheck", "run", "c"])
        .refused(125)
        .says("has no defined healthcheck");
    assert_eq!(t.inspect("c", STATUS), "");
    t.ok(&[
        "create",
        "--name",
        "d",
        "--health-cmd",
        "true",
        &image,
        "true",
    ]);
    t.run(&["healthcheck", "run", "d"])
        .refused(125)
        .says("is not running");
    t.run(&["run", "--health-on-failure", "kill", &image, "true"])
        .refused(125)
        .says("without a health check");
}
