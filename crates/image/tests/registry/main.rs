//! Pulling from registries that behave and from registries that do not; archives; and, where
//! Debian's docker-registry and skopeo are installed, the real thing.

mod archives;
mod fake;
mod hostile;
mod lab;
mod login;
mod patience;
mod pulls;
mod real;
mod signals;
