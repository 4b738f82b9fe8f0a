//! Pulling from and pushing to registries that behave and registries that do not; archives; and, where
//! Debian's docker-registry and skopeo are installed, the real thing.

mod archives;
mod commits;
mod fake;
mod hostile;
mod lab;
mod login;
mod patience;
mod pulls;
mod push;
mod push_cut;
mod real;
mod saves;
mod signals;
