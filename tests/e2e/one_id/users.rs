//! Who a process is: to itself, to its children, to its request.

use super::{busybox, debian, shell};
use crate::lab::Rcon;
use crate::lab::scenario::scenarios;

scenarios!(
    processes_have_users,
    processes_are_listed_with_users,
    executions_give_ids,
    users_of_the_request,
    users_in_the_network_of_another,
);

pub(super) fn processes_have_users(t: &mut Rcon) {
    busybox(t);
    let got = shell(
        t,
        &[],
        "id; su app -s /bin/sh -c 'id; sh -c \"(sh -c id)\"'",
    );
    let lines: Vec<&str> = got.lines().collect();
    assert!(lines[0].starts_with("uid=0(root) gid=0(root)"), "{got}");
    for line in &lines[1..] {
        assert!(line.starts_with("uid=1000(app) gid=1000(app)"), "{got}");
    }
    // Who was left behind by its parents is still who it was.
    let script = "su app -s /bin/sh -c '(sh -c \"sleep 0.2; id -u >/tmp/who\" &) & exit 0'
        while ! [ -s /tmp/who ]; do sleep 0.05; done; cat /tmp/who";
    assert_eq!(shell(t, &[], script), "1000\n");
    if !debian(t) {
        return;
    }
    // Programs that insist on it: they give root up and see that they do not get it back.
    let script = "useradd -m -G audio bob
        su bob -c 'id; cd; touch x; ls -l x | cut -d\" \" -f3,4'
        chage -l bob | head -n1; su bob -c 'chage -l bob' | head -n1
        setpriv --reuid=5 --regid=6 --groups=7,8 id | cut -d' ' -f1,2
        perl -e '$> = 33; print \"$<,$>\\n\"; $> = 0; print \"$<,$>\\n\"; $< = $> = 33; $> = 0; print \"$<,$>\\n\"'
        ls -l /etc/shadow | cut -d' ' -f3,4
        cp /usr/bin/id /tmp/id; chown bob /tmp/id; chmod 4755 /tmp/id; setpriv --reuid=7 --clear-groups /tmp/id -un
        setpriv --reuid=7 --clear-groups --no-new-privs /tmp/id -u";
    let out = t.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "debian",
        "bash",
        "-ec",
        script,
    ]);
    let expected = "uid=1000(bob) gid=1000(bob) groups=1000(bob),29(audio)\nbob bob\n\
                    Last password change\t\t\t\t\t";
    assert!(out.starts_with(expected), "{out}");
    let rest = "uid=5(games) gid=6(disk)\n0,33\n0,0\n33,33\n\
                root shadow\nbob\n7";
    assert!(out.ends_with(rest), "{out}");
}

