//! What a template is made of.

use std::collections::BTreeMap;

use serde_json::Value;

/// A whole template: its own nodes, and those of every `define` and `block`.
#[derive(Debug, Default)]
pub struct Program {
    pub main: Vec<Node>,
    pub defined: BTreeMap<String, Vec<Node>>,
}

/// A piece of output or of control.
#[derive(Clone, Debug)]
pub enum Node {
    Text(String),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
    Template {
        name: String,
        argument: Option<Pipeline>,
        place: Place,
    },
}

/// `if`, `with` and `range`: what decides, what follows, what follows otherwise.
#[derive(Clone, Debug)]
pub struct Branch {
    pub pipeline: Pipeline,
    pub then: Vec<Node>,
    pub otherwise: Vec<Node>,
}

/// Commands joined by `|`, and the variables that take the result.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub variables: Vec<String>,
    /// `:=` makes new variables, `=` sets those that are there.
    pub declares: bool,
    pub commands: Vec<Command>,
    pub place: Place,
}

/// Operands side by side: a value, or a function and its arguments.
#[derive(Clone, Debug)]
pub struct Command {
    pub operands: Vec<Operand>,
    pub place: Place,
}

/// One operand and where it stands.
#[derive(Clone, Debug)]
pub struct Operand {
    pub kind: Kind,
    /// `.A.B` behind it.
    pub fields: Vec<String>,
    pub place: Place,
}

/// What an operand is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `.`, and with fields `.A.B`.
    Dot,
    /// `$` and `$name`.
    Variable(String),
    /// A literal; `nil` is null.
    Literal(Value),
    /// A function's name.
    Function(String),
    /// A pipeline in parentheses.
    Group(Box<Pipeline>),
}

/// Where something stands, and how it is written there: for messages.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    pub text: String,
}
