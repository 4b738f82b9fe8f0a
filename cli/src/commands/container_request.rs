//! What the options of `run` and `create` mean.
//!
//! Everything that can be checked without looking at anything is checked first: a typing error must not pull an image.

use std::net::IpAddr;

use rcon_engine::bundle::parse::HostAddress;
use rcon_engine::bundle::{self, Source, UserMount, parse};
use rcon_engine::{
    Ahead, Arrangement, CreateRequest, Engine, Error, ImageRequest, NameOptions, Network, Options,
    PortMapping, PullPolicy, RemoveRequest, RestartPolicy, net, trace,
};
use rcon_sys::errors::in_words;

use super::container_args::ContainerArgs;
use super::lifecycle_request;
use super::progress::Reporter;
use crate::containers_conf::Defaults;
use crate::context::Context;
use crate::failure::Failure;
use crate::usage::{arity, split_lists};

/// Opens the engine, finds or pulls the image, and says what is to be made. With `start`, what can be done for its start
/// already is begun.
///
/// # Errors
/// For options that are wrong, and as [`Engine::ensure_image`].
pub fn make(
    mut args: ContainerArgs,
    context: &Context,
    start: bool,
) -> Result<(Engine, CreateRequest, Option<Ahead>), Failure> {
    arity(&args.args, 1, usize::MAX)?;
    let image_name = args.args.remove(0);
    let defaults = Defaults::load()?;
    // What is ours stands before the image, whose name may stand among it (`--name redis redis`).
    let ours = context.argv.len().saturating_sub(args.args.len() + 1);
    defaults.apply(&mut args, |flag| {
        let words = context.argv.iter().take(ours);
        let mut words = words.map(|word| word.to_string_lossy());
        words.any(|word| word.split('=').next() == Some(flag))
    });
    let image_request = ImageRequest {
        policy: args
            .pull
            .as_deref()
            .map_or(Ok(PullPolicy::Missing), PullPolicy::parse)?,
        pull: args.registry.resolve()?,
    };
    let usual = defaults.network_options.as_deref().unwrap_or_default();
    let network = network(&args.network, &usual.join(","), context)?;
    let publish = publish(&args.publish)?;
    if matches!(network, Network::Container(_) | Network::Path(_))
        && (!publish.is_empty() || args.publish_all)
    {
        return Err(Failure::new(
            "invalid config provided: cannot set port bindings on an existing container network namespace",
        )
        .hint("publish them for the container whose network it is"));
    }
    let names = names(&args)?;
    let restart =
        RestartPolicy::parse(args.restart.as_deref().unwrap_or_default()).map_err(Failure::new)?;
    if args.rm && restart != RestartPolicy::No {
        return Err(Failure::new(
            "the --rm option conflicts with --restart, when the restartPolicy is not \"\" and \"no\"",
        ));
    }
    let (lifecycle, health) = lifecycle_request::lifecycle(&args)?;
    let mut options = options(&mut args)?;
    args.isolation.add_to(&mut options)?;
    let sharing = args.isolation.sharing()?;
    let arrangement = args.isolation.arrangement()?;
    defaults.begin(&mut options)?;
    let manager = context.cgroup_manager(defaults.cgroup_manager.as_deref());
    let cgroup = rcon_engine::CgroupChoice {
        usual_pids: defaults.pids_limit,
        ..args.cgroup.choice(manager)?
    };
    let env = defaults.env().into_iter();
    let given = options.host_env.clone();
    let new = env.filter(|(name, _)| given.iter().all(|(other, _)| other != name));
    options.host_env.extend(new);
    if let Some(name) = &args.name
        && !rcon_engine::records::valid_name(name)
    {
        return Err(Error::BadName(name.clone()).into());
    }
    bundle::capabilities(&options, None).map_err(Error::from)?;
    let secrets: Vec<rcon_engine::SecretUse> = args
        .secret
        .iter()
        .map(|word| rcon_engine::SecretUse::parse(word))
        .collect::<Result<_, _>>()?;
    if let Some(path) = &args.cidfile
        && path.exists()
    {
        return Err(Failure::new(format!(
            "container ID file exists: {}",
            path.display()
        )));
    }
    if args.replace && args.name.is_none() {
        return Err(Failure::new(
            "cannot replace container without --name being set",
        ));
    }

    let early = context.take_early();
    let engine = context.engine_after(early.as_ref())?;
    let ahead = (start && arrangement == Arrangement::Usual)
        .then(|| engine.ahead(early, &network, &sharing, &publish, args.publish_all))
        .flatten();
    let progress = Reporter::new(args.registry.quiet, context);
    let (image, image_name, hold) = engine.hold_image(&image_name, &image_request, &progress)?;
    trace::mark("image found");
    let given: Vec<String> = options
        .mounts
        .iter()
        .map(|m| m.destination.clone())
        .collect();
    let mut volumes_from = Vec::new();
    for word in split_lists(&args.volumes_from) {
        for mount in engine.mounts_of(&word)? {
            // What was asked for by itself comes first, and the first container before the next.
            if !given.contains(&mount.destination)
                && options
                    .mounts
                    .iter()
                    .all(|m| m.destination != mount.destination)
            {
                if let Source::Volume(name) = &mount.source {
                    volumes_from.push(name.clone());
                }
                options.mounts.push(mount);
            }
        }
    }
    let request = CreateRequest {
        name: args.name,
        hold: Some(hold),
        volumes_from,
        secrets,
        options,
        sharing,
        arrangement,
        publish,
        publish_all: args.publish_all,
        names,
        auto_remove: args.rm,
        restart,
        lifecycle,
        health,
        cgroup,
        cidfile: args.cidfile,
        create_command: context
            .argv
            .iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect(),
        ..CreateRequest::new(image, image_name, network)
    };
    if let (true, Some(name)) = (args.replace, &request.name) {
        engine.check_replacement(&request, start)?;
        match engine.remove_named(
            name,
            &RemoveRequest {
                force: true,
                volumes: false,
                timeout: None,
            },
        ) {
            Ok(_) | Err(Error::NoSuchContainer(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((engine, request, ahead))
}

/// Process, mounts and isolation.
fn options(args: &mut ContainerArgs) -> Result<Options, Failure> {
    let take = std::mem::take::<Vec<String>>;
    let defaults = Options::default();
    let host_env = caller_environment();
    let limits = split_lists(&args.ulimit);
    Ok(Options {
        command: take(&mut args.args),
        entrypoint: args.entrypoint.as_deref().map(parse::entrypoint),
        env: parse::environment(&split_lists(&args.env_file), &args.env, &host_env)
            .map_err(Error::from)?,
        host_env: parse::host_environment(
            args.env_host,
            args.http_proxy.unwrap_or(true),
            &host_env,
        ),
        unsetenv: take(&mut args.unsetenv),
        unsetenv_all: args.unsetenv_all,
        workdir: args.workdir.take(),
        user: args.user.take(),
        group_add: split_lists(&args.group_add),
        tty: args.tty,
        interactive: args.interactive,
        init: args.init,
        hostname: args.hostname.take(),
        mounts: mounts(args)?,
        image_volume: args
            .image_volume
            .as_deref()
            .map_or(Ok(defaults.image_volume), parse::image_volumes)
            .map_err(Error::from)?,
        read_only: args.read_only,
        read_only_tmpfs: args.read_only_tmpfs.unwrap_or(defaults.read_only_tmpfs),
        shm_size: args
            .shm_size
            .as_deref()
            .map_or(Ok(None), parse::shm_size)
            .map_err(Error::from)?,
        privileged: args.privileged,
        cap_add: split_lists(&args.cap_add),
        cap_drop: split_lists(&args.cap_drop),
        security: parse::security(&args.security_opt).map_err(Error::from)?,
        ulimits: each(&limits, parse::ulimit)?,
        resources: {
            let mut resources = args.limits.resolve()?;
            args.cgroup.add_to(&mut resources)?;
            resources
        },
        sysctls: each(&split_lists(&args.sysctl), parse::sysctl)?,
        labels: parse::labels(&split_lists(&args.label_file), &args.label).map_err(Error::from)?,
        annotations: parse::annotations(&split_lists(&args.annotation)).map_err(Error::from)?,
        stop_signal: args
            .stop_signal
            .as_deref()
            .map(parse::signal)
            .transpose()
            .map_err(Error::from)?,
        stop_timeout: args.stop_timeout,
        umask: args
            .umask
            .as_deref()
            .map_or(Ok(None), parse::umask)
            .map_err(Error::from)?,
        expose: each(&split_lists(&args.expose), parse::expose)?,
        ..defaults
    })
}

/// Reads a list of words of which some may be nothing.
fn each<T>(
    words: &[String],
    read: impl Fn(&str) -> Result<Option<T>, bundle::Error>,
) -> Result<Vec<T>, Failure> {
    let values: Result<Vec<Option<T>>, _> = words.iter().map(|w| read(w)).collect();
    Ok(values.map_err(Error::from)?.into_iter().flatten().collect())
}

fn mounts(args: &ContainerArgs) -> Result<Vec<UserMount>, Failure> {
    let here = std::env::current_dir().map_err(|e| {
        Failure::new(format!(
            "cannot find the current directory: {}",
            in_words(&e)
        ))
    })?;
    let read = |words: &[String], read: &dyn Fn(&str) -> Result<UserMount, bundle::Error>| {
        words.iter().map(|w| read(w)).collect::<Result<Vec<_>, _>>()
    };
    let volumes = read(&args.volume, &|w| parse::volume(w, &here)).map_err(Error::from)?;
    let mounts = read(&args.mount, &|w| parse::mount(w, &here)).map_err(Error::from)?;
    let tmpfs = read(&args.tmpfs, &|w| parse::tmpfs(w)).map_err(Error::from)?;
    Ok(bundle::combine(volumes, mounts, tmpfs).map_err(Error::from)?)
}

/// The caller's environment, as far as it is text.
pub fn caller_environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)))
        .collect()
}

