//! Programs in a running container.

use crate::error::{Error, Result};
use crate::request::{ExecChild, ExecRequest, Target};

/// Start a program in the container.
pub fn exec(target: &Target, request: ExecRequest<'_>) -> Result<ExecChild> {
    let _ = (target, request);
    Err(Error::Invalid(String::new()))
}
