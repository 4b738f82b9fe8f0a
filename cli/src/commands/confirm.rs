//! Asking before much is removed.

use std::io::{self, BufRead};

use rcon_sys::errors::in_words;

use crate::failure::Failure;
use crate::output;

/// Whether the user, warned of `what`, says yes.
///
/// # Errors
/// When the answer cannot be read; none at all is a no.
pub fn confirmed(what: &str) -> Result<bool, Failure> {
    output::print(&format!(
        "WARNING! {what}\nAre you sure you want to continue? [y/N] "
    ))?;
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|e| Failure::new(format!("cannot read the answer: {}", in_words(&e))))?;
    Ok(answer.trim_start().starts_with(['y', 'Y']))
}