/// Whose a process is, as those see it who list processes by their directories.
fn processes_are_listed_with_users(t: &mut Rcon) {
    busybox(t);
    let script = "su app -s /bin/sh -c 'exec sleep 1000' & n=$!
        while [ \"$(stat -c %u /proc/$n)\" != 1000 ]; do sleep 0.05; done
        stat -c '%U %G' /proc/$n /proc/1; ps -o user,pid | grep -c '^app '; kill $n; wait $n || echo ended";
    assert_eq!(shell(t, &[], script), "app app\nroot root\n1\nended\n");
    // Of one who was started by another command too.
    let words = ["run", "-d", "--name", "c", "--network", "none", "-u", "app"];
    t.run(&[&words[..], &["busybox", "sleep", "1000"]].concat())
        .code(0);
    t.run(&["exec", "-u", "root", "c", "stat", "-c", "%u", "/proc/1"])
        .prints("1000\n");
    t.run(&["rm", "-f", "-t", "0", "c"]).code(0);
}

/// Set-user-id and set-group-id programs, also of those whom root runs, and who gains nothing by them.
fn executions_give_ids(t: &mut Rcon) {
    if !debian(t) {
        return;
    }
    let copy = "cp /usr/bin/id /tmp/id; chown games:audio /tmp/id; chmod 6755 /tmp/id\n";
    let script = copy.to_owned()
        + "/tmp/id -un; /tmp/id -run; /tmp/id -gn; id -un
        setpriv --reuid=7 --regid=7 --clear-groups sh -c '/tmp/id -un; /tmp/id -gn'
        setpriv --no-new-privs sh -c 'setpriv --reuid=7 --regid=7 --clear-groups /tmp/id -un; /tmp/id -un'
        chmod 755 /tmp/id; /tmp/id -un";
    let words = ["run", "--rm", "--network", "none"];
    let out = t.ok(&[&words[..], &["debian", "bash", "-ec", &script]].concat());
    assert_eq!(
        out,
        "games\nroot\naudio\nroot\ngames\naudio\nlp\nroot\nroot"
    );
    let script = copy.to_owned() + "/tmp/id -un; setpriv --reuid=7 --clear-groups /tmp/id -un";
    let asked = ["--security-opt", "no-new-privileges"];
    let rest = ["debian", "bash", "-ec", &script];
    let out = t.ok(&[&words[..], &asked, &rest].concat());
    assert_eq!(out, "root\nlp");
    // Programs of who is not in the container give nothing.
    let words = [&words[..], &["-v", "/usr:/usr:ro"]].concat();
    let script =
        "mount | grep -q ' /usr ' && test -u /usr/bin/su && su -s /bin/sh -c 'id -un' games";
    assert_eq!(
        t.ok(&[&words[..], &["debian", "bash", "-ec", script]].concat()),
        "games"
    );
}

fn users_of_the_request(t: &mut Rcon) {
    busybox(t);
    t.run(&[
        "run",
        "-d",
        "--name",
        "c",
        "--network",
        "none",
        "busybox",
        "sleep",
        "1000",
    ])
    .code(0);
    t.run(&["exec", "-u", "app", "c", "id", "-un"])
        .prints("app\n");
    t.run(&[
        "exec",
        "-u",
        "33:34",
        "c",
        "sh",
        "-c",
        "id -u; id -g; touch /tmp/x",
    ])
    .prints("33\n34\n");
    // One sees what the other did, links too.
    t.run(&[
        "exec",
        "c",
        "sh",
        "-c",
        "ln -s x /tmp/l; chown -h 4:5 /tmp/l",
    ])
    .code(0);
    t.run(&["exec", "c", "stat", "-c", "%u %g", "/tmp/x", "/tmp/l"])
        .prints("33 34\n4 5\n");
    // Its output ends with it, though it left something behind.
    t.run(&["exec", "c", "sh", "-c", "sleep 1000 & echo done"])
        .prints("done\n");
    t.run(&["rm", "-f", "-t", "0", "c"]).code(0);
}

fn users_in_the_network_of_another(t: &mut Rcon) {
    busybox(t);
    let words = ["run", "-d", "--name", "c", "--network", "none", "busybox"];
    t.run(&[&words[..], &["sleep", "1000"]].concat()).code(0);
    let script = "touch /tmp/x; chown 33:34 /tmp/x; stat -c '%u %g' /tmp/x; su app -s /bin/sh -c 'id -u; touch /tmp/y'
        stat -c %u /tmp/y; sleep 1000";
    let words = ["run", "-d", "--name", "d", "--network", "container:c"];
    let rest = ["-u", "root", "busybox", "sh", "-ec", script];
    t.run(&[&words[..], &rest].concat()).code(0);
    crate::lab::eventually("its users are seen", 20, || {
        (t.ok(&["logs", "d"]) == "33 34\n1000\n1000").then_some(())
    });
    t.run(&["exec", "-u", "app", "d", "id", "-u"])
        .prints("1000\n");
    t.run(&["exec", "d", "stat", "-c", "%u", "/tmp/x"])
        .prints("33\n");
    let words = ["run", "--rm", "--network", "container:c", "-u", "7:8"];
    t.run(&[&words[..], &["busybox", "sh", "-c", "id -u; id -g"]].concat())
        .prints("7\n8\n");
    t.run(&["rm", "-f", "-t", "0", "d", "c"]).code(0);
}
