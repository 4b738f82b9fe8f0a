//! Pulling an image from a registry into the store.

use crate::auth::{self, AuthOptions, Credentials};
use crate::layers::{self, Layer};
use crate::manifest::{self, Config, Descriptor, Document, Manifest, NESTING_MAX};
use crate::reference::Reference;
use crate::registries::{Endpoint, Origin, Registries};
use crate::registry::{Client, Patience, Settings};
use crate::{BlobKind, Error, LocalSource, Platform, Policy, Progress, PullEvent, Result, work};
use rcon_store::{Digest, ImageRecord, NewImage, Store};
use std::path::PathBuf;
use std::thread::Scope;
use std::time::Duration;

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// `--tls-verify`: `Some(false)` accepts any certificate and plain HTTP, `Some(true)` insists
    /// on TLS even where registries.conf or a loopback address would allow to do without.
    pub tls_verify: Option<bool>,
    /// `--creds USER:PASSWORD`, instead of what is stored.
    pub creds: Option<(String, String)>,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--cert-dir`: a folder of `*.crt` (authorities), `*.cert` and `*.key` (our own).
    pub cert_dir: Option<PathBuf>,
    /// The platform wanted of an index; this machine's when `None`.
    pub platform: Option<Platform>,
    /// `--retry`: how often a request that failed in passing is tried again.
    pub retries: Option<u32>,
    /// `--retry-delay`: how long to wait before that, each time, instead of ever longer.
    pub retry_delay: Option<Duration>,
    /// `--signature-policy`, instead of the usual policy.json.
    pub policy: Option<PathBuf>,
}

impl PullOptions {
    /// The patience that is asked for.
    pub fn patience(&self) -> Patience {
        let mut patience = Patience::default();
        if let Some(retries) = self.retries {
            patience.retries = retries;
        }
        if let Some(delay) = self.retry_delay {
            patience.back_off = delay;
            patience.steady = true;
        }
        patience
    }
}

/// Pull `name` (short, full, with a tag or a digest, with or without `docker://`; or of another
/// transport, see [`crate::transport`]).
///
/// Blocking; makes its own runtime. Must be called in a process that may give files to the ids of
/// the store's mapping (`rcon_sys::userns::run`) and that has no use of SIGINT, SIGTERM and SIGHUP:
/// they end the pull, whatever was staged is removed, and the error is [`Error::Interrupted`].
///
/// # Errors
/// See [`Error`]; what the registry said is in it.
pub fn pull(
    store: &Store,
    name: &str,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<ImageRecord> {
    pull_with(store, name, opts, &opts.patience(), progress)
}

/// Pull `name`, which may be several images: a docker-archive holds as many as one likes.
///
/// # Errors
/// As [`pull()`].
pub fn pull_each(
    store: &Store,
    name: &str,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<ImageRecord>> {
    match LocalSource::parse(name)? {
        Some(source) => local(store, &source, opts, progress),
        None => Ok(vec![pull(store, name, opts, progress)?]),
    }
}

fn local(
    store: &Store,
    source: &LocalSource,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<ImageRecord>> {
    source.fetch(
        store,
        opts.policy.as_deref(),
        opts.platform.as_ref(),
        progress,
    )
}

/// As [`pull()`], with other times and numbers of retries.
///
/// # Errors
/// As [`pull()`].
pub fn pull_with(
    store: &Store,
    name: &str,
    opts: &PullOptions,
    patience: &Patience,
    progress: &dyn Progress,
) -> Result<ImageRecord> {
    if let Some(source) = LocalSource::parse(name)? {
        let mut images = local(store, &source, opts, progress)?;
        let none = || Error::invalid(name, "there is no image in it");
        return (!images.is_empty())
            .then(|| images.swap_remove(0))
            .ok_or_else(none);
    }
    let registries = Registries::load()?;
    let policy = Policy::load(opts.policy.as_deref())?;
    let references = candidates(&registries, name, progress)?;
    std::thread::scope(|scope| {
        work::run(async {
            let mut failed = Vec::new();
            for reference in references {
                let pull = Pull {
                    scope,
                    store,
                    registries: &registries,
                    policy: &policy,
                    opts,
                    patience,
                    progress,
                };
                match pull.image(&reference).await {
                    Ok(record) => return Ok(record),
                    // Another registry does not mend a full disk.
                    Err(e @ (Error::Interrupted | Error::Store(_) | Error::Layer { .. })) => {
                        return Err(e);
                    }
                    Err(e) => failed.push(e),
                }
            }
            Err(all_of(failed))
        })
    })
}

/// Pull every tag of a repository (`--all-tags`), in the registry's order.
///
/// # Errors
/// As [`pull()`]; the first failure ends it, what was pulled before stays.
pub fn pull_all_tags(
    store: &Store,
    name: &str,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<ImageRecord>> {
    let registries = Registries::load()?;
    let given = crate::reference::Given::parse(crate::reference::strip_transport(name)?)?;
    if given.tag.is_some() || given.digest.is_some() {
        return Err(Error::Unsupported(
            "--all-tags takes a name without a tag or digest".to_owned(),
        ));
    }
    let references = candidates(&registries, name, progress)?;
    let policy = Policy::load(opts.policy.as_deref())?;
    let patience = opts.patience();
    std::thread::scope(|scope| {
        work::run(async {
            let pull = Pull {
                scope,
                store,
                registries: &registries,
                policy: &policy,
                opts,
                patience: &patience,
                progress,
            };
            let mut failed = Vec::new();
            for reference in references {
                let tags = match pull.tags(&reference).await {
                    Ok(tags) => tags,
                    Err(e) => {
                        failed.push(source_error(&reference, e));
                        continue;
                    }
                };
                let mut records = Vec::new();
                for tag in tags {
                    records.push(pull.image(&reference.with_tag(&tag)).await?);
                }
                return Ok(records);
            }
            Err(all_of(failed))
        })
    })
}

/// What went wrong with each source, as one error.
fn all_of(mut failed: Vec<Error>) -> Error {
    match failed.len() {
        1 => failed.remove(0),
        _ => Error::Several(failed),
    }
}

fn candidates(
    registries: &Registries,
    name: &str,
    progress: &dyn Progress,
) -> Result<Vec<Reference>> {
    let (references, origin) = registries.candidates(name)?;
    let name = name.to_owned();
    match origin {
        Origin::Given => {}
        Origin::Alias(file) => progress.event(PullEvent::Alias {
            name,
            file: file.display().to_string(),
        }),
        Origin::Search(file) => progress.event(PullEvent::Unqualified {
            name,
            file: file.display().to_string(),
        }),
    }
    Ok(references)
}

fn source_error(reference: &Reference, error: Error) -> Error {
    match error {
        Error::Interrupted
        | Error::Blocked(_)
        | Error::ConfigFile { .. }
        | Error::Policy { .. } => error,
        error => Error::Source {
            reference: reference.to_string(),
            error: Box::new(error),
        },
    }
}

/// Whether what went wrong is the matter of this machine, so that another place would mend nothing.
fn is_ours(error: &Error) -> bool {
    match error {
        Error::Interrupted | Error::Store(_) => true,
        Error::Layer { error, .. } => matches!(
            **error,
            Error::Store(rcon_store::Error::NoSpace { .. } | rcon_store::Error::Io { .. })
        ),
        _ => false,
    }
}

/// How an endpoint is to be spoken to.
pub(crate) fn settings(
    endpoint: &Endpoint,
    opts: &PullOptions,
    patience: &Patience,
    progress: &dyn Progress,
) -> Result<Settings> {
    let credentials = match &opts.creds {
        Some((user, password)) => Some(Credentials::Basic {
            user: user.clone(),
            password: password.clone(),
        }),
        None => stored_credentials(&endpoint.reference, opts, progress)?,
    };
    Ok(Settings {
        tls_verify: opts.tls_verify,
        insecure: endpoint.insecure,
        cert_dir: opts.cert_dir.clone(),
        credentials,
        patience: patience.clone(),
    })
}

/// A helper that is gone or broken does not keep anybody from pulling what is public.
fn stored_credentials(
    there: &Reference,
    opts: &PullOptions,
    progress: &dyn Progress,
) -> Result<Option<Credentials>> {
    let opts = AuthOptions {
        authfile: opts.authfile.clone(),
        ..AuthOptions::default()
    };
    match auth::lookup(&there.name(), &opts) {
        Err(e @ Error::Helper { .. }) => {
            progress.event(PullEvent::Warning(e.to_string()));
            Ok(None)
        }
        other => other,
    }
}

/// All that a pull needs to know.
#[derive(Clone, Copy)]
struct Pull<'a, 'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    store: &'env Store,
    registries: &'a Registries,
    policy: &'a Policy,
    opts: &'a PullOptions,
    patience: &'a Patience,
    progress: &'a dyn Progress,
}

/// A manifest, and the way there.
struct Chosen {
    manifest: Manifest,
    bytes: Vec<u8>,
    digest: Digest,
    /// The digests of manifest and indexes that lead to it, outermost first.
    digests: Vec<Digest>,
}

impl<'a> Pull<'a, '_, '_> {
    /// Pull one reference, from the first endpoint that has it.
    async fn image(&self, reference: &Reference) -> Result<ImageRecord> {
        self.policy.check(reference)?;
        self.progress.event(PullEvent::Trying {
            reference: reference.to_string(),
        });
        let mut last = None;
        for endpoint in self.registries.endpoints(reference)? {
            let is_mirror = endpoint.mirror;
            match self.from(reference, &endpoint).await {
                Err(e) if is_mirror && !is_ours(&e) => {
                    let text = format!("mirror {}: {e}", endpoint.reference.name());
                    self.progress.event(PullEvent::Warning(text));
                    last = Some(e);
                }
                done => return done,
            }
        }
        Err(last.unwrap_or(Error::Interrupted))
    }

    async fn from(&self, reference: &Reference, endpoint: &Endpoint) -> Result<ImageRecord> {
        let there = &endpoint.reference;
        let (client, chosen, config_bytes, config) = async {
            let client = self.connect(endpoint).await?;
            let chosen = self.choose(&client, there).await?;
            let blob = &chosen.manifest.config;
            let bytes = client
                .small_blob(there.repository(), blob, manifest::CONFIG_MAX)
                .await?;
            let what = format!("reading image {reference}");
            let config = Config::parse(&bytes, chosen.manifest.layers.len(), &what)?;
            Ok((client, chosen, bytes, config))
        }
        .await
        .map_err(|e| source_error(reference, e))?;
        self.check_platform(&config);

        let layers: Vec<Layer> = chosen
            .manifest
            .layers
            .iter()
            .zip(config.diff_ids())
            .map(|(blob, diff_id)| Layer {
                blob: blob.clone(),
                diff_id: diff_id.clone(),
            })
            .collect();
        self.progress.event(PullEvent::Manifest {
            layers: layers.len(),
            bytes: layers
                .iter()
                .fold(0, |sum, l| l.blob.size.saturating_add(sum)),
        });
        // The holds live until the image refers to the layers.
        let _holds = layers::fetch(
            self.scope,
            self.store,
            &client,
            there.repository(),
            &layers,
            self.progress,
        )
        .await?;

        let digest = &chosen.manifest.config.digest;
        let size = config_bytes.len() as u64;
        self.progress.at_once(digest, BlobKind::Config, size);
        self.progress.event(PullEvent::Writing);
        Ok(self.store.put_image(NewImage {
            manifest: chosen.bytes,
            manifest_digest: chosen.digest,
            media_type: chosen.manifest.media_type,
            config: config_bytes,
            layers: layers.into_iter().map(|l| l.diff_id).collect(),
            names: match reference.tag() {
                Some(_) => vec![reference.to_string()],
                None => Vec::new(),
            },
            repo_digests: chosen
                .digests
                .iter()
                .map(|d| reference.with_digest(d).to_string())
                .collect(),
        })?)
    }

    async fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        let mut endpoints = self.registries.endpoints(reference)?;
        // Mirrors may lack some; the registry itself comes last.
        let Some(endpoint) = endpoints.pop() else {
            return Ok(Vec::new());
        };
        let client = self.connect(&endpoint).await?;
        client.tags(&endpoint.reference).await
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Client<'a>> {
        let there = &endpoint.reference;
        let settings = settings(endpoint, self.opts, self.patience, self.progress)?;
        Client::connect(
            there.registry(),
            Some(there.repository()),
            &settings,
            self.progress,
        )
        .await
    }

    /// Follow indexes down to the manifest for our platform.
    async fn choose(&self, client: &Client<'_>, reference: &Reference) -> Result<Chosen> {
        let wanted = self.opts.platform.clone().unwrap_or_else(Platform::host);
        let mut at = reference.clone();
        let mut announced: Option<Descriptor> = None;
        let mut digests = Vec::new();
        for _ in 0..NESTING_MAX {
            let fetched = client.manifest(&at, manifest::ACCEPT).await?;
            let what = format!("reading manifest {} in {}", at.selector(), at.name());
            if let Some(expected) = announced.map(|d| d.size)
                && expected != fetched.bytes.len() as u64
            {
                return Err(Error::SizeMismatch {
                    what,
                    expected,
                    actual: fetched.bytes.len() as u64,
                });
            }
            let digest = at
                .digest()
                .cloned()
                .unwrap_or_else(|| Digest::sha256(&fetched.bytes));
            digests.push(digest.clone());
            match manifest::parse(&fetched.bytes, &fetched.content_type, &what)? {
                Document::Image(manifest) => {
                    return Ok(Chosen {
                        manifest,
                        bytes: fetched.bytes,
                        digest,
                        digests,
                    });
                }
                Document::Index(entries) => {
                    let entry = manifest::choose(&entries, &wanted, &reference.to_string())?;
                    at = at.with_digest(&entry.digest);
                    announced = Some(entry.clone());
                }
            }
        }
        Err(Error::invalid(
            format!("reading image {reference}"),
            "its indexes lead from one to the next",
        ))
    }

    /// A single manifest is taken whatever it is for, but not in silence.
    fn check_platform(&self, config: &Config) {
        let wanted = self.opts.platform.clone().unwrap_or_else(Platform::host);
        let have = &config.platform;
        if !have.architecture.is_empty() && wanted.rank(have).is_none() {
            self.progress.event(PullEvent::Warning(format!(
                "image platform ({have}) does not match the expected platform ({wanted})"
            )));
        }
    }
}
