//! What scripts read, word by word: see `lab::snapshot`. The help texts are in docs/cli.md.

use crate::lab::Rcon;
use crate::lab::scenario::scenarios;
use crate::lab::snapshot::Session;

scenarios!(
    help, errors, containers, lives, inspected, images, moved, volumes, networks, secrets, events,
    system, asked, refused
);

/// Every command's help is what docs/cli.md has, in every place where it can be asked for.
fn help(t: &mut Rcon) {
    let document = include_str!("../../docs/cli.md");
    let mut checked = 0;
    for chapter in document.split("\n## rcon ").skip(1) {
        let (name, rest) = chapter.split_once('\n').unwrap();
        let Some(text) = rest.split("```text\n").nth(1) else {
            continue;
        };
        let text = text.split("```").next().unwrap();
        let mut words: Vec<&str> = name.split(' ').collect();
        words.push("--help");
        t.run(&words).prints(text);
        checked += 1;
    }
    assert!(checked > 70, "{checked} help texts");
    let root = t.ok(&["--help"]);
    assert!(document.contains(&root));
    t.run(&["help"]).prints(&format!("{root}\n"));
}

fn errors(t: &mut Rcon) {
    t.pull("busybox");
    Session::new(t)
        .lines(&[
            "rcon create --name c $IMAGE true | wc -c",
            "rcon nosuch",
            "rcon container nosuch",
            "rcon psx",
            "rcon --nosuch ps",
            "rcon --log-level loud ps",
            "rcon ps --nosuch",
            "rcon ps -Z",
            "rcon ps --format '{{.Nosuch}}'",
            "rcon ps --format '{{.Names'",
            "rcon ps --filter nosuch=1",
            "rcon ps --sort nosuch",
            "rcon ps extra",
            "rcon ps --last",
            "rcon ps --last x",
            "rcon ps --all=maybe",
            "rcon run",
            "rcon run --name c $IMAGE",
            "rcon run --name 'a b' $IMAGE",
            "rcon run --rm --restart always $IMAGE",
            "rcon run --rm $IMAGE nosuch",
            "rcon run --rm $IMAGE /etc",
            "rcon run --rm -w /nosuch $IMAGE true",
            "rcon run --rm -u nosuch $IMAGE true",
            "rcon run --rm -v /nosuch:/x $IMAGE true",
            "rcon run --rm -p x $IMAGE true",
            "rcon run --rm -m x $IMAGE true",
            "rcon run --rm --network nosuch $IMAGE true",
            "rcon run --rm --cap-add nosuch $IMAGE true",
            "rcon run --rm --pull nosuch $IMAGE true",
            "rcon run --rm --pull never nosuch true",
            "rcon run --rm $REGISTRY/nosuch true",
            "rcon run --rm 'A:B' true",
            "rcon exec nosuch true",
            "rcon exec c true",
            "rcon exec c",
            "rcon start nosuch",
            "rcon start",
            "rcon stop nosuch c",
            "rcon kill -s NOSUCH c",
            "rcon kill c",
            "rcon pause c",
            "rcon unpause c",
            "rcon logs nosuch",
            "rcon logs --since x c",
            "rcon inspect nosuch",
            "rcon inspect --type nosuch c",
            "rcon inspect --format '{{.Nosuch}}' c",
            "rcon rename c c",
            "rcon rename nosuch d",
            "rcon port c 80",
            "rcon top c",
            "rcon attach c",
            "rcon wait nosuch",
            "rcon cp nosuch:/x .",
            "rcon cp c:/nosuch .",
            "rcon cp x y",
            "rcon diff nosuch",
            "rcon commit nosuch",
            "rcon export nosuch",
            "rcon update nosuch",
            "rcon update --restart nosuch c",
            "rcon rm nosuch",
            "rcon rm",
            "rcon rmi nosuch",
            "rcon rmi $IMAGE",
            "rcon tag nosuch x",
            "rcon history nosuch",
            "rcon save nosuch",
            "rcon load -i nosuch",
            "rcon push nosuch",
            "rcon login",
            "rcon volume create 'a b'",
            "rcon volume inspect nosuch",
            "rcon volume rm nosuch",
            "rcon secret create s nosuch",
            "rcon secret rm nosuch",
            "rcon secret inspect nosuch",
            "rcon network inspect nosuch",
            "rcon events --filter nosuch=1",
            "rcon events --since x",
        ])
        .is("errors");
}

