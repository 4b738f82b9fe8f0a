//! The commands, one file each.
//!
//! Each file has the struct of a command's arguments as they are said and, in its `run`, what is done about them. What
//! several commands share: [`container_args`] and [`container_request`] (the options of `run` and `create`), [`select`] (which
//! containers are meant), [`progress`] (what is shown of a pull).

mod attach;
mod cleanup;
mod commit;
mod completion;
mod confirm;
mod container_args;
mod container_prune;
mod container_request;
mod cp;
mod create;
mod descriptors;
mod diff;
mod doctor;
mod events;
mod exec;
mod exists;
mod export;
mod health_args;
mod healthcheck;
mod history;
mod image_mount;
mod image_prune;
mod image_tree;
mod images;
mod import;
mod info;
mod init;
mod inspect;
mod isolation_args;
mod kill;
mod lifecycle_request;
mod limit_args;
mod load;
mod login;
mod logout;
mod logs;
mod net;
mod network;
mod network_look;
mod pause;
pub mod port;
mod progress;
mod ps;
mod ps_fields;
mod ps_namespaces;
mod pull;
mod push;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod search;
mod secret;
mod select;
mod start;
mod stats;
mod stop;
mod system;
mod system_check;
mod tag;
mod top;
mod unshare;
mod untag;
mod update;
mod version;
mod volume;
mod wait;

pub use container_args::ContainerArgs;

use crate::app::{Entry, entry};

/// All commands, the most urgent first: the table is searched from its beginning.
pub const COMMANDS: &[Entry] = &[
    entry::<run::Run>(&["run", "container run"]),
    entry::<exec::Exec>(&["exec", "container exec"]),
    entry::<create::Create>(&["create", "container create"]),
    entry::<init::Init>(&["init", "container init"]),
    entry::<start::Start>(&["start", "container start"]),
    entry::<ps::Ps>(&["ps", "container ls", "container list", "container ps"]),
    entry::<logs::Logs>(&["logs", "container logs"]),
    entry::<attach::Attach>(&["attach", "container attach"]),
    entry::<stop::Stop>(&["stop", "container stop"]),
    entry::<kill::Kill>(&["kill", "container kill"]),
    entry::<pause::Pause>(&["pause", "container pause"]),
    entry::<pause::Unpause>(&["unpause", "container unpause"]),
    entry::<stats::Stats>(&["stats", "container stats"]),
    entry::<top::Top>(&["top", "container top"]),
    entry::<update::Update>(&["update", "container update"]),
    entry::<restart::Restart>(&["restart", "container restart"]),
    entry::<wait::Wait>(&["wait", "container wait"]),
    entry::<healthcheck::Run>(&["healthcheck run"]),
    entry::<cleanup::Cleanup>(&["container cleanup"]),
    entry::<rm::Rm>(&["rm", "container rm"]),
    entry::<rename::Rename>(&["rename", "container rename"]),
    entry::<port::Port>(&["port", "container port"]),
    entry::<inspect::Inspect>(&["inspect"]),
    entry::<inspect::ContainerInspect>(&["container inspect"]),
    entry::<inspect::ImageInspect>(&["image inspect"]),
    entry::<exists::ContainerExists>(&["container exists"]),
    entry::<exists::ImageExists>(&["image exists"]),
    entry::<pull::Pull>(&["pull", "image pull"]),
    entry::<images::Images>(&["images", "image ls", "image list"]),
    entry::<rmi::Rmi>(&["rmi", "image rm"]),
    entry::<tag::Tag>(&["tag", "image tag"]),
    entry::<untag::Untag>(&["untag", "image untag"]),
    entry::<import::Import>(&["import", "image import"]),
    entry::<load::Load>(&["load", "image load"]),
    entry::<push::Push>(&["push", "image push"]),
    entry::<save::Save>(&["save", "image save"]),
    entry::<history::History>(&["history", "image history"]),
    entry::<image_prune::ImagePrune>(&["image prune"]),
    entry::<image_tree::ImageTree>(&["image tree"]),
    entry::<image_mount::Mount>(&["image mount"]),
    entry::<image_mount::Unmount>(&["image unmount", "image umount"]),
    entry::<search::Search>(&["search", "image search"]),
    entry::<system_check::SystemCheck>(&["system check"]),
    entry::<cp::Cp>(&["cp", "container cp"]),
    entry::<diff::Diff>(&["diff", "container diff"]),
    entry::<diff::ImageDiff>(&["image diff"]),
    entry::<export::Export>(&["export", "container export"]),
    entry::<commit::Commit>(&["commit", "container commit"]),
    entry::<events::Events>(&["events", "system events"]),
    entry::<doctor::Doctor>(&["doctor", "system doctor"]),
    entry::<info::Info>(&["info", "system info"]),
    entry::<version::Version>(&["version"]),
    entry::<volume::VolumeCreate>(&["volume create"]),
    entry::<volume::VolumeExists>(&["volume exists"]),
    entry::<volume::VolumeExport>(&["volume export"]),
    entry::<volume::VolumeImport>(&["volume import"]),
    entry::<volume::VolumeInspect>(&["volume inspect"]),
    entry::<volume::VolumeLs>(&["volume ls", "volume list"]),
    entry::<volume::VolumeMount>(&["volume mount"]),
    entry::<volume::VolumeUnmount>(&["volume unmount", "volume umount"]),
    entry::<net::Net>(&["net"]),
    entry::<network::NetworkLs>(&["network ls", "network list"]),
    entry::<network::NetworkInspect>(&["network inspect"]),
    entry::<network::NetworkExists>(&["network exists"]),
    entry::<network_look::NetworkStats>(&["network stats"]),
    entry::<network_look::NetworkFlows>(&["network flows"]),
    entry::<volume::VolumePrune>(&["volume prune"]),
    entry::<volume::VolumeRm>(&["volume rm", "volume remove"]),
    entry::<secret::SecretCreate>(&["secret create"]),
    entry::<secret::SecretExists>(&["secret exists"]),
    entry::<secret::SecretInspect>(&["secret inspect"]),
    entry::<secret::SecretLs>(&["secret ls", "secret list"]),
    entry::<secret::SecretRm>(&["secret rm", "secret remove"]),
    entry::<container_prune::ContainerPrune>(&["container prune"]),
    entry::<system::SystemDf>(&["system df"]),
    entry::<system::SystemPrune>(&["system prune"]),
    entry::<system::SystemReset>(&["system reset"]),
    entry::<completion::Completion>(&["completion"]),
    entry::<unshare::Unshare>(&["unshare"]),
    entry::<login::Login>(&["login"]),
    entry::<logout::Logout>(&["logout"]),
];
