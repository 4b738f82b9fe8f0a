//! What the documents show is what happens: their `console` blocks, run line by line.

use std::process::Stdio;

use crate::hints::rust_files;
use crate::lab::host::Host;
use crate::lab::program::Running;
use crate::lab::pty::Terminal;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, skip};

scenarios!(
    walkthrough,
    recorrido,
    service_test,
    recipes,
    says_who_it_is
);

/// The prompt of the shell in a container.
const INNER: &str = "/ # ";

fn walkthrough(t: &mut Rcon) {
    follow(t, include_str!("../../docs/walkthrough.md"));
}

fn recorrido(t: &mut Rcon) {
    follow(t, include_str!("../../docs/recorrido.md"));
}

/// `examples/ci/service-test`, which docs/ci.md and the recipes beside it call.
fn service_test(t: &mut Rcon) {
    let image = t.pull("banner");
    let script = crate::lab::script("../../examples/ci/service-test");
    let script = t.write("service-test", std::fs::read(script).unwrap());
    let path = format!("{}:/usr/bin:/bin", t.program.parent().unwrap().display());
    t.set_env("PATH", &path);
    let words = [
        "sh",
        &script,
        &image,
        "sh",
        "-c",
        "echo at $SERVICE; exit 3",
    ];
    let command = t.command_of(&words.map(String::from));
    let out = Running::start(command, Stdio::null()).wait();
    out.code(3);
    let at = out
        .stdout
        .trim()
        .strip_prefix("at 127.0.0.1:")
        .map(str::parse::<u16>);
    assert!(matches!(at, Some(Ok(_))), "{}", out.story());
    t.has_containers(0);
}

/// What sets up the machine of a recipe, which is not ours to change.
const SET_UP: [&str; 5] = [
    "sudo sysctl -w ",
    "cargo install ",
    "apt-get ",
    "install -m 0755 rcon ",
    "useradd ",
];

/// The commands of docs/ci.md and of the recipes beside it, each of which ends well.
fn recipes(t: &mut Rcon) {
    let read = |path: &str| {
        let path = crate::lab::script(&format!("../../{path}"));
        std::fs::read_to_string(path).unwrap()
    };
    let (images, nginx) = ("docker.io/library/alpine", "docker.io/library/nginx");
    for (stored, name) in [("busybox", images), ("banner", nginx)] {
        let image = t.pull(stored);
        t.ok(&["tag", &image, name]);
    }
    let program = |t: &Rcon, name: &str, text: &str| {
        let path = t.write(name, text);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    };
    let service_test = read("examples/ci/service-test");
    program(t, "examples/ci/service-test", &service_test);
    program(t, "rcon/examples/ci/service-test", &service_test);
    let curl = "#!/bin/sh\nexec busybox wget -q -O - \"$2\"\n";
    program(t, "bin/curl", curl);
    // The user is there already.
    program(t, "bin/su", "#!/bin/sh\nexec sh -c \"$3\"\n");
    let path = [t.home("bin"), t.program.parent().unwrap().to_owned()];
    let path = path.map(|folder| folder.display().to_string()).join(":");
    t.set_env("PATH", &format!("{path}:/usr/bin:/bin"));
    let perform = |t: &Rcon, line: &str| {
        let words = ["sh", "-e", "-c", line].map(String::from);
        let out = Running::start(t.command_of(&words), Stdio::null()).wait();
        out.code(0);
        out.stdout
    };

    let banner = read("tests/lab/banner.txt");
    let mut set_up = 0;
    for recipe in ["github-actions.yml", "gitlab-ci.yml"] {
        let mut fetched = 0;
        for line in commands(&read(&format!("examples/ci/{recipe}"))) {
            if SET_UP.iter().any(|start| line.starts_with(start)) {
                set_up += 1;
                continue;
            }
            assert_eq!(perform(t, &line), banner, "{recipe}: {line}");
            fetched += 1;
        }
        assert_eq!(fetched, 1, "{recipe}");
    }
    assert_eq!(set_up, 5);

    let page = read("docs/ci.md");
    let blocks: Vec<&str> = page
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 2);
    for block in &blocks {
        perform(t, block);
    }
    // The next job has the archive and no images.
    t.ok(&["rmi", "-a", "-f"]);
    perform(t, blocks[1]);
    for name in [images, nginx] {
        t.ok(&["image", "exists", name]);
    }
    t.has_containers(0);
}

