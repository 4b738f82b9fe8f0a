//! Asking before much is removed.

use std::io::{self, BufRead};

use crate::failure::Failure;
use crate::output;

/// Whether the user, warned of `what`, says yes.
///
/// # Errors
/// When there is nobody to ask.
pub fn confirmed(what: &str) -> Result<bool, Failure> {
    output::print(&format!(
        "WARNING! {what}\nAre you sure you want to continue? [y/N] "
    ))?;
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|e| Failure::new(format!("cannot read the answer: {e}")))?;
    Ok(answer.trim_start().starts_with(['y', 'Y']))
}
