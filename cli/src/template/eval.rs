//! Walks the tree and writes the output.

use serde_json::Value;

use super::TemplateError;
use super::ast::{Branch, Command, Kind, Node, Operand, Pipeline, Place, Program};
use super::functions;
use super::time;
use super::value::{self, Val};

/// How deep the walk goes: blocks, parentheses and templates in one another. Each costs some of the stack.
const DEEPEST: usize = 200;
/// How many nodes are visited at most.
const MOST_STEPS: usize = 5_000_000;
/// How much is written at most, in bytes.
const MOST_OUTPUT: usize = 64 << 20;
/// How much text functions make at most, all calls together, in bytes: what a template can fill memory with.
const MOST_MADE: usize = 64 << 20;

/// Fills the template in.
pub fn run(name: &str, program: &Program, value: &Value) -> Result<String, TemplateError> {
    let dot = Some(value.clone());
    let mut state = State {
        name,
        program,
        out: String::new(),
        variables: vec![("$".to_owned(), dot.clone())],
        depth: 0,
        steps: 0,
        made: 0,
    };
    state.nodes(&program.main, &dot)?;
    Ok(state.out)
}

/// Whether a list of nodes was left early.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct State<'a> {
    name: &'a str,
    program: &'a Program,
    out: String,
    variables: Vec<(String, Val)>,
    depth: usize,
    steps: usize,
    made: usize,
}

