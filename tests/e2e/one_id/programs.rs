//! Programs that insist on users of their own: a package manager, a web server, a database.

use std::path::Path;

use super::debian;
use crate::lab::host::Host;
use crate::lab::scenario::scenarios;
use crate::lab::{Rcon, lab, skip};

scenarios!(
    packages_make_users,
    web_server_has_workers,
    database_has_a_user,
);

fn packages_make_users(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    t.move_to(&host);
    packages_make_users_on(t, &host);
}

pub(super) fn packages_make_users_on(t: &Rcon, host: &Host) {
    if let Err(reason) = lab().images("debian") {
        return skip(&reason);
    }
    let image = host.image("debian");
    t.ok(&["pull", "-q", &image]);
    let script = "apt-get update -q; apt-get install -qy lab-service
        stat -c '%n %U %G %a' /var/lib/lab /var/lib/lab/key /usr/bin/lab-id; stat -c '%U' /var/lib/lab/link
        setpriv --reuid=5 --clear-groups cp /usr/bin/lab-id /tmp/plain; stat -c %u /tmp/plain
        dpkg --verify lab-service && apt-get -qy purge lab-service";
    let out = t.run(&["run", "--rm", &image, "bash", "-ec", script]);
    out.code(0)
        .shows("/var/lib/lab lab labs 2750\n/var/lib/lab/key lab labs 640\n/usr/bin/lab-id lab labs 6755\nlab\n5\n");
    assert!(!out.story().contains("W: "), "{}", out.story());
}

/// Options that put this machine's programs into the container, when it is of the same Debian.
fn with_programs(name: &str) -> Option<Vec<String>> {
    if !Path::new("/usr/lib/x86_64-linux-gnu").exists() || !Path::new(name).exists() {
        skip(&format!("{name} is not installed"));
        return None;
    }
    Some(vec!["-v".into(), "/usr:/usr:ro".into()])
}

pub(super) fn web_server_has_workers(t: &mut Rcon) {
    let Some(options) = with_programs("/usr/sbin/nginx") else {
        return;
    };
    if !debian(t) {
        return;
    }
    let conf = t.write(
        "nginx.conf",
        "user www-data; pid /tmp/pid; error_log stderr; events {} http { access_log off;
         client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fast;
         uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
         server { listen 127.0.0.1:80; root /srv; client_body_in_file_only on;
           location / { dav_methods PUT; } } }",
    );
    let mut words = vec!["run", "--rm", "--network", "none"];
    words.extend(options.iter().map(String::as_str));
    let conf = format!("{conf}:/nginx.conf:ro");
    let script = "mkdir -p /srv; echo page >/srv/index.html; chown www-data /srv
        nginx -c /nginx.conf
        exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n1 <&3
        exec 3<>/dev/tcp/127.0.0.1/80; printf 'PUT /new HTTP/1.0\\r\\nContent-Length: 3\\r\\n\\r\\nabc' >&3; head -n1 <&3
        stat -c '%U' /srv/new /tmp/body; nginx -c /nginx.conf -s stop";
    words.extend(["-v", &conf, "debian", "bash", "-ec", script]);
    let out = t.ok(&words);
    assert!(
        out.starts_with("page\n") && out.contains("201 Created"),
        "{out}"
    );
    assert!(out.ends_with("www-data\nwww-data"), "{out}");
}

pub(super) fn database_has_a_user(t: &mut Rcon) {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .max();
    let programs = newest.unwrap_or_else(|| "/usr/lib/postgresql/bin".into());
    let programs = programs.to_str().unwrap();
    let Some(options) = with_programs(&format!("{programs}/postgres")) else {
        return;
    };
    if !debian(t) {
        return;
    }
    let mut words = vec!["run", "--rm", "--network", "none"];
    words.extend(options.iter().map(String::as_str));
    let path = format!("PATH={programs}:$PATH\n");
    let script = "initdb -D /tmp/root >/dev/null 2>&1 && exit 9
        groupadd postgres; useradd -g postgres -d /var/lib/postgresql postgres
        install -d -o postgres -g postgres /var/lib/postgresql
        su postgres -c 'initdb -A peer -D /var/lib/postgresql/data --no-sync >/dev/null
          postgres -D /var/lib/postgresql/data -k /tmp -c listen_addresses= -c fsync=off 2>/tmp/log &
          for n in $(seq 200); do psql -h /tmp -Atc \"select current_user\" template1 2>/dev/null && break; sleep 0.1; done'
        psql -h /tmp -U postgres template1 </dev/null 2>&1 | grep -o 'Peer authentication failed' || true
        stat -c '%U %G %a' /var/lib/postgresql/data/base
        su postgres -c 'pg_ctl -D /var/lib/postgresql/data stop -m fast' | tail -n1";
    let script = path + script;
    words.extend(["debian", "bash", "-ec", &script]);
    let out = t.ok(&words);
    assert_eq!(
        out,
        "postgres\nPeer authentication failed\npostgres postgres 700\nserver stopped"
    );
}