fn containers(t: &mut Rcon) {
    t.pull("busybox");
    Session::new(t)
        .lines(&[
            "rcon ps",
            "rcon ps -a --format json",
            "rcon run -d --name runs --label a=1 --label b $IMAGE sleep 1000",
            "rcon create --name made -p 127.0.0.1:8080:80 -p 9000-9002:9000-9002/udp -v vol:/vol $IMAGE",
            "rcon run --name ended $IMAGE sh -c 'echo out; echo err >&2; exit 3'",
            "rcon ps",
            "rcon ps -a --sort names",
            "rcon ps -a --no-trunc --sort names",
            "rcon ps -a -s --sort names",
            "rcon ps -a --pod --noheading --sort names",
            "rcon ps -aq --sort names",
            "rcon ps -a --format json --sort names",
            "rcon ps -a --sort names --format 'table {{.ID}} {{.Image}} {{.Command}} {{.CreatedAt}} {{.RunningFor}} {{.Status}} {{.Ports}} {{.Size}} {{.Names}} {{.Labels}} {{.Mounts}} {{.Networks}} {{.State}} {{.ExitCode}} {{.Restarts}}'",
            "rcon ps --ns --format '{{.Names}}'",
            "rcon ps -a --ns --noheading --filter name=made",
            "rcon port made",
            "rcon port made 80",
            "rcon port -a",
            "rcon top runs | head -n 1",
            "rcon top runs user,group,pid,ppid,state,args",
            "rcon logs ended",
            "rcon logs --names --tail 1 ended runs",
            "rcon diff ended",
            "rcon exec runs touch /tmp/x",
            "rcon diff runs",
            "rcon diff runs --format json",
            "rcon stats --no-stream runs | head -n 1",
            "rcon stats --no-stream --format json runs",
            "rcon stats --no-stream --format '{{.Name}} {{.PIDs}}' runs",
            "rcon rename made other",
            "rcon wait ended",
            "rcon stop -t 0 runs",
            "rcon start runs",
            "rcon restart -t 0 runs",
            "rcon kill runs",
            "rcon wait runs",
            "rcon update --restart on-failure:2 other",
            "rcon commit -q other mine",
            "rcon container exists other; echo $?",
            "rcon rm ended other runs",
            "rcon container prune -f",
            "rcon volume rm vol",
        ])
        .is("containers");
}

/// The commands of a container's life that `containers` does not have.
fn lives(t: &mut Rcon) {
    t.pull("busybox");
    Session::new(t)
        .lines(&[
            "rcon create --name c --health-cmd true --health-interval disable $IMAGE sh -c 'echo out; sleep 1000'",
            "rcon init c",
            "rcon ps -a --format '{{.Names}} {{.State}}'",
            "rcon init c",
            "rcon start c",
            "rcon start c",
            "rcon healthcheck run c; echo $?",
            "rcon exec c sh -c 'echo out; echo err >&2; exit 4'",
            "rcon exec -d c true | wc -c",
            "rcon cp c:/etc/group - | tar t",
            "rcon cp c:/etc/group group",
            "rcon cp group c:/tmp/there",
            "rcon exec c ls /tmp",
            "rcon logs -t c",
            "rcon logs --since 1h --until 0s c",
            "rcon container inspect --format '{{.State.Status}} {{.Name}}' c",
            "rcon container list -q",
            "rcon update -e A=1 --health-retries 7 c",
            "rcon events --stream=false --since 1h --filter event=update --format '{{.Type}} {{.Status}} {{.Name}}'",
            "rcon stop -t 0 c",
            "rcon stop -t 0 c",
            "rcon attach c",
            "rcon healthcheck run c",
            "rcon container cleanup c",
            "rcon start -a c & until rcon top c args 2>/dev/null | grep -q ^sleep; do sleep 0.1; done; rcon kill c; wait $!; echo $?",
            "rcon wait c nosuch",
            "rcon run --rm $IMAGE sh -c 'kill -9 $$; exit 5'",
            "rcon run -d --cidfile id $IMAGE true >/dev/null; rcon rm -f --cidfile id | wc -c; rm id group",
            "rcon rm -f -t 0 c nosuch",
            "rcon rm -i nosuch",
        ])
        .is("lives");
}

