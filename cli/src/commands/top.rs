//! `rcon top`

use chrono::{Local, TimeDelta};
use clap::Args;
use rcon_engine::bundle::capability_names;
use rcon_engine::processes::Process;
use rcon_engine::{Container, Engine, ExecOutcome, ExecRequest, IdMaps};

use super::{run, select};
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::table::Table;
use crate::output::{self, human};

/// The arguments of `top`.
#[derive(Args, Debug)]
pub struct Top {
    /// Act on the latest container
    #[arg(short = 'l', long)]
    latest: bool,
    #[arg(trailing_var_arg = true)]
    args: Vec<String>,
}

/// The columns when nothing is said.
const USUAL: [&str; 8] = [
    "user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args",
];

/// What a column is called, by its word, its letter after a per cent sign, and its header.
const COLUMNS: [(&str, &str, &str); 30] = [
    ("args", "a", "COMMAND"),
    ("capamb", "", "AMBIENT CAPS"),
    ("capbnd", "", "BOUNDING CAPS"),
    ("capeff", "", "EFFECTIVE CAPS"),
    ("capinh", "", "INHERITED CAPS"),
    ("capprm", "", "PERMITTED CAPS"),
    ("comm", "c", "COMMAND"),
    ("etime", "t", "ELAPSED"),
    ("group", "G", "GROUP"),
    ("groups", "", "GROUPS"),
    ("hgroup", "", "HGROUP"),
    ("hgroups", "", "HGROUPS"),
    ("hpid", "", "HPID"),
    ("huser", "", "HUSER"),
    ("label", "", "LABEL"),
    ("nice", "n", "NI"),
    ("pcpu", "C", "%CPU"),
    ("pgid", "r", "PGID"),
    ("pid", "p", "PID"),
    ("ppid", "P", "PPID"),
    ("rgroup", "g", "RGROUP"),
    ("rss", "", "RSS"),
    ("ruser", "u", "RUSER"),
    ("seccomp", "", "SECCOMP"),
    ("state", "", "STATE"),
    ("stime", "", "STIME"),
    ("time", "x", "TIME"),
    ("tty", "y", "TTY"),
    ("user", "U", "USER"),
    ("vsz", "z", "VSZ"),
];

impl Command for Top {
    const ABOUT: &'static str = "Display the running processes of a container";
    const USAGE: &'static str = "[options] CONTAINER [FORMAT-DESCRIPTORS|ARGS...]";
    const EXAMPLES: &'static [&'static str] = &[
        "top ctrID",
        "top --latest",
        "top ctrID pid seccomp args %C",
        "top ctrID -eo user,pid,comm",
    ];

    fn run(mut self, context: &Context) -> Outcome {
        let engine = context.engine()?;
        let name = select::one(
            &engine,
            &mut self.args,
            self.latest,
            "you must provide the name or id of a running container",
        )?;
        let container = engine.container(&name)?;
        if !container.state.status.is_alive() {
            return Err(Failure::new(
                "top can only be used on running containers: container state improper",
            ));
        }
        match columns(&self.args) {
            Some(columns) => {
                let processes = engine.processes(&container)?;
                let names = Names::of(&engine, &container);
                output::print(&table(&columns, &processes, &names))?;
                Ok(0)
            }
            None => ps_inside(&engine, &name, &self.args),
        }
    }
}

/// The columns that are asked for; `None` when they are not words of ours, but ps(1)'s.
fn columns(args: &[String]) -> Option<Vec<&'static str>> {
    let words: Vec<&str> = args
        .iter()
        .flat_map(|arg| arg.split(','))
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        return Some(USUAL.to_vec());
    }
    words
        .into_iter()
        .map(|word| {
            let mut found = COLUMNS.iter().filter(|(name, letter, _)| {
                *name == word || (!letter.is_empty() && word.strip_prefix('%') == Some(letter))
            });
            found.next().map(|(name, ..)| *name)
        })
        .collect()
}

/// What we have no words for is ps(1)'s own affair, in the container.
fn ps_inside(engine: &Engine, name: &str, args: &[String]) -> Outcome {
    let request = ExecRequest {
        command: std::iter::once("ps".to_owned())
            .chain(args.iter().cloned())
            .collect(),
        ..ExecRequest::default()
    };
    match engine.exec(name, &request) {
        Ok(ExecOutcome::Ended(end)) => run::ended(end),
        Ok(ExecOutcome::Started(_)) => Ok(0),
        Err(error) => Err(
            Failure::new(format!("executing ps(1) in the container: {error}"))
                .hint("without ps in the image: rcon top CONTAINER pid,user,args"),
        ),
    }
}

/// The names of users and groups, inside and outside.
struct Names {
    passwd: String,
    group: String,
    maps: IdMaps,
}

impl Names {
    fn of(engine: &Engine, container: &Container) -> Names {
        Names {
            passwd: engine.text_in(container, "etc/passwd"),
            group: engine.text_in(container, "etc/group"),
            maps: engine.maps_for(&container.config),
        }
    }

