//! Go's text/template over JSON values, for `--format`.
//!
//! The language is that of <https://pkg.go.dev/text/template>, with the functions podman adds (`json`, `join`, `split`,
//! `upper`, `lower`, `title`, `pad`, `truncate`). What Go learns from types is learned here from the values: an object whose
//! keys are all identifiers is a *struct*, and asking it for a field that it lacks is an error; any other object, and one
//! found where podman has a map, is a *map*, and a key that it lacks is `<no value>`. Names of fields are found whatever their case, because what podman
//! calls `.Host.Arch` in a template is `host.arch` in its JSON.
//!
//! [`lexer`] cuts the text into tokens, [`parser`] makes a tree of them, [`eval`] walks the tree; [`value`] is how Go prints
//! and compares, [`functions`] and [`printf`] are what a template can call. A template is input like any other: depth, steps
//! and output are bounded, and nothing panics.

mod ast;
mod eval;
mod functions;
mod lexer;
mod parser;
mod printf;
#[cfg(test)]
mod tests;
mod time;
mod value;

use serde_json::Value;

/// Why a template cannot be read, or not be filled in. The text is Go's, with place and expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub struct TemplateError(String);

/// Whether `text` is a template at all, whatever is filled in.
///
/// # Errors
/// When it is none.
pub fn check(name: &str, text: &str) -> Result<(), TemplateError> {
    parser::parse(name, text).map(drop)
}

/// Fills `text` in from `value`. `name` is what messages call the template: the command's name.
///
/// # Errors
/// When the template is no template, asks for a field that is not there, or calls a function with what it cannot take.
pub fn render(name: &str, text: &str, value: &Value) -> Result<String, TemplateError> {
    let program = parser::parse(name, text)?;
    eval::run(name, &program, value)
}
