//! `rcon pull`

use std::path::PathBuf;

use clap::Args;
use rcon_engine::image::Platform;
use rcon_engine::{ImageRequest, PullOptions, PullPolicy};

use super::progress::Reporter;
use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome, for_each};
use crate::output;
use crate::usage::{arity, parse_bool};

/// How a registry is talked to, and which of an image's variants is wanted.
#[derive(Args, Debug, Default)]
pub struct RegistryArgs {
    /// Use ARCH instead of the architecture of the machine for choosing images
    #[arg(long)]
    pub arch: Option<String>,
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long)]
    pub authfile: Option<PathBuf>,
    /// Pathname of a directory containing TLS certificates and keys
    #[arg(long, value_name = "Pathname")]
    pub cert_dir: Option<PathBuf>,
    /// Credentials (USERNAME:PASSWORD) to use for authenticating to a registry
    #[arg(long, value_name = "Credentials")]
    pub creds: Option<String>,
    /// Use OS instead of the running OS for choosing images
    #[arg(long)]
    pub os: Option<String>,
    /// Specify the platform for selecting the image. (Conflicts with arch and os)
    #[arg(long)]
    pub platform: Option<String>,
    /// Suppress output information when pulling images
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Number of times to retry in case of failure when performing pull (default 5)
    #[arg(long, value_name = "uint")]
    pub retry: Option<u32>,
    /// Delay between retries in case of pull failures
    #[arg(long, value_name = "duration")]
    pub retry_delay: Option<String>,
    /// Pathname of signature policy file
    #[arg(long, hide = true)]
    pub signature_policy: Option<PathBuf>,
    /// Require HTTPS and verify certificates when contacting registries (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    pub tls_verify: Option<bool>,
    /// Use VARIANT instead of the running architecture variant for choosing images
    #[arg(long)]
    pub variant: Option<String>,
}

impl RegistryArgs {
    /// What they mean.
    ///
    /// # Errors
    /// For a platform or credentials that are none.
    pub fn resolve(&self) -> Result<PullOptions, Failure> {
        Ok(PullOptions {
            tls_verify: self.tls_verify,
            creds: self.creds.as_deref().map(credentials).transpose()?,
            authfile: self.authfile.clone(),
            cert_dir: self.cert_dir.clone(),
            platform: platform(
                self.platform.as_deref(),
                &self.os,
                &self.arch,
                &self.variant,
            )?,
            retries: self.retry,
            retry_delay: self.retry_delay.as_deref().map(retry_delay).transpose()?,
            policy: self.signature_policy.clone(),
        })
    }
}

/// The platform that is asked for by name or by parts; `None` when nothing is said.
///
/// # Errors
/// For one that is none, and for both ways at once.
pub fn platform(
    whole: Option<&str>,
    os: &Option<String>,
    arch: &Option<String>,
    variant: &Option<String>,
) -> Result<Option<Platform>, Failure> {
    let parts = os.is_some() || arch.is_some();
    let text = match whole {
        Some(_) if parts => {
            return Err(Failure::new(
                "--platform option can not be specified with --arch or --os",
            ));
        }
        Some(text) => text.to_owned(),
        None if !parts && variant.is_none() => return Ok(None),
        None => {
            let host = Platform::host();
            format!(
                "{}/{}",
                os.as_deref().unwrap_or(&host.os),
                arch.as_deref().unwrap_or(&host.architecture)
            )
        }
    };
    let text = match variant {
        Some(variant) => format!("{text}/{variant}"),
        None => text,
    };
    Ok(Some(Platform::parse(&text)?))
}

/// A length of time to wait between two tries.
///
/// # Errors
/// For one that is none.
pub fn retry_delay(text: &str) -> Result<std::time::Duration, Failure> {
    crate::times::duration(text)
        .and_then(|length| length.to_std().ok())
        .ok_or_else(|| {
            Failure::new(format!(
                "invalid retry delay {text:?}: time: invalid duration"
            ))
        })
}

/// `USER[:PASSWORD]`; a password that is not given is asked for.
///
/// # Errors
/// When there is no user, or nobody to ask.
pub fn credentials(text: &str) -> Result<(String, String), Failure> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, password.to_owned()),
        None => (text, super::login::ask_password()?),
    };
    if user.is_empty() {
        return Err(Failure::new("username can't be empty"));
    }
    Ok((user.to_owned(), password))
}

/// The arguments of `pull`.
#[derive(Args, Debug)]
pub struct Pull {
    /// All tagged images in the repository will be pulled
    #[arg(short = 'a', long)]
    all_tags: bool,
    /// Pull image policy ("always"|"missing"|"never"|"newer")
    #[arg(long, default_value = "always")]
    policy: String,
    #[command(flatten)]
    registry: RegistryArgs,
    args: Vec<String>,
}

impl Command for Pull {
    const ABOUT: &'static str = "Pull an image from a registry";
    const USAGE: &'static str = "[options] IMAGE [IMAGE...]";
    const EXAMPLES: &'static [&'static str] = &[
        "pull alpine",
        "pull --platform linux/arm64 quay.io/libpod/banner",
        "pull oci-archive:image.tar",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, usize::MAX)?;
        let options = self.registry.resolve()?;
        let policy = PullPolicy::parse(&self.policy)?;
        if self.all_tags && policy != PullPolicy::Always {
            return Err(Failure::new(
                "--all-tags pulls always: it takes no other --policy",
            ));
        }
        let engine = context.engine()?;
        let progress = Reporter::new(self.registry.quiet, context);
        for_each(
            &self.args,
            |name| {
                let records = match self.all_tags {
                    true => engine.pull_all_tags(name, &options, &progress)?,
                    false if policy == PullPolicy::Always => {
                        engine.pull_each(name, &options, &progress)?
                    }
                    false => {
                        let request = ImageRequest {
                            policy,
                            pull: options.clone(),
                        };
                        vec![engine.ensure_image(name, &request, &progress)?.0]
                    }
                };
                for record in records {
                    output::println(&record.id)?;
                }
                Ok(())
            },
            |codes| codes[0],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(platform(None, &None, &None, &None).unwrap(), None);
        let arm = platform(None, &None, &some("arm64"), &None)
            .unwrap()
            .unwrap();
        assert_eq!(
            (arm.os.as_str(), arm.architecture.as_str()),
            ("linux", "arm64")
        );
        let arm = platform(None, &None, &some("arm"), &some("v7"))
            .unwrap()
            .unwrap();
        assert_eq!(arm.variant.as_deref(), Some("v7"));
        assert!(platform(Some("linux/amd64"), &None, &some("arm64"), &None).is_err());
    }

    #[test]
    fn credentials_are_split_once() {
        assert_eq!(credentials("u:p:q").unwrap(), ("u".into(), "p:q".into()));
        assert!(credentials(":p").is_err());
    }
}