/// The commands of a recipe: what stands after `run:` in steps of GitHub's, and the lists under `before_script:` and `script:` of
/// GitLab's.
fn commands(recipe: &str) -> Vec<String> {
    let mut script = false;
    let mut found = Vec::new();
    for line in recipe.lines().map(str::trim) {
        if let Some(command) = line.strip_prefix("- run: ") {
            found.push(command.to_owned());
        } else if line.ends_with("script:") {
            script = true;
        } else if let Some(command) = line.strip_prefix("- ").filter(|_| script) {
            found.push(command.to_owned());
        }
    }
    found
}

/// Shown in docs/contributing.md, word by word.
fn says_who_it_is(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.run(&["run", "--rm", "--hostname", "me", &image, "hostname"])
        .prints("me\n");
}

/// The shell examples of the documents by their first words, and which scenario runs them or what else sees to them. Those of the
/// walks are all run above.
const EXAMPLES: [(&str, &str, &str); 9] = [
    ("README.md", "examples/demo", "walkthrough::demonstration"),
    ("README.md", "tests/run", "is what runs this"),
    ("docs/ci.md", "rcon run --rm -v", "documents::recipes"),
    ("docs/ci.md", "images=", "documents::recipes"),
    (
        "docs/contributing.md",
        "sudo .ci/run",
        "is what CI begins with",
    ),
    (
        "docs/contributing.md",
        "cargo build",
        "takes hours in all: what is named is looked for below",
    ),
    (
        "docs/podman.md",
        "mkdir -p ~/bin",
        "as_runtime::as_documented",
    ),
    (
        "docs/troubleshooting.md",
        "sudo tee /etc/apparmor.d",
        "changes the machine: compared with the package's below",
    ),
    (
        "docs/troubleshooting.md",
        "sudo usermod",
        "changes the machine: compared with what doctor says by the engine's own tests",
    ),
];

/// The blocks of code of a document: their languages and texts.
fn blocks(document: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = document.split("```").collect();
    let inside = parts.iter().skip(1).step_by(2);
    inside.filter_map(|block| block.split_once('\n')).collect()
}

/// The documents: their paths from the top of the tree, and their texts.
fn documents() -> Vec<(String, String)> {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for entry in std::fs::read_dir(top.join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    let read = |name: String| {
        let text = std::fs::read_to_string(top.join(&name)).unwrap();
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// No example of a shell is shown that nobody runs, or that nobody has said why.
#[test]
fn examples_are_run() {
    let mut seen = vec![false; EXAMPLES.len()];
    for (name, text) in documents() {
        for (language, block) in blocks(&text) {
            match language {
                "console" => assert!(
                    ["docs/walkthrough.md", "docs/recorrido.md"].contains(&name.as_str()),
                    "{name}: nobody runs\n{block}"
                ),
                "sh" => {
                    let of = |example: &(&str, &str, &str)| {
                        example.0 == name && block.starts_with(example.1)
                    };
                    let at = EXAMPLES.iter().position(of);
                    seen[at.unwrap_or_else(|| panic!("{name}: nobody runs\n{block}"))] = true;
                }
                "rust" => assert!(
                    include_str!("documents.rs").contains(block),
                    "{name}: nobody compiles\n{block}"
                ),
                // Drawings, and what is printed.
                "text" | "" => {}
                other => panic!("{name}: who runs what is in {other}?"),
            }
        }
    }
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e");
    for ((name, start, who), seen) in EXAMPLES.iter().zip(seen) {
        assert!(
            seen,
            "{name} has no example any more that begins with {start}"
        );
        if let Some((module, function)) = who.split_once("::") {
            let source = std::fs::read_to_string(top.join(format!("{module}.rs"))).unwrap();
            assert!(
                source.contains(&format!("fn {function}(")),
                "there is no {who}"
            );
        }
    }
}

/// The profile for AppArmor that is shown is the package's, but for the place of the program and what others may add.
#[test]
fn the_profile_is_the_packages() {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| {
                !line.is_empty() && !line.starts_with('#') && !line.starts_with("include")
            })
            .map(|line| line.replace("/usr/local/bin", "/usr/bin"))
            .collect()
    };
    let page = include_str!("../../docs/troubleshooting.md");
    let (_, shown) = page.split_once("<<'END'\n").unwrap();
    let (shown, _) = shown.split_once("END\n").unwrap();
    assert_eq!(
        lines(shown),
        lines(include_str!("../../packaging/apparmor"))
    );
}

/// A line that is typed and what is shown after it.
struct Step<'a> {
    /// Typed in a container's shell, not in the user's.
    inner: bool,
    typed: &'a str,
    shown: Vec<&'a str>,
}