impl State<'_> {
    fn error<T>(&self, place: &Place, what: impl AsRef<str>) -> Result<T, TemplateError> {
        Err(TemplateError(format!(
            "{name}:{}:{}: executing {name:?} at <{}>: {}",
            place.line,
            place.column,
            place.text,
            what.as_ref(),
            name = self.name,
        )))
    }

    fn step(&mut self, place: &Place) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > MOST_STEPS || self.out.len() > MOST_OUTPUT {
            return self.error(place, "the template does too much");
        }
        Ok(())
    }

    /// One level deeper; [`Self::depth`] is set back by who called.
    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TemplateError(format!(
                "{}: exceeded maximum template depth ({DEEPEST})",
                self.name
            )));
        }
        Ok(())
    }

    /// A list of nodes; the variables that it declares end with it.
    fn nodes(&mut self, nodes: &[Node], dot: &Val) -> Result<Flow, TemplateError> {
        self.deeper()?;
        let mark = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(mark);
        self.depth -= 1;
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Val) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipeline) => {
                let result = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    let text = value::print(&shown_alone(pipeline, result));
                    self.out.push_str(&text);
                }
            }
            Node::If(branch) | Node::With(branch) => {
                let mark = self.variables.len();
                let decider = self.pipeline(&branch.pipeline, dot)?;
                let with = matches!(node, Node::With(_));
                let flow = match value::truth(&decider) {
                    true => self.nodes(&branch.then, if with { &decider } else { dot }),
                    false => self.nodes(&branch.otherwise, dot),
                };
                self.variables.truncate(mark);
                return flow;
            }
            Node::Range(branch) => self.range(branch, dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Template {
                name,
                argument,
                place,
            } => self.template(name, argument.as_ref(), place, dot)?,
        }
        Ok(Flow::On)
    }

    fn template(
        &mut self,
        name: &str,
        argument: Option<&Pipeline>,
        place: &Place,
        dot: &Val,
    ) -> Result<(), TemplateError> {
        let program = self.program;
        let Some(nodes) = program.defined.get(name) else {
            return self.error(place, format!("template {name:?} not defined"));
        };
        self.step(place)?;
        let argument = match argument {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => None,
        };
        let outside = std::mem::replace(
            &mut self.variables,
            vec![("$".to_owned(), argument.clone())],
        );
        self.nodes(nodes, &argument)?;
        self.variables = outside;
        Ok(())
    }

    fn range(&mut self, branch: &Branch, dot: &Val) -> Result<(), TemplateError> {
        let place = &branch.pipeline.place;
        let mark = self.variables.len();
        let over = self.commands(&branch.pipeline, dot)?;
        let items: Box<dyn Iterator<Item = (Value, Value)>> = match over {
            None | Some(Value::Null) => Box::new(std::iter::empty()),
            Some(Value::Array(items)) => Box::new(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(at, item)| (Value::from(at), item)),
            ),
            Some(Value::Object(object)) => {
                let mut entries: Vec<(String, Value)> = object.into_iter().collect();
                entries.sort_by(|(left, _), (right, _)| left.cmp(right));
                Box::new(
                    entries
                        .into_iter()
                        .map(|(key, item)| (Value::from(key), item)),
                )
            }
            Some(Value::Number(number)) => {
                let Some(count) = number.as_i64() else {
                    return self.error(place, format!("range can't iterate over {number}"));
                };
                Box::new((0..count).map(|at| (Value::from(at), Value::from(at))))
            }
            Some(other) => {
                return self.error(
                    place,
                    format!("range can't iterate over {}", value::print(&Some(other))),
                );
            }
        };
        let mut empty = true;
        for (key, item) in items {
            empty = false;
            self.step(place)?;
            let (key, item) = (Some(key), Some(item));
            match branch.pipeline.variables.as_slice() {
                [one] => self.assign(&branch.pipeline, one, item.clone())?,
                [first, second] => {
                    self.assign(&branch.pipeline, first, key)?;
                    self.assign(&branch.pipeline, second, item.clone())?;
                }
                _ => {}
            }
            let flow = self.nodes(&branch.then, &item)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        if empty {
            self.nodes(&branch.otherwise, dot)?;
        }
        Ok(())
    }

    fn assign(&mut self, pipeline: &Pipeline, name: &str, to: Val) -> Result<(), TemplateError> {
        if pipeline.declares {
            self.variables.push((name.to_owned(), to));
            return Ok(());
        }
        match self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name)
        {
            Some((_, old)) => {
                *old = to;
                Ok(())
            }
            None => self.error(&pipeline.place, format!("undefined variable: {name}")),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Val) -> Result<Val, TemplateError> {
        let result = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.assign(pipeline, name, result.clone())?;
        }
        Ok(result)
    }

    /// Each command gets what the one before it gave as its last argument.
    fn commands(&mut self, pipeline: &Pipeline, dot: &Val) -> Result<Val, TemplateError> {
        self.step(&pipeline.place)?;
        let mut piped: Option<Val> = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, dot, piped)?);
        }
        Ok(piped.flatten())
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Val,
        piped: Option<Val>,
    ) -> Result<Val, TemplateError> {
        let Some((first, rest)) = command.operands.split_first() else {
            return Ok(None);
        };
        if let Kind::Function(name) = &first.kind {
            return self.call(name, first, rest, &command.place, dot, piped);
        }
        if let Some(method) = first.fields.last()
            && let Some(asked) = self.ask(first, method, rest, dot)?
        {
            return Ok(asked);
        }
        if !rest.is_empty() || piped.is_some() {
            let what = match (&first.kind, first.fields.last()) {
                (Kind::Dot | Kind::Variable(_), Some(field)) => {
                    format!("{field} has arguments but cannot be invoked as function")
                }
                _ => format!("can't give argument to non-function {}", first.place.text),
            };
            return self.error(&first.place, what);
        }
        if matches!(&first.kind, Kind::Literal(Value::Null)) {
            return self.error(&first.place, "nil is not a command");
        }
        self.operand(first, dot)
    }

    /// `.Created.Format "2006"`: what a point in time says of itself; `None` where there is no such point.
    fn ask(
        &mut self,
        first: &Operand,
        method: &str,
        rest: &[Operand],
        dot: &Val,
    ) -> Result<Option<Val>, TemplateError> {
        let [fields @ .., of, _] = first.fields.as_slice() else {
            return Ok(None);
        };
        if !time::has(method) || !value::is_time(of) {
            return Ok(None);
        }
        let whole = Operand {
            kind: first.kind.clone(),
            fields: [fields, std::slice::from_ref(of)].concat(),
            place: first.place.clone(),
        };
        let Some(Value::String(text)) = self.operand(&whole, dot)? else {
            return Ok(None);
        };
        let mut arguments = Vec::with_capacity(rest.len());
        for operand in rest {
            arguments.push(self.operand(operand, dot)?.unwrap_or_default());
        }
        match time::ask(&text, method, &arguments) {
            Some(Ok(answer)) => Ok(Some(Some(answer))),
            Some(Err(why)) => self.error(&first.place, format!("error calling {method}: {why}")),
            None => Ok(None),
        }
    }

    fn call(
        &mut self,
        name: &str,
        function: &Operand,
        operands: &[Operand],
        place: &Place,
        dot: &Val,
        piped: Option<Val>,
    ) -> Result<Val, TemplateError> {
        if let Err(message) = functions::check(name, operands.len() + usize::from(piped.is_some()))
        {
            return self.error(place, message);
        }
        let prints = matches!(
            name,
            "print" | "printf" | "println" | "html" | "js" | "urlquery"
        );
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            let mut argument = self.operand(operand, dot)?;
            if let (true, Some(field)) = (prints, operand.fields.last()) {
                argument = value::shown(field, argument);
            }
            // `and` and `or` look no further than they must.
            let decided = match name {
                "and" => !value::truth(&argument),
                "or" => value::truth(&argument),
                _ => false,
            };
            if decided {
                return Ok(argument);
            }
            arguments.push(argument);
        }
        arguments.extend(piped);
        match functions::call(name, arguments) {
            Ok(result) => {
                self.made += result.as_ref().and_then(Value::as_str).map_or(0, str::len);
                if self.made > MOST_MADE {
                    return self.error(place, "the template does too much");
                }
                self.fields(result, None, function)
            }
            Err(message) => self.error(place, format!("error calling {name}: {message}")),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Val) -> Result<Val, TemplateError> {
        let base = match &operand.kind {
            Kind::Dot => dot.clone(),
            Kind::Literal(literal) => Some(literal.clone()),
            Kind::Variable(name) => {
                match self.variables.iter().rev().find(|(known, _)| known == name) {
                    Some((_, value)) => value.clone(),
                    None => {
                        return self.error(&operand.place, format!("undefined variable {name:?}"));
                    }
                }
            }
            Kind::Function(name) => {
                return self.call(name, operand, &[], &operand.place, dot, None);
            }
            Kind::Group(pipeline) => {
                self.deeper()?;
                let mark = self.variables.len();
                let result = self.pipeline(pipeline, dot)?;
                self.variables.truncate(mark);
                self.depth -= 1;
                result
            }
        };
        self.fields(base, None, operand)
    }

    fn fields(
        &self,
        base: Val,
        parent: Option<&str>,
        operand: &Operand,
    ) -> Result<Val, TemplateError> {
        let (mut found, mut parent) = (base, parent);
        for name in &operand.fields {
            found = match value::field(&found, name, parent) {
                Ok(found) => found,
                Err(value::NoField(why)) => {
                    // Go points at the last field.
                    let mut place = operand.place.clone();
                    place.column += place.text.rfind('.').unwrap_or(0);
                    return self.error(&place, why);
                }
            };
            parent = Some(name);
        }
        Ok(found)
    }
}

/// What an action prints that is one field and nothing else.
fn shown_alone(pipeline: &Pipeline, result: Val) -> Val {
    match pipeline.commands.as_slice() {
        [Command { operands, .. }] => match operands.as_slice() {
            [Operand { fields, .. }] => match fields.last() {
                Some(field) => value::shown(field, result),
                None => result,
            },
            _ => result,
        },
        _ => result,
    }
}
