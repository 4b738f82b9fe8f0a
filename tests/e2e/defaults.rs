//! containers.conf and what a shell offers.

use crate::lab::Rcon;
use crate::lab::scenario::scenarios;
use crate::lab::tmux::Tmux;

scenarios!(
    containers_conf,
    more_fields,
    files_and_formats,
    credentials_of_docker,
    order_of_files,
    bad_files,
    completion,
    completion_in_bash,
    completion_in_zsh,
    completion_in_fish,
    manual_pages
);

const CONF: &str = ".config/containers/containers.conf";

fn containers_conf(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.write(
        CONF,
        r#"
[containers]
env = ["FROM_CONF=1", "PATH=/nowhere"]
default_ulimits = ["nofile=123:456"]
default_sysctls = ["net.ipv4.ip_default_ttl=33"]
dns_servers = ["9.9.9.9"]
shm_size = "1m"
umask = "0077"
annotations = ["a.b=c"]
default_capabilities = ["CHOWN", "CAP_KILL"]
unknown_field = true
[engine]
stop_timeout = 7
"#,
    );
    let script = "echo $FROM_CONF; ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_default_ttl; \
        grep nameserver /etc/resolv.conf; umask; df -k /dev/shm | tail -n1 | awk '{print $2}'; \
        grep CapEff /proc/self/status";
    t.run(&["run", "--rm", &image, "sh", "-c", script])
        .prints("1\n123\n456\n33\nnameserver 9.9.9.9\n0077\n1024\nCapEff:\t0000000000000021\n");
    // What is said wins.
    t.sh(
        &[
            "-e",
            "FROM_CONF=2",
            "--umask",
            "0022",
            "--dns",
            "1.1.1.1",
            "--cap-drop",
            "kill",
        ],
        &image,
        "echo $FROM_CONF; umask; grep nameserver /etc/resolv.conf; grep CapEff /proc/self/status",
    )
    .prints("2\n0022\nnameserver 1.1.1.1\nCapEff:\t0000000000000001\n");
    t.ok(&["create", "--name", "c", &image, "true"]);
    assert_eq!(
        t.inspect(
            "c",
            r#"{{.Config.StopTimeout}} {{index .Config.Annotations "a.b"}}"#
        ),
        "7 c"
    );
    t.run(&["info", "--format", "{{json .configuration.containersConf}}"])
        .shows(CONF);
}

fn more_fields(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.write(
        CONF,
        r#"
[containers]
log_driver = "k8s-file"
log_size_max = 10000
log_tag = "tagged"
pids_limit = 99
cgroups = "disabled"
mounts = ["type=tmpfs,dst=/memory"]
init = true
utsns = "host"
ipcns = "none"
[engine]
cgroup_manager = "cgroupfs"
detach_keys = "ctrl-a"
network_cmd_options = ["mtu=1400"]
runtime = "crun"
[network]
network_backend = "cni"
"#,
    );
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let script =
        "cat /sys/class/net/tap0/mtu; stat -f -c %T /memory; test $$ != 1 && echo init; hostname";
    t.run(&["run", "--rm", &image, "sh", "-c", script])
        .prints(&format!("1400\ntmpfs\ninit\n{host}\n"));
    // Also where a word before it is the image's name.
    let name = image.as_str();
    let own = ["run", "--rm", "-l", name, "--init=false", name];
    t.run(&[&own[..], &["sh", "-c", "echo $$"]].concat())
        .prints("1\n");
    t.ok(&["create", "--name", "c", &image, "true"]);
    assert_eq!(
        t.inspect(
            "c",
            "{{.HostConfig.LogConfig.Type}} {{.HostConfig.LogConfig.Tag}} {{.HostConfig.LogConfig.Size}} {{.HostConfig.Cgroups}}"
        ),
        "k8s-file tagged 10kB disabled"
    );
    // What is said wins.
    t.ok(&[
        "create",
        "--name",
        "d",
        "--log-driver",
        "none",
        "--log-opt",
        "tag=other",
        "--cgroups",
        "enabled",
        "--network",
        "slirp4netns:mtu=1300",
        &image,
        "true",
    ]);
    assert_eq!(
        t.inspect(
            "d",
            "{{.HostConfig.LogConfig.Type}} {{.HostConfig.LogConfig.Tag}} {{.HostConfig.Cgroups}}"
        ),
        "none other enabled"
    );
    // `info` says where each comes from, and what is passed over.
    let over = t.write("over", "[containers]\npids_limit = 5\n");
    t.set_env("CONTAINERS_CONF_OVERRIDE", &over);
    let info: serde_json::Value =
        serde_json::from_str(&t.ok(&["info", "--format", "json"])).unwrap();
    let configuration = &info["configuration"];
    let fields = configuration["fields"].as_array().unwrap();
    let said: Vec<String> = fields
        .iter()
        .filter(|field| field["name"] == "containers.pids_limit")
        .map(|field| format!("{} {}", field["value"], field["file"].as_str().unwrap()))
        .collect();
    let own = t.home(CONF).display().to_string();
    assert_eq!(said, [format!("99 {own}"), format!("5 {over}")]);
    let others = configuration["fieldsNotFollowed"].to_string();
    assert!(others.contains("engine.runtime") && others.contains("network.network_backend"));
    let variables = configuration["environment"].to_string();
    assert!(variables.contains(&format!("CONTAINERS_CONF_OVERRIDE={over}")));
}