fn steps(document: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            let typed = [("$ ", false), (INNER, true)]
                .into_iter()
                .find_map(|(prompt, inner)| Some((line.strip_prefix(prompt)?, inner)));
            match typed {
                Some((typed, inner)) => steps.push(Step {
                    inner,
                    typed,
                    shown: Vec::new(),
                }),
                None => steps
                    .last_mut()
                    .expect("a block begins with a prompt")
                    .shown
                    .push(line),
            }
        }
    }
    steps
}

/// On the page's host, with images that have the names of the page's.
fn follow(t: &mut Rcon, document: &str) {
    let Some(host) = Host::new() else {
        return skip("the page's host needs root");
    };
    t.move_to(&host);
    for (stored, name) in [
        ("banner", "quay.io/libpod/banner"),
        ("busybox", "docker.io/library/alpine"),
    ] {
        let image = host.image(stored);
        t.ok(&["pull", "-q", &image]);
        t.ok(&["tag", &image, name]);
    }
    let mut terminal: Option<Terminal> = None;
    for step in steps(document) {
        let printed = match (&mut terminal, step.inner) {
            (Some(terminal), true) if step.typed == "exit" => {
                terminal.send("exit\r");
                assert_eq!(terminal.wait(), 0, "{}", terminal.story());
                String::new()
            }
            (Some(terminal), true) => {
                terminal.send(&format!("{}\r", step.typed));
                terminal.expect("\n");
                let printed = terminal.expect(INNER).replace('\r', "");
                printed.trim_end_matches(INNER).to_owned()
            }
            (None, true) => panic!("{}: no container has been entered", step.typed),
            (_, false) if step.typed.contains(" -it ") => {
                let words: Vec<&str> = step.typed.split(' ').skip(1).collect();
                let mut entered = t.terminal_of(50, 200, &words);
                entered.expect(INNER);
                terminal = Some(entered);
                String::new()
            }
            (_, false) => {
                let line = format!(
                    "rcon() {{ {} \"$@\"; }}; {}",
                    t.program.display(),
                    step.typed
                );
                let command = t.command_of(&["sh".into(), "-c".into(), line]);
                let out = Running::start(command, Stdio::null()).wait();
                format!("{}{}", out.stdout, out.stderr)
            }
        };
        assert!(
            matches(&step.shown, &printed.lines().collect::<Vec<_>>()),
            "$ {}\nthe document shows:\n{}\nbut it printed:\n{printed}",
            step.typed,
            step.shown.join("\n"),
        );
    }
}

/// Whether `printed` is what `shown` says: `...` is any number of lines or the rest of one, `<word>` any text without a blank.
fn matches(shown: &[&str], printed: &[&str]) -> bool {
    match shown {
        [] => printed.is_empty(),
        ["...", rest @ ..] => (0..=printed.len()).any(|at| matches(rest, &printed[at..])),
        [line, rest @ ..] => printed
            .split_first()
            .is_some_and(|(first, more)| line_matches(line, first) && matches(rest, more)),
    }
}

fn line_matches(shown: &str, printed: &str) -> bool {
    let words = |line: &'_ str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (mut shown, mut printed) = (words(shown), words(printed));
    // The rest of a line may be left out.
    if shown.last().is_some_and(|last| last == "...") {
        shown.pop();
        printed.truncate(shown.len());
    }
    let placeholder = |word: &str| word.starts_with('<') && word == word.to_lowercase();
    let fits = |(s, p): (&String, &String)| s == p || placeholder(s) && !p.is_empty();
    shown.len() == printed.len() && shown.iter().zip(&printed).all(fits)
}

