//! `rcon login`

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::Args;
use rcon_engine::image::auth::{self, AuthOptions, Credentials};
use rcon_sys::errors::in_words;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::{arity, parse_bool};

/// The arguments of `login`.
#[derive(Args, Debug)]
pub struct Login {
    /// Path of the authentication file. Use REGISTRY_AUTH_FILE environment variable to override
    #[arg(long)]
    authfile: Option<PathBuf>,
    /// Use certificates at the specified path to access the registry
    #[arg(long)]
    cert_dir: Option<PathBuf>,
    /// Return the current login user for the registry
    #[arg(long)]
    get_login: bool,
    /// Password for registry
    #[arg(short = 'p', long)]
    password: Option<String>,
    /// Take the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Take the password from a secret, whose name is the username when none is said
    #[arg(long)]
    secret: Option<String>,
    /// Require HTTPS and verify certificates when contacting registries (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool)]
    tls_verify: Option<bool>,
    /// Username for registry
    #[arg(short = 'u', long)]
    username: Option<String>,
    /// Write more detailed information to stdout
    #[arg(short = 'v', long)]
    verbose: bool,
    args: Vec<String>,
}

impl Command for Login {
    const ABOUT: &'static str = "Login to a container registry";
    const USAGE: &'static str = "[options] [REGISTRY]";
    const EXAMPLES: &'static [&'static str] = &[
        "login quay.io",
        "login --username name --password-stdin quay.io < password",
    ];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 0, 1)?;
        let registry = self
            .args
            .first()
            .cloned()
            .unwrap_or_else(auth::default_registry);
        let options = AuthOptions {
            authfile: self.authfile,
            cert_dir: self.cert_dir,
            tls_verify: self.tls_verify,
        };
        let known = || -> Result<Option<Credentials>, Failure> {
            auth::lookup(&registry, &options).map_err(|e| rcon_engine::Error::from(e).into())
        };
        if self.get_login {
            return match known()? {
                Some(Credentials::Basic { user, .. }) => {
                    output::println(&user)?;
                    Ok(0)
                }
                Some(Credentials::IdentityToken(_)) => {
                    output::println("<token>")?;
                    Ok(0)
                }
                None => Err(Failure::new(format!("not logged into {registry}"))),
            };
        }
        if self.password.is_some() && self.password_stdin {
            return Err(Failure::new(
                "Can't specify both --password-stdin and --password",
            ));
        }
        if self.secret.is_some() && (self.password.is_some() || self.password_stdin) {
            return Err(Failure::new(
                "--secret cannot be used with --password or --password-stdin",
            ));
        }
        if self.password_stdin && self.username.is_none() {
            return Err(Failure::new(
                "Must provide --username with --password-stdin",
            ));
        }
        let user = match self.username.or_else(|| self.secret.clone()) {
            Some(user) => user,
            None => {
                let user = ask("Username: ", true)?;
                if user.is_empty() {
                    stored_user(known()?).unwrap_or_default()
                } else {
                    user
                }
            }
        };
        if user.is_empty() {
            return Err(Failure::new(format!(
                "logging into {registry:?}: username can't be empty"
            )));
        }
        let engine = context.engine()?;
        let text = |text: &str| text.trim_end_matches(['\n', '\r']).to_owned();
        let password = match (self.password, &self.secret) {
            (Some(password), _) => password,
            (None, Some(name)) => {
                let secret = engine.secret_text(&engine.secret(name)?)?;
                text(&String::from_utf8_lossy(&secret))
            }
            (None, None) if self.password_stdin => {
                let mut said = String::new();
                io::stdin().read_to_string(&mut said).map_err(|e| {
                    Failure::new(format!("cannot read the password: {}", in_words(&e)))
                })?;
                text(&said)
            }
            (None, None) => ask_password()?,
        };
        engine.login(&registry, &user, &password, &options)?;
        if self.verbose {
            output::println(&format!("Used:  {user}@{registry}"))?;
        }
        output::println("Login Succeeded!")?;
        Ok(0)
    }
}

fn stored_user(credentials: Option<Credentials>) -> Option<String> {
    match credentials {
        Some(Credentials::Basic { user, .. }) => Some(user),
        _ => None,
    }
}

/// Asks for a password, which is not shown while it is typed.
///
/// # Errors
/// When there is nobody to ask.
pub fn ask_password() -> Result<String, Failure> {
    ask("Password: ", false)
}

/// Asks on the terminal; without one, a line of standard input is the answer.
fn ask(question: &str, echo: bool) -> Result<String, Failure> {
    let stdin = io::stdin();
    let unreadable =
        |e: io::Error| Failure::new(format!("cannot read the answer: {}", in_words(&e)));
    let mut stderr = io::stderr();
    let _ = stderr.write_all(question.as_bytes());
    let before = if echo || !stdin.is_terminal() {
        None
    } else {
        tcgetattr(&stdin).ok()
    };
    if let Some(modes) = &before {
        let mut hidden = modes.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| unreadable(e.into()))?;
    }
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if let Some(modes) = &before {
        tcsetattr(&stdin, OptionalActions::Now, modes).map_err(|e| unreadable(e.into()))?;
    }
    if read.map_err(unreadable)? == 0 {
        return Err(Failure::new("no answer was given")
            .hint("use --username and --password-stdin where there is no terminal"));
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