/// `--config`: the folder of Docker's config.json.
fn files_and_formats(t: &mut Rcon) {
    let image = t.pull("busybox");
    let hosts = t.write("base", "10.9.8.7 from-the-base\n");
    t.write(
        CONF,
        format!(
            "[containers]\nbase_hosts_file = \"{hosts}\"\n[engine]\nimage_default_format = \"docker\"\n\
             multi_image_archive = true\nevents_logger = \"none\"\nenv = [\"A=1\"]\n"
        ),
    );
    let count = [
        "run",
        "--rm",
        &image,
        "grep",
        "-c",
        "from-the-base",
        "/etc/hosts",
    ];
    t.run(&count).prints("1\n");
    let none = [
        "run",
        "--rm",
        "--hosts-file",
        "none",
        &image,
        "cat",
        "/etc/hosts",
    ];
    let out = t.run(&none);
    assert!(!out.ok().contains("from-the-base"), "{}", out.story());
    assert!(out.ok().contains("localhost"), "{}", out.story());
    t.run(&["create", "--hosts-file", "image", &image])
        .refused(125)
        .says("--no-hosts");
    t.run(&["create", "--hosts-file", "relative", &image])
        .refused(125)
        .says("absolute");
    t.run(&[
        "run",
        "--rm",
        "--hosts-file",
        "/nonexistent",
        &image,
        "true",
    ])
    .refused(125)
    .says("/nonexistent");

    t.ok(&["create", "--name", "c", &image]);
    for (more, kind) in [
        (
            &[][..],
            "application/vnd.docker.distribution.manifest.v2+json",
        ),
        (&["-f", "oci"], "application/vnd.oci.image.manifest.v1+json"),
    ] {
        let mut commit = vec!["commit", "-q"];
        commit.extend(more);
        commit.extend(["c", "localhost/made"]);
        t.ok(&commit);
        assert_eq!(t.inspect("localhost/made", "{{.ManifestType}}"), kind);
    }
    t.ok(&["save", "-q", "-o", "both.tar", "localhost/made", &image]);
    t.ok(&["rmi", "localhost/made"]);
    t.run(&["load", "-i", "both.tar"]).shows("localhost/made");
    // What is not followed is shown to be so.
    t.run(&[
        "info",
        "--format",
        "{{json .configuration.fieldsNotFollowed}}",
    ])
    .shows("engine.events_logger")
    .shows("engine.env");
}

fn credentials_of_docker(t: &mut Rcon) {
    let registry = "127.0.0.1:1";
    // `user:secret`
    let text = format!(r#"{{"auths": {{"{registry}": {{"auth": "dXNlcjpzZWNyZXQ="}}}}}}"#);
    t.write("docker/config.json", &text);
    t.run(&["login", "--get-login", registry]).refused(125);
    t.run(&["--config", "docker", "login", "--get-login", registry])
        .prints("user\n");
    t.set_env("DOCKER_CONFIG", "docker");
    t.run(&["login", "--get-login", registry]).prints("user\n");
    t.run(&["--config", "nowhere", "login", "--get-login", registry])
        .refused(125);
}

fn order_of_files(t: &mut Rcon) {
    let image = t.pull("busybox");
    let value = |t: &Rcon| t.ok(&["run", "--rm", &image, "sh", "-c", "echo $A $B"]);
    t.write(CONF, "[containers]\nenv = [\"A=1\", \"B=1\"]\n");
    assert_eq!(value(t), "1 1");
    t.write(
        ".config/containers/containers.conf.d/10.conf",
        "[containers]\nenv = [\"A=2\", {append = true}]\n",
    );
    assert_eq!(value(t), "2 1");
    t.write(
        ".config/containers/containers.conf.d/20.conf",
        "[containers]\nenv = [\"B=3\"]\n",
    );
    t.write(".config/containers/containers.conf.d/30.txt", "nonsense");
    assert_eq!(value(t), "3");
    let only = t.write("only", "[containers]\nenv = [\"A=4\"]\n");
    t.set_env("CONTAINERS_CONF", &only);
    assert_eq!(value(t), "4");
    let over = t.write("over", "[containers]\nenv = [\"B=5\", {append = true}]\n");
    t.set_env("CONTAINERS_CONF_OVERRIDE", &over);
    assert_eq!(value(t), "4 5");
}

fn bad_files(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.write(CONF, "[containers\n");
    t.run(&["run", "--rm", &image, "true"])
        .refused(125)
        .says(CONF);
    t.write(CONF, "# [containers\n");
    t.run(&["run", "--rm", &image, "true"]).code(0);
    t.write(CONF, "[containers]\ndefault_ulimits = [\"nosuch=1\"]\n");
    t.run(&["run", "--rm", &image, "true"])
        .refused(125)
        .says("nosuch");
    t.set_env("CONTAINERS_CONF", "/nonexistent");
    t.run(&["run", "--rm", &image, "true"])
        .refused(125)
        .says("/nonexistent");
}

fn completion(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["create", "--name", "asleep", &image, "true"]);
    t.ok(&["run", "-d", "--name", "awake", &image, "sleep", "1000"]);
    t.ok(&["volume", "create", "data"]);
    let offered = |words: &[&str]| {
        let mut all = vec!["__complete"];
        all.extend(words);
        let out = t.ok(&all);
        let words = out
            .lines()
            .map(|l| l.split('\t').next().unwrap().to_owned());
        words.collect::<Vec<String>>().join(" ")
    };
    assert_eq!(offered(&["stop", "a"]), "awake");
    assert_eq!(offered(&["start", "a"]), "asleep");
    assert_eq!(offered(&["rm", "-f", "a"]), "asleep awake");
    assert_eq!(offered(&["rm", "asleep", "aw"]), "awake");
    assert_eq!(offered(&["volume", "rm", ""]), "data");
    assert_eq!(offered(&["run", "--rm", &image[..14]]), image);
    assert_eq!(offered(&["cp", "aw"]), "awake: :files");
    assert_eq!(offered(&["run", "--vol"]), "--volume --volumes-from");
    for shell in ["bash", "zsh", "fish"] {
        t.run(&["completion", shell]).code(0).shows("__complete");
    }
    t.run(&["completion", "tcsh"]).refused(125).says("tcsh");
    t.ok(&["volume", "rm", "data"]);
}

