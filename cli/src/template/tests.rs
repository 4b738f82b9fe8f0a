//! Templates and what podman prints for them.

use serde_json::{Value, json};

use super::render;

fn container() -> Value {
    json!({
        "Id": "0123abcd", "Name": "web", "Created": "2026-11-23T10:00:00Z", "Pid": 42, "Load": 1.5,
        "State": {"Status": "running", "Running": true, "ExitCode": 0, "Health": null},
        "Config": {"Cmd": ["httpd", "-f"], "Env": ["A=1", "B=2"], "Labels": {"a.b": "c", "Plain": "x"}},
        "Mounts": [{"Source": "/a", "Destination": "/b"}, {"Source": "/c", "Destination": "/d"}],
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, "Networks": {}},
        "host": {"arch": "amd64"},
    })
}

fn ok(template: &str) -> String {
    render("inspect", template, &container()).unwrap_or_else(|error| panic!("{template}: {error}"))
}

fn wrong(template: &str) -> String {
    match render("inspect", template, &container()) {
        Ok(text) => panic!("{template} gave {text:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn fields_are_printed_as_go_prints_them() {
    assert_eq!(ok("{{.Name}} {{ .State.Status }}"), "web running");
    assert_eq!(
        ok("{{.Config.Cmd}}|{{.Config.Labels}}|{{.Pid}}|{{.Load}}"),
        "[httpd -f]|map[Plain:x a.b:c]|42|1.5"
    );
    assert_eq!(ok("{{.Mounts}}"), "[{/a /b} {/c /d}]");
    assert_eq!(ok("{{.Host.Arch}}"), "amd64");
    assert_eq!(ok("{{.Config.Labels.none}}"), "<no value>");
    assert_eq!(ok("{{index .Config.Labels \"none\"}}|"), "|");
    assert_eq!(ok("{{.Created}}"), "2026-11-23 10:00:00 +0000 UTC");
    assert_eq!(ok("{{json .Created}}"), "\"2026-11-23T10:00:00Z\"");
    assert_eq!(ok("{{printf \"%.10s\" .Created}}"), "2026-11-23");
    assert_eq!(ok("{{.State.Health}}"), "<nil>");
}

#[test]
fn what_is_not_there_is_an_error_with_its_place() {
    assert_eq!(
        wrong("{{.Nope}}"),
        "template: inspect:1:2: executing \"inspect\" at <.Nope>: can't evaluate field Nope in type interface {}"
    );
    assert!(wrong("{{.Name.More}}").contains("can't evaluate field More in type string"));
    assert!(wrong("{{$x}}").contains("undefined variable"));
    assert!(wrong("{{nofunc .}}").contains("function \"nofunc\" not defined"));
}

#[test]
fn control_structures() {
    assert_eq!(ok("{{if .State.Running}}up{{else}}down{{end}}"), "up");
    assert_eq!(
        ok("{{if .State.ExitCode}}bad{{else if eq .Name \"web\"}}web{{else}}other{{end}}"),
        "web"
    );
    assert_eq!(ok("{{range .Config.Env}}<{{.}}>{{end}}"), "<A=1><B=2>");
    assert_eq!(
        ok("{{range $i, $m := .Mounts}}{{$i}}:{{$m.Source}} {{end}}"),
        "0:/a 1:/c "
    );
    assert_eq!(
        ok("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}"),
        "Plain=x;a.b=c;"
    );
    assert_eq!(ok("{{range .State.Health}}x{{else}}none{{end}}"), "none");
    assert_eq!(
        ok("{{range .Config.Env}}{{if eq . \"B=2\"}}{{break}}{{end}}{{.}}{{end}}"),
        "A=1"
    );
    assert_eq!(
        ok("{{range .Config.Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{end}}"),
        "B=2"
    );
    assert_eq!(
        ok("{{with .State}}{{.Status}} {{$.Name}}{{end}}"),
        "running web"
    );
    assert_eq!(ok("{{with .State.Health}}a{{else}}b{{end}}"), "b");
    assert_eq!(
        ok("{{$n := 1}}{{range .Config.Env}}{{$n = 5}}{{end}}{{$n}}"),
        "5"
    );
    assert_eq!(
        ok("{{define \"x\"}}[{{.}}]{{end}}{{template \"x\" .Name}}"),
        "[web]"
    );
    assert_eq!(ok("{{block \"y\" .Id}}({{.}}){{end}}"), "(0123abcd)");
    assert_eq!(ok("{{range 3}}{{.}}{{end}}"), "012");
}

#[test]
fn white_space_and_comments() {
    assert_eq!(ok("a {{- .Name -}} b"), "awebb");
    assert_eq!(ok("a{{/* not shown */}}b"), "ab");
    assert_eq!(ok("a {{- /* not shown */ -}} b"), "ab");
    assert_eq!(ok("{{\"a\\tb\"}}{{`\\n`}}"), "a\tb\\n");
}

#[test]
fn functions() {
    assert_eq!(ok("{{json .Config.Cmd}}"), r#"["httpd","-f"]"#);
    assert_eq!(ok("{{join .Config.Env \",\"}}"), "A=1,B=2");
    assert_eq!(
        ok("{{.Name | upper | printf \"%q-%5s|%-5s|\" \"x\" \"y\"}}"),
        "\"x\"-    y|WEB  |"
    );
    assert_eq!(
        ok("{{index .Config.Labels \"a.b\"}} {{index .Config.Env 1}}"),
        "c B=2"
    );
    assert_eq!(
        ok("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}"),
        "8080"
    );
    assert_eq!(
        ok("{{range $p, $c := .NetworkSettings.Ports}}{{$p}}->{{(index $c 0).HostPort}}{{end}}"),
        "80/tcp->8080"
    );
    assert_eq!(
        ok("{{len .Mounts}} {{slice .Id 0 4}} {{truncate .Id 3}}"),
        "2 0123 012"
    );
    assert_eq!(
        ok("{{and .State.Running (not .State.ExitCode)}} {{or .State.Health \"-\"}}"),
        "true -"
    );
    assert_eq!(
        ok("{{eq .Pid 41 42}} {{lt .Pid 50}} {{ne .Name \"x\"}} {{ge .Load 1.5}}"),
        "true true true true"
    );
    assert_eq!(
        ok("{{println .Name .Pid}}{{print .Name .Pid 1}}"),
        "web 42\nweb42 1"
    );
    assert_eq!(
        ok("{{title \"one two\"}} {{lower \"AB\"}} {{pad \"x\" 1 2}}|"),
        "One Two ab  x  |"
    );
    assert_eq!(ok("{{range split \"a,b\" \",\"}}{{.}};{{end}}"), "a;b;");
    assert_eq!(
        ok("{{printf \"%d %05d %x %.2f %v %t %T\" 42 7 255 1.0 .Config.Cmd true .Pid}}"),
        "42 00007 ff 1.00 [httpd -f] true int"
    );
    assert_eq!(
        ok("{{printf \"%d\" \"x\"}} {{printf \"%s\"}} {{printf \"a\" 1}}"),
        "%!d(string=x) %!s(MISSING) a%!(EXTRA int=1)"
    );
    assert_eq!(
        ok(
            "{{printf \"%[2]d %[1]d\" 1 2}}|{{printf \"% x|%#q|%q|%+v|%q\" \"ab\" \"c\" 65 (index .Mounts 0) \"\\x00\"}}"
        ),
        "2 1|61 62|`c`|'A'|{Source:/a Destination:/b}|\"\\x00\""
    );
    assert_eq!(
        ok("{{printf \"%5d|%s|%d\" 7 nil .Config.Env}}"),
        "    7|%!s(<nil>)|[%!d(string=A=1) %!d(string=B=2)]"
    );
    assert_eq!(ok("{{'a'}} {{0x10}} {{1e3}} {{-5}}"), "97 16 1000 -5");
}

#[test]
fn templates_that_are_none() {
    // Deep blocks in a template that calls itself: each bound alone would let the stack overflow.
    let deep = format!(
        "{{{{define \"x\"}}}}{}{{{{template \"x\"}}}}{}{{{{end}}}}{{{{template \"x\"}}}}",
        "{{if true}}".repeat(90),
        "{{end}}".repeat(90)
    );
    for (template, part) in [
        ("{{.Name", "unclosed action"),
        ("{{if .Name}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{}}", "missing value for command"),
        ("{{\"a}}", "unterminated quoted string"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{break}}", "outside {{range}}"),
        ("{{eq .Mounts .Mounts}}", "non-comparable type"),
        ("{{index .Config.Env 7}}", "index out of range"),
        ("{{template \"x\"}}", "not defined"),
        (
            "{{define \"x\"}}{{template \"x\"}}{{end}}{{template \"x\"}}",
            "maximum template depth",
        ),
        (&deep, "maximum template depth"),
        ("{{range 100000000000}}{{end}}", "does too much"),
        (
            "{{$a := \"aaaa\"}}{{range 100}}{{$a = print $a $a}}{{end}}",
            "does too much",
        ),
        ("{{1 | 2}}", "non executable command in pipeline stage 2"),
        ("{{nil}}", "nil is not a command"),
        ("{{..Name}}", "unexpected . after term"),
        (
            "{{.Name \"x\"}}",
            "Name has arguments but cannot be invoked as function",
        ),
        ("{{eq 1}}", "missing argument for comparison"),
        ("{{not}}", "wrong number of args for not: want 1 got 0"),
        ("{{call .Name}}", "non-function of type string"),
    ] {
        let message = wrong(template);
        assert!(message.contains(part), "{template}: {message}");
        assert!(message.starts_with("template: inspect:"), "{message}");
    }
}

/// Pieces of templates in random order: whatever comes out, nothing panics.
#[test]
fn garbage_never_panics() {
    const PIECES: [&str; 34] = [
        "{{", "}}", "{{-", "-}}", " ", ".", ".Name", "$", "$x", ":=", "=", "|", "(", ")", "\"",
        "'", "`", "if", "range", "with", "else", "end", "define", "\"x\"", "template", "json",
        "index", "printf", "1", "-", "é", "\\", "/*", "*/",
    ];
    let mut seed: u64 = 0x2545_f491_4f6c_dd1d;
    for _ in 0..20_000 {
        let mut template = String::new();
        for _ in 0..12 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            template += PIECES[(seed % PIECES.len() as u64) as usize];
        }
        let _ = render("x", &template, &container());
    }
}