    /// The name that the container has for a user of the host.
    fn user(&self, id: u32) -> String {
        let inside = self.maps.to_container_uid(id);
        inside.map_or_else(|| id.to_string(), |id| named(&self.passwd, id))
    }

    fn group(&self, id: u32) -> String {
        let inside = self.maps.to_container_gid(id);
        inside.map_or_else(|| id.to_string(), |id| named(&self.group, id))
    }
}

/// The name of an id in a file such as passwd(5), or the id itself.
fn named(text: &str, id: u32) -> String {
    let number = id.to_string();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    found.filter(|name| !name.is_empty()).unwrap_or(number)
}

fn table(columns: &[&str], processes: &[Process], names: &Names) -> String {
    let mut table = Table::new();
    table.row(columns.iter().map(|column| {
        let known = COLUMNS.iter().find(|(name, ..)| name == column);
        known.map_or("", |(.., header)| header)
    }));
    for process in processes {
        table.row(columns.iter().map(|column| cell(column, process, names)));
    }
    table.render()
}

fn cell(column: &str, process: &Process, names: &Names) -> String {
    let caps = |name: &str| capabilities(process.capabilities.get(name).copied().unwrap_or(0));
    let list = |ids: &[u32], name: &dyn Fn(u32) -> String| {
        ids.iter().map(|id| name(*id)).collect::<Vec<_>>().join(",")
    };
    let host_group = |id: u32| or_number(rcon_engine::processes::host_group(id), id);
    match column {
        "args" => process.args.clone(),
        "capamb" => caps("CapAmb"),
        "capbnd" => caps("CapBnd"),
        "capeff" => caps("CapEff"),
        "capinh" => caps("CapInh"),
        "capprm" => caps("CapPrm"),
        "comm" => process.comm.clone(),
        "etime" => human::go_duration(process.elapsed),
        "group" => names.group(process.gid),
        "groups" => list(&process.groups, &|id| names.group(id)),
        "hgroup" => host_group(process.gid),
        "hgroups" => list(&process.groups, &host_group),
        "hpid" => process.host_pid.to_string(),
        "huser" => or_number(rcon_engine::processes::host_user(process.uid), process.uid),
        "label" => match process.label.is_empty() {
            true => "?".to_owned(),
            false => process.label.clone(),
        },
        "nice" => process.nice.to_string(),
        "pcpu" => {
            let of = process.elapsed.as_secs_f64();
            let share = if of > 0.0 {
                process.time.as_secs_f64() / of * 100.0
            } else {
                0.0
            };
            format!("{share:.3}")
        }
        "pgid" => process.group.to_string(),
        "pid" => process.pid.to_string(),
        "ppid" => process.parent.to_string(),
        "rgroup" => names.group(process.real_gid),
        "rss" => (process.resident / 1024).to_string(),
        "ruser" => names.user(process.real_uid),
        "seccomp" => match process.seccomp {
            0 => "disabled".to_owned(),
            1 => "strict".to_owned(),
            _ => "filter".to_owned(),
        },
        "state" => process.state.to_string(),
        "stime" => {
            let since = TimeDelta::from_std(process.elapsed).unwrap_or_default();
            (Local::now() - since)
                .format("%a %b %e %H:%M:%S %Y")
                .to_string()
        }
        "time" => human::go_duration(process.time),
        "tty" => process.tty.clone(),
        "user" => names.user(process.uid),
        "vsz" => (process.virtual_size / 1024).to_string(),
        _ => String::new(),
    }
}

fn or_number(name: Option<String>, id: u32) -> String {
    name.unwrap_or_else(|| id.to_string())
}

/// A set of capabilities as a list of names.
fn capabilities(set: u64) -> String {
    let all = (1_u64 << capability_names().count()) - 1;
    if set == 0 {
        return "none".to_owned();
    }
    if set & all == all {
        return "full".to_owned();
    }
    let names = capability_names().enumerate();
    let held = names.filter(|(number, _)| set & (1 << number) != 0);
    held.map(|(_, name)| name).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &[&str]) -> Option<Vec<&'static str>> {
        columns(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn columns_have_words_and_letters() {
        assert_eq!(said(&[]).unwrap(), USUAL);
        assert_eq!(said(&["pid", "%C,args"]).unwrap(), ["pid", "pcpu", "args"]);
        assert!(
            said(&["-eo", "pid"]).is_none() && said(&["foo"]).is_none() && said(&["%Q"]).is_none()
        );
    }

    #[test]
    fn capabilities_have_names() {
        assert_eq!(capabilities(0), "none");
        assert_eq!(capabilities((1 << 41) - 1), "full");
        assert_eq!(capabilities(0b10_0001), "CHOWN,KILL");
    }

    #[test]
    fn names_of_ids() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n:x:7:7::/:\nsrv:x:33:33::/:/bin/sh\n";
        assert_eq!(named(passwd, 33), "srv");
        assert_eq!(named(passwd, 7), "7");
        assert_eq!(named("", 5), "5");
    }
}