fn completion_in_bash(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "awake", &image, "sleep", "1000"]);
    let script = t.ok(&["completion", "bash"]);
    let path = t.write("completion", script);
    let ask = format!(
        ". {path}; COMP_LINE='{0} stop aw'; COMP_POINT=${{#COMP_LINE}}; compopt() {{ :; }}; _rcon; echo \"${{COMPREPLY[@]}}\"; \
         COMP_LINE='{0} cp awake:/etc/x'; COMP_POINT=${{#COMP_LINE}}; _rcon; echo \"${{COMPREPLY[@]}}\"; complete -p rcon",
        t.program.display()
    );
    let words = ["bash", "--norc", "-c", &ask].map(String::from);
    let out = t.command_of(&words).output().unwrap();
    let out = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out, "awake\n\ncomplete -F _rcon rcon\n");
}

fn completion_in_zsh(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "awake", &image, "sleep", "1000"]);
    t.ok(&["volume", "create", "data"]);
    t.ok(&["completion", "zsh", "-f", "completion"]);
    let tmux = Tmux::new(t);
    tmux.line("clear; PS1='zsh$ ' zsh -f");
    tmux.see_last("zsh$ ");
    tmux.line("autoload -U compinit && compinit -u -D && . ./completion; clear");
    tmux.see_last("zsh$ ");
    for (typed, completed) in [
        ("rcon stop aw", "rcon stop awake"),
        ("rcon volume rm da", "rcon volume rm data"),
        ("rcon run --rm 127", &format!("rcon run --rm {image}")),
        ("rcon unpa", "rcon unpause"),
    ] {
        tmux.text(typed);
        tmux.keys(&["Tab"]);
        tmux.see(completed);
        tmux.keys(&["C-u"]);
    }
    tmux.line("exit");
    tmux.see_last("host$ ");
    drop(tmux);
    t.ok(&["volume", "rm", "data"]);
}

fn completion_in_fish(t: &mut Rcon) {
    let image = t.pull("busybox");
    t.ok(&["run", "-d", "--name", "awake", &image, "sleep", "1000"]);
    t.ok(&["volume", "create", "data"]);
    t.ok(&["completion", "fish", "-f", "completion"]);
    let path = format!("{}:/usr/bin:/bin", t.program.parent().unwrap().display());
    t.set_env("PATH", &path);
    let offered = |line: &str| {
        let ask = format!("source completion; complete -C '{line}'");
        let words = ["fish", "--no-config", "-c", &ask].map(String::from);
        let out = t.command_of(&words).output().expect("fish");
        let out = String::from_utf8(out.stdout).unwrap();
        let words = out
            .lines()
            .map(|l| l.split('\t').next().unwrap().to_owned());
        words.collect::<Vec<String>>().join(" ")
    };
    assert_eq!(offered("rcon stop aw"), "awake");
    assert_eq!(offered("rcon volume rm da"), "data");
    assert_eq!(offered(&format!("rcon run --rm {}", &image[..14])), image);
    assert_eq!(offered("rcon unpa"), "unpause");
    t.ok(&["volume", "rm", "data"]);
}

fn manual_pages(t: &mut Rcon) {
    t.run(&["__docs", "man", "pages"]).code(0).quiet();
    for page in ["rcon.1", "rcon-run.1", "rcon-volume-create.1"] {
        let text = std::fs::read_to_string(t.home("pages").join(page)).unwrap();
        assert!(
            text.starts_with(".TH RCON") && text.contains(".SH OPTIONS"),
            "{text}"
        );
    }
    t.run(&["__docs", "nonsense"]).refused(125);
}