/// `--network`
///
/// `usual` are options of the user-mode network that come before those that are given.
fn network(words: &[String], usual: &str, context: &Context) -> Result<Network, Failure> {
    let slirp = |options: &str| -> Result<Network, Failure> {
        let both = [usual, options].into_iter().filter(|text| !text.is_empty());
        let both = both.collect::<Vec<_>>().join(",");
        let config = net::Config::parse_slirp_options(&both).map_err(Error::from)?;
        Ok(Network::Slirp(Box::new(config)))
    };
    let word = match words {
        [] if usual.is_empty() => {
            return Ok(Network::Slirp(Box::new(net::Config::for_this_host())));
        }
        [] => return slirp(""),
        [word] => word,
        _ => {
            return Err(
                Failure::new("rcon connects a container to one network only")
                    .hint("give --network once"),
            );
        }
    };
    let (kind, options) = word.split_once(':').unwrap_or((word, ""));
    match kind {
        "none" | "host" if !options.is_empty() => {
            Err(Failure::new(format!("network {kind:?} takes no options")))
        }
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        "" | "default" | "private" | "slirp4netns" | "slirp" => slirp(options),
        "pasta" if options.is_empty() => {
            context.warn("rcon has one user-mode network of its own: pasta stands for it");
            Ok(Network::Slirp(Box::new(net::Config::for_this_host())))
        }
        "pasta" => Err(Failure::new(format!("options of pasta are not supported: {options}"))
            .hint("rcon's own network takes the options of slirp4netns: --network slirp4netns:OPTIONS")),
        "container" if options.is_empty() => Err(Failure::new(
            "must provide a container to join: --network container:NAME",
        )),
        "container" => Ok(Network::Container(options.to_owned())),
        "ns" if !options.starts_with('/') => Err(Failure::new(
            "must provide the path of a network namespace to join: --network ns:PATH",
        )),
        "ns" => Ok(Network::Path(options.into())),
        "pod" => Err(Failure::new(format!("rcon does not support --network {kind}: yet"))),
        "bridge" => Err(Failure::new("rcon does not support bridge networks yet")
            .hint("containers reach one another over published ports at the host's address")),
        _ => Err(Failure::new(format!("unable to find network with name or ID {kind}: network not found"))
            .hint("rcon has the networks slirp4netns (the default), none, host, container:NAME and ns:PATH")),
    }
}