/// Images and files that come and go.
fn moved(t: &mut Rcon) {
    t.pull("busybox");
    Session::new(t)
        .lines(&[
            "rcon create --name c $IMAGE true",
            "rcon export -o root.tar c",
            "rcon import root.tar imported:1",
            "rcon import -q --change CMD=/x --message hello root.tar",
            "rcon image ls --format '{{.Repository}} {{.Tag}}' --sort repository",
            "rcon push $IMAGE dir:pushed",
            "rcon push -q --digestfile digest $IMAGE oci:layout:1; grep -c sha256: digest",
            "rcon push $IMAGE dir:",
            "rcon pull oci:layout:1 | wc -c",
            "rcon save --format oci-archive -o saved.tar $IMAGE",
            "rcon save -m -o both.tar $IMAGE imported:1",
            "rcon load -i both.tar",
            "rcon load -i root.tar",
            "rcon image diff imported:1 $IMAGE",
            "rcon diff c $IMAGE",
            "rcon container diff c $IMAGE",
            "rcon image diff --format json $IMAGE $IMAGE",
            "rcon diff c c c",
            "rcon image mount",
            "rcon image unmount $IMAGE",
            "rcon search --limit 1 --no-trunc $REGISTRY/busy",
            "rcon search --format '{{.Name}}' $REGISTRY/busy",
            "rcon login --get-login $REGISTRY",
            "rcon login -u me -p secret $REGISTRY",
            "rcon login --get-login $REGISTRY",
            "rcon logout $REGISTRY",
            "rcon logout --all",
            "rcon volume create v",
            "rcon cp root.tar c:/",
            "rcon volume export v -o v.tar",
            "rcon volume import v v.tar",
            "rcon volume mount v | sed 's|.*/rcon/|/rcon/|'",
            "rcon volume unmount v",
            "rcon unshare sh -c 'id -u'",
            "rcon system check",
            "rcon system check --quick; echo $?",
            "rcon untag imported:1",
            "rcon rmi -a -f | grep -c .",
            "rcon volume rm -f v nosuch",
            "rm -r root.tar saved.tar both.tar v.tar digest layout pushed",
        ])
        .is("moved");
}

/// What is asked before something is removed, and what becomes of the answers.
fn asked(t: &mut Rcon) {
    t.pull("busybox");
    Session::new(t)
        .lines(&[
            "rcon create --name c $IMAGE true | wc -c",
            "rcon volume create v",
            "echo n | rcon container prune; echo $?",
            "echo y | rcon container prune",
            "rcon volume prune </dev/null; echo $?",
            "echo y | rcon volume prune",
            "echo n | rcon image prune -a; echo $?",
            "echo n | rcon system prune; echo $?",
            "echo n | rcon system prune -a --volumes; echo $?",
            "echo n | rcon system reset | sed 's|/[^ ]*|PATH|g'",
            "echo y | rcon image prune -a",
            "rcon system prune -af --volumes",
            "rcon system reset -f",
        ])
        .is("asked");
}

fn inspected(t: &mut Rcon) {
    t.pull("busybox");
    t.mkdir("dir");
    Session::new(t)
        .lines(&[
            concat!(
                "rcon create --name c -p 8080:80 -v $HOME/dir:/dir:ro -v vol:/vol --tmpfs /t --env A=1 --label l=1 ",
                "--hostname box --user app --workdir /tmp --entrypoint echo --stop-signal INT --read-only ",
                "--cap-drop all --cap-add chown --restart on-failure:3 --health-cmd true --ulimit nofile=10:20 ",
                "--dns 1.2.3.4 --add-host h:1.1.1.1 --log-opt max-size=1m $IMAGE hello"
            ),
            "rcon inspect c",
            "rcon run -d --name plain $IMAGE sleep 1000",
            "rcon inspect plain",
            "rcon inspect --size --format '{{.SizeRw}}' plain | wc -l",
            "rcon inspect --format '{{.State.Status}} {{.NetworkSettings.IPAddress}} {{json .Config.Cmd}}' plain",
            "rcon rm -f -t 0 plain c",
            "rcon volume rm vol",
        ])
        .is("inspected");
}

fn images(t: &mut Rcon) {
    t.pull("busybox");
    Session::new(t)
        .lines(&[
            "rcon pull $REGISTRY/webapp",
            "rcon pull -q $IMAGE",
            "rcon tag $IMAGE mine:1 other",
            "rcon images --sort repository",
            "rcon images -q --sort repository",
            "rcon images --digests --no-trunc --filter reference=mine",
            "rcon images --format json --filter reference='*/webapp'",
            "rcon images --filter reference=mine --format 'table {{.ID}} {{.Repository}} {{.Tag}} {{.Size}} {{.CreatedSince}} {{.Containers}}'",
            "rcon image inspect $REGISTRY/webapp",
            "rcon image inspect --format '{{.Id}} {{.Os}}/{{.Architecture}} {{len .RootFS.Layers}}' mine:1",
            "rcon history $REGISTRY/webapp",
            "rcon history --format json mine:1",
            "rcon image tree mine:1",
            "rcon search $REGISTRY/busy",
            "rcon search --list-tags $REGISTRY/busybox",
            "rcon search $REGISTRY/busy --format json",
            "rcon save -o saved.tar mine:1",
            "rcon untag mine:1",
            "rcon rmi other",
            "rcon load -i saved.tar",
            "rcon image exists mine:1; echo $?",
            "rcon image exists nosuch; echo $?",
            "rcon image prune -f",
            "rcon rmi $REGISTRY/webapp",
            "rm saved.tar",
        ])
        .is("images");
}