/// What docs/threat-model.md says is held by a test is: each line of its tables names one that is there.
#[test]
fn tests_of_the_threat_model_are_there() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(top.join("docs/threat-model.md")).unwrap();
    let launch: String = std::fs::read_dir(top.join("crates/launch/tests/containers"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.ends_with('|'));
    let mut checked = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let Some(last) = cells.get(2) else { continue };
        if ["held by", "test"].contains(&last.trim()) {
            continue;
        }
        let named: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test is named: {row}");
        for name in named {
            let (module, function) = name
                .split_once("::")
                .unwrap_or_else(|| panic!("no test: {name}"));
            let source = match module {
                "launch" => launch.clone(),
                module => std::fs::read_to_string(top.join(format!("tests/e2e/{module}.rs")))
                    .unwrap_or_else(|_| panic!("there is no tests/e2e/{module}.rs: {row}")),
            };
            assert!(
                source.contains(&format!("fn {function}(")),
                "there is no {name}: {row}"
            );
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

/// Whatever the documents lead to is there: files that they link, and programs and folders of the tree that they name.
#[test]
fn what_documents_name_is_there() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources(&top);
    let (mut links, mut paths, mut variables) = (0, 0, 0);
    for (name, text) in documents() {
        let document = top.join(&name);
        for target in text.split("](").skip(1) {
            let target = target.split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(
                document.parent().unwrap().join(file).exists(),
                "{name} links {file}, which is not there"
            );
            links += 1;
        }
        let of_the_tree = [
            "tests/",
            "crates/",
            "packaging/",
            "examples/",
            "cli/",
            ".ci/",
            "fuzz/",
        ];
        let words = text.split(|c: char| c.is_whitespace() || "`()|;,".contains(c));
        for word in words.map(|word| word.trim_end_matches(['.', ':'])) {
            let variable = word.split('=').next().unwrap_or_default();
            if variable.starts_with("RCON_TEST_") || variable.starts_with("RCON_WRITE_") {
                assert!(
                    sources.contains(&format!("\"{variable}\"")),
                    "{name} names {variable}, which nothing reads"
                );
                variables += 1;
            }
            let pattern = word.contains(['*', '…', '{', '<', '$']);
            if pattern
                || word.contains("NAME")
                || !of_the_tree.iter().any(|part| word.starts_with(part))
            {
                continue;
            }
            assert!(
                top.join(word).exists(),
                "{name} names {word}, which is not there"
            );
            paths += 1;
        }
    }
    assert!(
        links > 20 && paths > 50 && variables > 5,
        "{links} links, {paths} paths, {variables} variables"
    );
}

/// The Rust of the program and of its tests.
fn sources(top: &std::path::Path) -> String {
    let folders = ["crates", "cli/src", "tests"].map(|name| top.join(name));
    rust_files(folders.to_vec())
        .into_iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// The manual of a command: what docs/cli.md has under the longest beginning of `words` that is one, or an alias of one.
fn manual<'a>(reference: &'a str, words: &[&str]) -> Option<&'a str> {
    (1..=words.len().min(3)).rev().find_map(|length| {
        let name = words[..length].join(" ");
        let sections = || reference.split("\n## ").skip(1);
        sections()
            .find(|text| text.starts_with(&format!("rcon {name}\n")))
            .or_else(|| sections().find(|text| text.contains(&format!("\n  rcon {name}\n"))))
    })
}

/// Commands and options that documents and examples name are those that there are.
#[test]
fn commands_in_documents_are_there() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(top.join(path)).unwrap();
    let reference = read("docs/cli.md");
    let mut checked = 0;
    for document in [
        "README.md",
        "docs/architecture.md",
        "docs/ci.md",
        "docs/podman.md",
        "docs/recorrido.md",
        "docs/specification.md",
        "docs/threat-model.md",
        "docs/troubleshooting.md",
        "docs/walkthrough.md",
        "examples/ci/service-test",
        "examples/demo",
        "examples/walkthrough",
    ] {
        let text = match document {
            "docs/troubleshooting.md" => crate::hints::without_messages(&read(document)),
            _ => read(document),
        };
        // In a document, what is typed or set in code; in a script, what stands where a command begins.
        let starts: &[&str] = match document.ends_with(".md") {
            true => &["`rcon ", "\n$ rcon "],
            false => &["\nrcon ", "$(rcon ", "run rcon "],
        };
        for start in starts {
            for line in text.split(*start).skip(1) {
                let line = line
                    .split(['`', '\n', '|', ';', ')', '…'])
                    .next()
                    .unwrap_or_default();
                // In a sentence it ends with the comma.
                let line = line.split(", ").next().unwrap_or_default();
                let mut words: Vec<&str> = line.split_whitespace().collect();
                // What is global comes first, with its value.
                while words.first().is_some_and(|word| word.starts_with("--")) {
                    let with_value = !words[0].contains('=') && words[0] != "--version";
                    words.drain(..words.len().min(1 + usize::from(with_value)));
                }
                // `oci` is the interface of runtimes, which has a manual of its own.
                if words.is_empty() || words[0] == "oci" {
                    continue;
                }
                let manual = manual(&reference, &words)
                    .unwrap_or_else(|| panic!("{document}: there is no rcon {line}"));
                for option in words.iter().filter(|word| word.starts_with("--")) {
                    let name = option.split('=').next().unwrap_or_default();
                    assert!(
                        name == "--" || manual.contains(name),
                        "{document}: rcon {line}: there is no {name}"
                    );
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "{checked}");
}
