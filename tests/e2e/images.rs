//! Images in the store: list, tag, remove, load, import.

use std::fs;

use serde_json::Value;

use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, lab, registry};

scenarios!(
    table,
    filters_and_order,
    references,
    tags,
    removal,
    in_use,
    load_archives,
    load_from_input,
    import_tree,
    refused_archives
);

fn table(t: &mut Rcon) {
    let out = t.run(&["images"]);
    assert_eq!(
        out.cells(0),
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    );
    let image = t.pull("busybox");
    let (repository, tag) = image.rsplit_once(':').unwrap();
    let out = t.run(&["images"]);
    let cells = out.cells(1);
    assert_eq!(
        (cells[0], cells[1], cells[2].len()),
        (repository, tag, 12),
        "{}",
        out.story()
    );
    assert!(
        cells[3].ends_with("ago") && cells[4].ends_with("MB"),
        "{}",
        out.story()
    );
    let id = t.ok(&["images", "-q", "--no-trunc"]);
    assert!(
        id.starts_with("sha256:") && id[7..].starts_with(cells[2]),
        "{id}"
    );
    t.run(&["images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}"])
        .prints(&format!("{repository} {tag} {}\n", cells[2]));
    let list: Value = serde_json::from_str(&t.ok(&["images", "--format", "json"])).unwrap();
    assert_eq!(
        (&list[0]["Id"], &list[0]["Names"][0]),
        (&id[7..].into(), &image.as_str().into()),
        "{list:#}"
    );
    t.run(&["image", "ls", "-q"])
        .prints(&format!("{}\n", cells[2]));
    t.run(&["images", "-n"]).code(0);
    t.run(&["images", "nosuch"]).code(0);
}

fn filters_and_order(t: &mut Rcon) {
    let busybox = t.pull("busybox");
    let archive = t.write("tree.tar", crate::lab::tar::layer(&[]));
    for (name, label) in [
        ("localhost/b:2", "LABEL kind=small"),
        ("localhost/a:1", "LABEL other="),
    ] {
        t.run(&["import", "-q", "--change", label, &archive, name])
            .code(0);
    }
    let list = |more: &[&str]| {
        let fixed = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        let text = t.ok(&[&fixed[..], more].concat());
        let end = if text.is_empty() { "" } else { "\n" };
        text + end
    };
    let filtered = |filter: &str| list(&["--sort", "repository", "--filter", filter]);
    // The order in which they are shown.
    let all = format!("{busybox}\nlocalhost/a:1\nlocalhost/b:2\n");
    assert_eq!(list(&["--sort", "repository"]), all);
    assert_eq!(
        list(&["--sort", "tag"]),
        format!("localhost/a:1\nlocalhost/b:2\n{busybox}\n")
    );
    assert!(list(&["--sort", "created"]).starts_with("localhost/a:1\nlocalhost/b:2\n"));
    assert!(list(&["--sort", "size"]).ends_with(&format!("{busybox}\n")));
    let ids = t.ok(&["images", "-q", "--sort", "id"]);
    assert!(ids.lines().is_sorted(), "{ids}");
    t.run(&["images", "--sort", "colour"]).refused(125);
    // Which ones.
    assert_eq!(filtered("label=kind"), "localhost/b:2\n");
    assert_eq!(filtered("label=kind=small"), "localhost/b:2\n");
    assert_eq!(filtered("label=kind=large"), "");
    assert_eq!(
        filtered("label!=kind"),
        format!("{busybox}\nlocalhost/a:1\n")
    );
    assert_eq!(filtered("reference!=localhost/*"), format!("{busybox}\n"));
    let digest = t.inspect(&busybox, "{{.Digest}}");
    assert_eq!(
        filtered(&format!("digest={digest}")),
        format!("{busybox}\n")
    );
    assert_eq!(filtered("manifest=true"), "");
    assert_eq!(filtered("manifest=false"), all);
    assert_eq!(filtered("since=b:2"), "localhost/a:1\n");
    assert_eq!(
        filtered("before=a:1"),
        format!("{busybox}\nlocalhost/b:2\n")
    );
    assert_eq!(
        filtered("reference=localhost/*"),
        "localhost/a:1\nlocalhost/b:2\n"
    );
    assert!(!filtered("until=10m").contains("localhost/"));
    assert_eq!(filtered("until=2100-01-01T00:00:00Z"), all);
    assert_eq!(filtered("readonly=true"), "");
    assert_eq!(filtered("readonly=false"), all);
    assert_eq!(filtered("containers=true"), "");
    t.run(&["create", "--name", "c", &busybox, "true"]).code(0);
    assert_eq!(filtered("containers=true"), format!("{busybox}\n"));
    t.run(&["rm", "c"]).code(0);
    let id = t.inspect("b:2", "{{.Id}}");
    assert_eq!(filtered(&format!("id={}", &id[..12])), "localhost/b:2\n");
    t.run(&["untag", "b:2"]).code(0);
    t.run(&["images", "-q", "--no-trunc", "--filter", "dangling=true"])
        .prints(&format!("sha256:{id}\n"));
    assert_eq!(
        filtered("dangling=false"),
        format!("{busybox}\nlocalhost/a:1\n")
    );
    t.run(&["images", "--filter", "colour=red"]).refused(125);
    // Digests in a column, and as a field.
    let digest = t.inspect(&busybox, "{{.Digest}}");
    t.run(&["images", "--digests"])
        .shows("DIGEST")
        .shows(&digest);
    t.run(&["images", "--format", "{{.Digest}}", &busybox])
        .prints(&format!("{digest}\n"));
}