fn volumes(t: &mut Rcon) {
    Session::new(t)
        .lines(&[
            "rcon volume ls",
            "rcon volume create --label a=1 data",
            "rcon volume create data",
            "rcon volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m memory",
            "rcon volume create | wc -c",
            "rcon volume rm $(rcon volume ls -q | grep -E '^[0-9a-f]{64}$')",
            "rcon volume ls",
            "rcon volume ls -n",
            "rcon volume ls --format json",
            "rcon volume ls --format '{{.Name}} {{.Driver}} {{.Labels}}'",
            "rcon volume inspect data memory",
            "rcon volume exists data; echo $?",
            "rcon volume exists nosuch; echo $?",
            "rcon volume prune -f",
            "rcon volume ls",
        ])
        .is("volumes");
}

fn networks(t: &mut Rcon) {
    Session::new(t)
        .lines(&[
            "rcon network ls",
            "rcon network ls --format json",
            "rcon network ls -q",
            "rcon network inspect slirp4netns",
            "rcon network exists slirp4netns; echo $?",
            "rcon network exists nosuch; echo $?",
            "rcon network create x",
        ])
        .is("networks");
}

fn secrets(t: &mut Rcon) {
    Session::new(t)
        .lines(&[
            "rcon secret ls",
            "printf hidden | rcon secret create --label a=1 s - | wc -c",
            "rcon secret ls",
            "rcon secret ls --format '{{.Name}} {{.Driver}}'",
            "rcon secret ls --format json",
            "rcon secret inspect s",
            "rcon secret inspect --showsecret --format '{{.SecretData}}' s",
            "rcon secret exists s; echo $?",
            "rcon secret rm s | wc -c",
        ])
        .is("secrets");
}

fn events(t: &mut Rcon) {
    t.pull("busybox");
    t.set_env("TZ", "UTC");
    Session::new(t)
        .lines(&[
            "rcon run --name c --label a=1 $IMAGE true",
            "rcon rm c",
            "rcon volume create v",
            "rcon volume rm v",
            "rcon tag $IMAGE other",
            "rcon untag other",
            "rcon events --stream=false --since 1h",
            "rcon events --stream=false --since 1h --format json --filter container=c | sed 's/\"timeNano\":[0-9]*/\"timeNano\":0/; s/\"time\":[0-9]*/\"time\":0/'",
            "rcon events --stream=false --since 1h --filter event=died --format '{{.Type}} {{.Status}} {{.Name}} {{.ContainerExitCode}}'",
        ])
        .is("events");
}

fn system(t: &mut Rcon) {
    t.pull("busybox");
    let empty = t.write("empty.conf", "");
    t.set_env("CONTAINERS_CONF", &empty);
    Session::new(t)
        .lines(&[
            "rcon --version",
            "rcon version",
            "rcon version --format json",
            "rcon version --format '{{.Client.Version}}'",
            "rcon info --format json",
            "rcon info --format '{{.Host.Security.Rootless}} {{.Store.GraphDriverName}}'",
            "rcon run --name c -v v:/v $IMAGE sh -c 'head -c 100000 /dev/zero > /v/f'",
            "rcon system df",
            "rcon system df -v",
            "rcon system df --format '{{.Type}} {{.Total}} {{.Active}}'",
            "rcon system df --format json | tr -d '[:space:]' | grep -o '\"Type\":\"[A-Za-z]*\"'",
            "rcon info | grep -E '^[a-z]'",
            "rcon system prune -f",
            "rcon volume prune -f",
        ])
        .is("system");
}

/// What podman has and rcon has not.
fn refused(t: &mut Rcon) {
    t.pull("busybox");
    Session::new(t)
        .lines(&[
            "rcon build .",
            "rcon ps --nosuch; rcon unshare --rootless-netns",
            "rcon pod ps",
            "rcon play kube x.yaml",
            "rcon generate systemd c",
            "rcon machine start",
            "rcon mount",
            "rcon network create n",
            "rcon manifest create m",
            "rcon container checkpoint c",
            "rcon system service",
            "rcon --remote ps",
            "rcon --url unix:///x ps",
            "rcon --storage-driver vfs ps",
            "rcon run --rm --pod p $IMAGE",
            "rcon run --rm --network bridge $IMAGE",
            "rcon run --rm --network a --network b $IMAGE",
        ])
        .is("refused");
}
