//! Searching registries.

use serde_json::{Value, json};

use crate::lab::Rcon;
use crate::lab::http::{Response, serve};
use crate::lab::registry;
use crate::lab::scenario::scenarios;
use std::net::TcpListener;

scenarios!(catalog, hub, tags, refused);

/// A registry with Docker Hub's search.
fn hub_like() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    serve(listener, |request| {
        let answer = json!({ "results": [
            { "name": "team/alpine", "description": "A tiny\nthing, described at quite some length, more than fits", "star_count": 7 },
            { "name": "alpine", "description": "Official", "star_count": 900, "is_official": true },
        ] });
        match request.path.as_str() {
            "/v2/" => Response::new(200, "application/json", "{}"),
            path if path.starts_with("/v1/search") && path.contains("q=alpine") => {
                Response::new(200, "application/json", answer.to_string())
            }
            _ => Response::new(404, "application/json", "{}"),
        }
    });
    address
}

fn catalog(t: &mut Rcon) {
    let address = &registry::plain().address;
    let out = t.ok(&["search", &format!("{address}/busy")]);
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NAME", "DESCRIPTION"]
    );
    assert!(
        lines.contains(&format!("{address}/busybox").as_str()),
        "{out}"
    );
    assert!(!out.contains("banner"), "{out}");
    // Everything there is.
    let all = t.ok(&["search", &format!("{address}/"), "--format", "{{.Name}}"]);
    assert!(all.contains("busybox") && all.contains("banner"), "{all}");
    assert_eq!(
        t.ok(&[
            "search",
            "--limit",
            "1",
            "--format",
            "{{.Index}}",
            &format!("{address}/")
        ]),
        *address
    );
    t.run(&["search", &format!("{address}/nosuchthing")])
        .prints("");
}

fn hub(t: &mut Rcon) {
    let address = hub_like();
    let term = format!("{address}/alpine");
    let list: Value = serde_json::from_str(&t.ok(&["search", "--format", "json", &term])).unwrap();
    assert_eq!(list[0]["Name"], format!("{address}/team/alpine"));
    // One line, and not too long.
    let shown = list[0]["Description"].as_str().unwrap();
    assert!(
        shown.ends_with("...") && shown.len() == 44 && !shown.contains('\n'),
        "{shown}"
    );
    let whole = t.ok(&[
        "search",
        "--no-trunc",
        "--format",
        "{{.Description}}",
        &term,
    ]);
    assert!(whole.contains("more than fits"), "{whole}");
    for filter in ["is-official", "stars=100", "is-official=true"] {
        t.run(&[
            "search",
            "--filter",
            filter,
            "--format",
            "{{.Name}} {{.Stars}} {{.Official}}",
            &term,
        ])
        .prints(&format!("{address}/alpine 900 [OK]\n"));
    }
    let table = t.ok(&["search", "--compatible", &term]);
    assert!(
        table.contains("STARS") && table.contains("OFFICIAL"),
        "{table}"
    );
    // A short name is searched for in all registries that stand for such.
    t.write(
        ".config/containers/registries.conf",
        format!("unqualified-search-registries = ['{address}']"),
    );
    t.run(&[
        "search",
        "--format",
        "{{.Name}}",
        "--filter",
        "stars=100",
        "alpine",
    ])
    .prints(&format!("{address}/alpine\n"));
}

fn tags(t: &mut Rcon) {
    let name = registry::plain().name("busybox");
    let name = name.strip_suffix(":latest").unwrap();
    let out = t.ok(&["search", "--list-tags", name]);
    assert!(out.lines().next().unwrap().starts_with("NAME"), "{out}");
    assert!(
        out.lines()
            .any(|l| l.split_whitespace().eq([name, "latest"])),
        "{out}"
    );
    let list: Value =
        serde_json::from_str(&t.ok(&["search", "--list-tags", "--format", "json", name])).unwrap();
    assert_eq!(list[0]["Name"], name);
    let one = t.ok(&[
        "search",
        "--list-tags",
        "--limit",
        "1",
        "--format",
        "{{.Tag}}",
        name,
    ]);
    assert_eq!(one.lines().count(), 1);
}

fn refused(t: &mut Rcon) {
    t.run(&["search"]).refused(125);
    t.run(&["search", "127.0.0.1:1/x"]).refused(125);
    t.run(&["search", "--filter", "colour=red", "x"])
        .refused(125)
        .says("invalid filter");
    t.run(&["search", "--list-tags", "--filter", "stars=1", "x"])
        .refused(125);
    let name = format!("{}/no/such", registry::plain().address);
    t.run(&["search", "--list-tags", &name]).refused(125);
}
