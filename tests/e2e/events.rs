//! `events`: what happened, to read and to follow.

use serde_json::Value;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, eventually};

scenarios!(life, filters, formats, following, refused);

fn actions(t: &Rcon, args: &[&str]) -> String {
    let mut words = vec![
        "events",
        "--stream=false",
        "--format",
        "{{.Type}}:{{.Status}}",
    ];
    words.extend(args);
    t.ok(&words).replace('\n', " ")
}

fn life(t: &mut Rcon) {
    assert_eq!(actions(t, &[]), "");
    let image = t.pull("busybox");
    t.sh(&["--name", "short"], &image, "exit 3").code(3);
    assert_eq!(
        actions(t, &[]),
        "image:pull container:create container:init container:start container:attach container:died container:remove"
    );
    t.ok(&["run", "-d", "--name", "long", &image, "sleep", "1000"]);
    t.run(&["exec", "long", "sh", "-c", "exit 4"]).code(4);
    t.ok(&["rename", "long", "longer"]);
    t.ok(&["stop", "-t", "0", "longer"]);
    t.ok(&["rm", "longer"]);
    assert_eq!(
        actions(t, &["--filter", "container=longer"]),
        "container:rename container:died container:cleanup container:stop container:remove"
    );
    let exits = t.ok(&[
        "events",
        "--stream=false",
        "--filter",
        "event=exec_died",
        "--format",
        "{{.Name}} {{.ContainerExitCode}}",
    ]);
    assert_eq!(exits, "long 4");
    // One that was renamed and removes itself frees the name it has now.
    t.ok(&["run", "-d", "--rm", "--name", "x", &image, "sleep", "1000"]);
    t.ok(&["rename", "x", "y"]);
    t.ok(&["stop", "-t", "0", "y"]);
    t.ok(&["create", "--name", "y", &image, "true"]);
    t.ok(&["tag", &image, "localhost/other"]);
    t.ok(&["untag", "localhost/other", "localhost/other"]);
    assert_eq!(
        actions(t, &["--filter", "type=image"]),
        "image:pull image:tag image:untag"
    );
}

fn filters(t: &mut Rcon) {
    let image = t.pull("busybox");
    // Names that no id begins with.
    for (name, label) in [("one", "kind=x"), ("two", "kind=y")] {
        t.ok(&["create", "--name", name, "--label", label, &image, "true"]);
    }
    let names = |filter: &[&str]| {
        let mut words = vec!["events", "--stream=false", "--format", "{{.Name}}"];
        words.extend(filter);
        t.ok(&words).replace('\n', " ")
    };
    assert_eq!(names(&["--filter", "event=create"]), "one two");
    assert_eq!(names(&["--filter", "label=kind=y"]), "two");
    assert_eq!(names(&["-f", "container=one", "-f", "event=create"]), "one");
    assert_eq!(
        names(&[
            "--filter",
            &format!("image={image}"),
            "--filter",
            "type=container"
        ]),
        "one two"
    );
    let then = "2020-01-01T00:00:00Z";
    assert_eq!(names(&["--until", then]), "");
    assert_eq!(
        names(&["--since", "1h", "--filter", "type=container"]),
        "one two"
    );
}

fn formats(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&["create", "--name", "c", "--label", "a=1", &image, "true"]);
    let last = |args: &[&str]| {
        let mut words = vec!["events", "--stream=false", "--filter", "event=create"];
        words.extend(args);
        t.ok(&words)
    };
    assert!(
        last(&[]).ends_with(&format!(
            " container create {id} (image={image}, name=c, a=1)"
        )),
        "{}",
        last(&[])
    );
    assert!(last(&["--no-trunc=false"]).contains(&format!(" create {} (", &id[..12])));
    let event: Value = serde_json::from_str(&last(&["--format", "json"])).unwrap();
    assert_eq!(
        (
            &event["ID"],
            &event["Name"],
            &event["Status"],
            &event["Type"]
        ),
        (
            &id.as_str().into(),
            &"c".into(),
            &"create".into(),
            &"container".into()
        )
    );
    assert_eq!(event["Attributes"]["a"], "1");
}

fn following(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "before", &image, "true"]);
    let mut words = vec!["events", "--format", "{{.Name}} {{.Status}}"];
    let out = t.home("seen");
    // It must be watching before anything happens: a marker is made until it is seen.
    let mut command = t.command(&words);
    command.stdout(std::fs::File::create(&out).unwrap());
    let mut follower = command.spawn().unwrap();
    let seen = || std::fs::read_to_string(&out).unwrap_or_default();
    eventually("the follower follows", 30, || {
        t.ok(&["tag", &image, "localhost/marker"]);
        seen().contains("marker").then_some(())
    });
    t.ok(&["untag", "localhost/marker", "localhost/marker"]);
    t.ok(&["rm", "before"]);
    eventually("the removal is seen", 30, || {
        seen().contains("before remove\n").then_some(())
    });
    assert!(!seen().contains("before create"));
    follower.kill().unwrap();
    follower.wait().unwrap();
    // Without anything to come, --until ends it.
    words.extend(["--since", "1h", "--until", "0s"]);
    assert!(
        t.ok(&words).contains("before create\nlocalhost"),
        "{}",
        t.ok(&words)
    );
}

fn refused(t: &mut Rcon) {
    for (args, says) in [
        (["--filter", "nosuch=1"], "nosuch"),
        (["--filter", "nonsense"], "nonsense"),
        (["--since", "yesterdayish"], "yesterdayish"),
        (["--format", "{{.NoSuch}}"], "NoSuch"),
        (["--format", "{{.ID"], "events"),
    ] {
        t.run(&["events", args[0], args[1]]).refused(125).says(says);
    }
    t.run(&["events", "extra"])
        .refused(125)
        .says("no arguments");
}
