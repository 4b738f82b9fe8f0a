//! The image crate as a small program: pull, load and import into a store of its own.
//!
//! ```text
//! image ROOT pull NAME [--tls-verify=BOOL] [--creds=USER:PASSWORD] [--cert-dir=DIR]
//!                      [--authfile=FILE] [--platform=OS/ARCH] [--all-tags]
//! image ROOT load [FILE]
//! image ROOT import SOURCE [NAME] [--change=…]… [--message=…]
//! image ROOT find NAME
//! image ROOT login REGISTRY USER PASSWORD [--authfile=FILE] [--tls-verify=BOOL] [--cert-dir=DIR]
//! image ROOT logout REGISTRY [--authfile=FILE]
//! ```
//!
//! It prints `ID NAME…` of what it made or found.

use rcon_image::auth::AuthOptions;
use rcon_image::{
    Error, ImportOptions, Platform, Progress, PullEvent, PullOptions, Reference, Result, Source,
};
use rcon_store::{ImageRecord, Store};
use rcon_sys::ids::IdMaps;
use rcon_sys::userns;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Events as lines on standard error.
struct Lines;

impl Progress for Lines {
    fn event(&self, event: PullEvent) {
        match event {
            PullEvent::Bytes { .. } => {}
            PullEvent::Trying { reference } => eprintln!("Trying to pull {reference}..."),
            PullEvent::Start { digest, kind, .. } => eprintln!("Copying {kind:?} {digest}"),
            PullEvent::Retry {
                reason,
                after,
                attempt,
                of,
            } => {
                eprintln!("retry {attempt}/{of} in {after:?}: {reason}");
            }
            PullEvent::Warning(text) => eprintln!("WARNING: {text}"),
            other => eprintln!("{other:?}"),
        }
    }
}

struct Args {
    words: Vec<String>,
    options: Vec<(String, String)>,
}

impl Args {
    fn parse() -> Args {
        let (mut words, mut options) = (Vec::new(), Vec::new());
        for arg in std::env::args().skip(1) {
            match arg.strip_prefix("--") {
                Some(option) => {
                    let (key, value) = option.split_once('=').unwrap_or((option, "true"));
                    options.push((key.to_owned(), value.to_owned()));
                }
                None => words.push(arg),
            }
        }
        Args { words, options }
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = String> + 'a {
        self.options
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.clone())
    }

    fn get(&self, key: &str) -> Option<String> {
        self.all(key).last()
    }

    fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    fn pull_options(&self) -> PullOptions {
        PullOptions {
            tls_verify: self.get("tls-verify").map(|v| v == "true"),
            creds: self
                .get("creds")
                .and_then(|c| c.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned()))),
            authfile: self.get("authfile").map(PathBuf::from),
            cert_dir: self.get("cert-dir").map(PathBuf::from),
            platform: self.get("platform").and_then(|p| Platform::parse(&p).ok()),
            ..PullOptions::default()
        }
    }

    fn auth_options(&self) -> AuthOptions {
        let PullOptions {
            tls_verify,
            authfile,
            cert_dir,
            ..
        } = self.pull_options();
        AuthOptions {
            authfile,
            cert_dir,
            tls_verify,
        }
    }
}

fn show(record: &ImageRecord) {
    println!("{} {}", record.id, record.names.join(" "));
}

fn work(store: &Store, args: &Args) -> Result<()> {
    match args.word(1) {
        "pull" if args.get("all-tags").is_some() => {
            rcon_image::pull_all_tags(store, args.word(2), &args.pull_options(), &Lines)?
                .iter()
                .for_each(show);
        }
        "pull" => show(&rcon_image::pull(
            store,
            args.word(2),
            &args.pull_options(),
            &Lines,
        )?),
        "load" => {
            let source = args
                .words
                .get(2)
                .map_or(Source::Stdin, |f| Source::Path(f.into()));
            for image in rcon_image::load(store, &source, &Lines)? {
                show(&image.record);
            }
        }
        "import" => {
            let name = args
                .words
                .get(3)
                .map(|n| Reference::parse_local(n))
                .transpose()?;
            let opts = ImportOptions {
                changes: args.all("change").collect(),
                message: args.get("message"),
                name,
                platform: None,
            };
            show(&rcon_image::import(
                store,
                &Source::parse(args.word(2)),
                &opts,
                &Lines,
            )?);
        }
        "find" => match rcon_image::find_local(store, args.word(2))? {
            Some(record) => show(&record),
            None => println!("none"),
        },
        "login" => {
            rcon_image::auth::login(
                args.word(2),
                args.word(3),
                args.word(4),
                &args.auth_options(),
            )?;
            println!("Login Succeeded!");
        }
        "logout" => {
            let done = rcon_image::auth::logout(args.word(2), &args.auth_options())?;
            println!(
                "{}",
                if done {
                    "Removed login credentials"
                } else {
                    "Not logged in"
                }
            );
        }
        other => eprintln!("what is {other:?}?"),
    }
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let maps = IdMaps::detect();
    let store = match Store::open(Path::new(args.word(0)), &maps) {
        Ok(store) => store,
        Err(e) => {
            eprintln!("Error: {e}");
            return ExitCode::FAILURE;
        }
    };
    // The files of an image belong to ids that only the root of the mapping may give away.
    let done = userns::spawn(&maps, |_| match work(&store, &args) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("Error: {e}");
            if let Some(hint) = e.hint() {
                eprintln!("hint: {hint}");
            }
            if matches!(e, Error::Interrupted) {
                130
            } else {
                125
            }
        }
    });
    // A signal is for the one who works; we only wait and pass his answer on.
    match done.and_then(|worker| {
        println!("worker {}", worker.pid.as_raw_nonzero());
        worker.finish()
    }) {
        Ok((status, _)) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(e) => {
            eprintln!("Error: {e}");
            ExitCode::FAILURE
        }
    }
}
