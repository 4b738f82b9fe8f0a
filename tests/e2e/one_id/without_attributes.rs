//! The same on a file system that keeps no extended attributes, nor times of birth: all that is noted is beside.

use super::{owners, programs, users};
use crate::lab::Rcon;
use crate::lab::disk::{Disk, Kind};
use crate::lab::host::Host;
use crate::lab::scenario::scenarios;

scenarios!(
    owners_of_files,
    users_of_processes,
    packages,
    web_server,
    database,
);

/// On such a file system.
fn plain(t: &mut Rcon, scenario: fn(&mut Rcon)) {
    let Some(disk) = Disk::mount(t, Kind::Plain, None) else {
        return;
    };
    scenario(t);
    disk.release(t);
}

fn owners_of_files(t: &mut Rcon) {
    plain(t, |t| {
        owners::files_have_owners(t);
        owners::made_by_others(t);
        owners::devices_are_made(t);
        owners::owners_last(t);
    });
}

fn users_of_processes(t: &mut Rcon) {
    plain(t, users::processes_have_users);
}

fn packages(t: &mut Rcon) {
    let Some(host) = Host::new() else { return };
    // apt wants to be told how much space there is, which a file system of memory alone does not.
    let kind = Kind::Passed(&["--xattr-none"]);
    let Some(disk) = Disk::mount(t, kind, Some(&host)) else {
        return;
    };
    t.move_to(&host);
    programs::packages_make_users_on(t, &host);
    disk.release(t);
}

fn web_server(t: &mut Rcon) {
    plain(t, programs::web_server_has_workers);
}

fn database(t: &mut Rcon) {
    plain(t, programs::database_has_a_user);
}