/// `-p`
fn publish(words: &[String]) -> Result<Vec<PortMapping>, Failure> {
    let mut ports = Vec::new();
    for word in split_lists(words) {
        ports.extend(PortMapping::parse(&word).map_err(Error::from)?);
    }
    Ok(ports)
}

/// `--dns` and its like, `--add-host`, `--no-hosts`
fn names(args: &ContainerArgs) -> Result<NameOptions, Failure> {
    let mut servers = Vec::new();
    for word in split_lists(&args.dns) {
        servers.push(
            word.parse::<IpAddr>()
                .map_err(|_| Failure::new(format!("{word} is not an ip address")))?,
        );
    }
    let mut hosts = Vec::new();
    for entry in each(&split_lists(&args.add_host), parse::add_host)? {
        let address = match entry.address {
            HostAddress::Ip(ip) => ip.to_string(),
            HostAddress::Gateway => "host-gateway".into(),
        };
        hosts.extend(entry.names.into_iter().map(|name| (name, address.clone())));
    }
    if args.no_hosts && !hosts.is_empty() {
        return Err(Failure::new(
            "--no-hosts and --add-host cannot be set together",
        ));
    }
    let base_hosts = match args.hosts_file.as_deref() {
        None | Some("") => None,
        Some("image") => {
            return Err(Failure::new(
                "--hosts-file=image: the /etc/hosts of an image is not read when its container is made",
            )
            .hint("--no-hosts leaves it as it is"));
        }
        Some(file) if file == "none" || file.starts_with('/') => Some(file.to_owned()),
        Some(file) => {
            return Err(Failure::new(format!(
                "--hosts-file {file:?} must be an absolute path, or \"none\""
            )));
        }
    };
    Ok(NameOptions {
        search: split_lists(&args.dns_search),
        options: split_lists(&args.dns_option),
        servers,
        hosts,
        no_hosts: args.no_hosts,
        base_hosts,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::context::GlobalArgs;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Said {
        #[command(flatten)]
        container: ContainerArgs,
    }

    fn said(words: &[&str]) -> ContainerArgs {
        Said::parse_from(std::iter::once(&"run").chain(words)).container
    }

    fn context() -> Context {
        Context::new(GlobalArgs::default(), Vec::new(), "rcon run".into()).unwrap()
    }

    #[test]
    fn networks() {
        let of = |word: &str| network(&[word.to_owned()], "", &context());
        assert!(matches!(of("none"), Ok(Network::None)));
        assert!(matches!(of("host"), Ok(Network::Host)));
        assert!(matches!(of("slirp4netns:mtu=1500"), Ok(Network::Slirp(c)) if c.mtu == 1500));
        assert!(matches!(
            network(&[], "", &context()),
            Ok(Network::Slirp(_))
        ));
        for words in [&[][..], &["slirp4netns:enable_ipv6=true".to_owned()]] {
            let usual = network(words, "mtu=1400", &context());
            assert!(matches!(usual, Ok(Network::Slirp(c)) if c.mtu == 1400));
        }
        for bad in [
            "foo",
            "host:x",
            "bridge",
            "container:",
            "ns:x",
            "slirp4netns:nope=1",
            "pasta:-t,80",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let message = of("foo").unwrap_err().message;
        assert_eq!(
            message,
            "unable to find network with name or ID foo: network not found"
        );
    }

    #[test]
    fn names_are_resolved() {
        let args = said(&[
            "--dns",
            "1.1.1.1,::1",
            "--add-host",
            "a;b:1.2.3.4",
            "--add-host",
            "h:host-gateway",
            "img",
        ]);
        let names = names(&args).unwrap();
        assert_eq!(names.servers.len(), 2);
        let hosts: Vec<_> = names
            .hosts
            .iter()
            .map(|(n, a)| format!("{n} {a}"))
            .collect();
        assert_eq!(hosts, ["a 1.2.3.4", "b 1.2.3.4", "h host-gateway"]);
        let message = |words: &[&str]| super::names(&said(words)).unwrap_err().message;
        assert_eq!(
            message(&["--dns", "foo", "img"]),
            "foo is not an ip address"
        );
        assert_eq!(
            message(&["--add-host", "foo", "img"]),
            "bad format for add-host: \"foo\""
        );
    }

    #[test]
    fn options_are_resolved() {
        let mut args = said(&[
            "--cap-add",
            "a,b",
            "-e",
            "A=1",
            "--entrypoint",
            "[\"x\",\"y\"]",
            "--stop-signal",
            "HUP",
            "-w",
            "/w",
            "--read-only-tmpfs=false",
            "--ulimit",
            "nofile=1:2",
            "--tmpfs",
            "/t",
            "cmd",
            "-x",
        ]);
        let options = options(&mut args).unwrap();
        assert_eq!(options.cap_add, ["a", "b"]);
        assert_eq!(options.env, [("A".into(), "1".into())]);
        assert_eq!(options.entrypoint.unwrap(), ["x", "y"]);
        assert_eq!(
            (options.stop_signal, options.workdir.as_deref()),
            (Some(1), Some("/w"))
        );
        assert!(!options.read_only_tmpfs);
        assert_eq!((options.ulimits.len(), options.mounts.len()), (1, 1));
        assert_eq!(options.command, ["cmd", "-x"]);
    }

    #[test]
    fn bad_values_are_refused_in_podmans_words() {
        for (words, message) in [
            (
                ["--ulimit", "foo", "i"],
                "ulimit option \"foo\" requires name=SOFT:HARD",
            ),
            (
                ["--security-opt", "foo", "i"],
                "invalid --security-opt 1: \"foo\"",
            ),
            (["--stop-signal", "foo", "i"], "invalid signal: foo"),
            (["--env", "=x", "i"], "invalid environment variable: \"=x\""),
            (
                ["--env-file", "/nope", "i"],
                "parsing env file \"/nope\": open /nope: no such file or directory",
            ),
            (
                ["--label", "=x", "i"],
                "unable to process labels: invalid label format: \"=x\"",
            ),
            (
                ["--volume", "foo:bar", "i"],
                "invalid container path \"bar\", must be an absolute path",
            ),
        ] {
            let failure = options(&mut said(&words)).unwrap_err();
            assert!(failure.message.starts_with(message), "{}", failure.message);
            assert_eq!(failure.code, 125);
        }
    }
}