fn references(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&["images", "-q", "--no-trunc"]);
    let id = &id[7..];
    let digest = t.inspect(&image, "{{index .RepoDigests 0}}");
    // By name with and without its tag, by its last part, by id, by a part of it, by digest.
    let bare = image.strip_suffix(":latest").unwrap();
    for name in [
        image.as_str(),
        bare,
        "busybox",
        "busybox:latest",
        id,
        &id[..12],
        &id[..5],
        &digest,
    ] {
        t.run(&["run", "--rm", "--pull=never", name, "echo", "hi"])
            .prints("hi\n")
            .quiet();
    }
    t.run(&["run", "--rm", "--pull=never", "busybox:other", "true"])
        .refused(125)
        .says("busybox:other");
}

fn tags(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["tag", &image, "mine"]).prints("").quiet();
    t.run(&["tag", "mine", "other.test/team/mine:v2"])
        .prints("");
    let out = t.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut names: Vec<&str> = out.lines().collect();
    names.sort_unstable();
    let mut expected = ["localhost/mine:latest", "other.test/team/mine:v2", &image];
    expected.sort_unstable();
    assert_eq!(names, expected);
    t.run(&["run", "--rm", "mine", "echo", "hi"]).prints("hi\n");
    t.run(&["rmi", "mine"])
        .prints("Untagged: localhost/mine:latest\n");
    t.run(&["tag", "nosuch", "x"])
        .refused(125)
        .says("nosuch: image not known");
    t.run(&["tag", &image, "UPPER"]).refused(125);
}

fn removal(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&["images", "-q", "--no-trunc"]);
    t.run(&["rmi", &image])
        .prints(&format!("Untagged: {image}\nDeleted: {}\n", &id[7..]))
        .quiet();
    t.run(&["images", "-q"]).prints("");
    t.run(&["rmi", &image]).refused(1).says("image not known");
    // Two images that share layers: one goes, the other works.
    let (one, two) = (t.pull("busybox"), t.pull("banner"));
    t.run(&["rmi", &one]).code(0);
    t.run(&["run", "--rm", &two, "cat", "/var/www/index.html"])
        .shows("___");
    t.run(&["rmi", "-a"]).code(0);
    t.run(&["images", "-q"]).prints("");
}

fn in_use(t: &mut Rcon) {
    let image = t.pull("busybox");
    let id = t.ok(&["create", &image, "true"]);
    t.run(&["rmi", &image])
        .refused(2)
        .says(&id[..12])
        .says("in use");
    t.run(&["run", "--rm", &image, "true"]).code(0);
    t.run(&["rmi", "-f", &image]).code(0);
    // With force the containers go with it.
    t.has_containers(0);
}

fn load_archives(t: &mut Rcon) {
    let cache = lab().cache.join("archive");
    for archive in ["docker.tar", "docker.tar.gz", "oci.tar"] {
        let path = t.write(archive, fs::read(cache.join(archive)).unwrap());
        t.run(&["load", "-i", &path])
            .shows("Loaded image: lab.test/busybox:archived\n");
        t.run(&["run", "--rm", "lab.test/busybox:archived", "echo", archive])
            .prints(&format!("{archive}\n"));
        t.run(&["rmi", "-f", "lab.test/busybox:archived"]).code(0);
    }
}

fn load_from_input(t: &mut Rcon) {
    let bytes = fs::read(lab().cache.join("archive/docker.tar")).unwrap();
    t.feed(&bytes, &["load", "-q"])
        .shows("lab.test/busybox:archived");
    t.run(&["run", "--rm", "lab.test/busybox:archived", "echo", "hi"])
        .prints("hi\n");
    // The same image from the registry is the same image.
    t.run(&["pull", "-q", &registry::plain().name("busybox:docker")])
        .code(0);
}

fn import_tree(t: &mut Rcon) {
    let path = t.write(
        "files.tar",
        fs::read(lab().cache.join("archive/files.tar")).unwrap(),
    );
    let out = t.run(&[
        "import",
        "-q",
        "-c",
        "CMD [\"echo\",\"imported\"]",
        "-c",
        "ENV A=1",
        "-m",
        "by hand",
        &path,
        "mine:v1",
    ]);
    assert!(
        out.ok().trim_start_matches("sha256:").len() == 64,
        "{}",
        out.story()
    );
    t.run(&["run", "--rm", "mine:v1"]).prints("imported\n");
    t.run(&["run", "--rm", "mine:v1", "sh", "-c", "echo $A"])
        .prints("1\n");
    let bytes = fs::read(lab().cache.join("archive/files.tar")).unwrap();
    t.feed(&bytes, &["import", "-q", "-", "fed"]).code(0);
    t.run(&["run", "--rm", "localhost/fed:latest", "/bin/echo", "hi"])
        .prints("hi\n");
}

fn refused_archives(t: &mut Rcon) {
    let nonsense = t.write("nonsense", "this is not an archive at all\n".repeat(100));
    t.run(&["load", "-i", &nonsense]).refused(125);
    t.run(&["load", "-i", "/nonexistent"])
        .refused(125)
        .says("/nonexistent");
    t.run(&["import", "/nonexistent", "x"])
        .refused(125)
        .says("/nonexistent");
    // Cut in the middle.
    let bytes = fs::read(lab().cache.join("archive/docker.tar")).unwrap();
    let cut = t.write("cut.tar", &bytes[..bytes.len() / 2]);
    t.run(&["load", "-i", &cut]).refused(125);
    t.run(&["images", "-q"]).prints("");
}
