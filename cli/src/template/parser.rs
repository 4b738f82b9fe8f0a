//! From tokens to a tree.

use serde_json::Value;

use super::TemplateError;
use super::ast::{Branch, Command, Kind, Node, Operand, Pipeline, Place, Program};
use super::lexer::{self, Token, TokenKind, line_of};

/// How deep blocks and parentheses may stand in one another.
const DEEPEST: usize = 100;

/// Reads a whole template.
pub fn parse(name: &str, text: &str) -> Result<Program, TemplateError> {
    let tokens = lexer::tokens(name, text)?;
    let mut parser = Parser {
        name,
        text,
        tokens,
        at: 0,
        depth: 0,
        loops: 0,
        variables: vec!["$".to_owned()],
        program: Program::default(),
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        End::Template => {}
        End::Here => return parser.error("unexpected {{end}}"),
        End::Else => return parser.error("unexpected {{else}}"),
    }
    parser.program.main = nodes;
    Ok(parser.program)
}

/// What ended a list of nodes.
enum End {
    /// The end of the template.
    Template,
    /// `end`.
    Here,
    /// `else`; the parser stands behind the word.
    Else,
}

struct Parser<'a> {
    name: &'a str,
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// How many `range` are around.
    loops: usize,
    /// The variables in sight.
    variables: Vec<String>,
    program: Program,
}

impl Parser<'_> {
    fn error<T>(&self, what: impl AsRef<str>) -> Result<T, TemplateError> {
        let at = self
            .tokens
            .get(self.at)
            .map_or(self.text.len(), |token| token.at);
        Err(TemplateError(format!(
            "{}:{}: {}",
            self.name,
            line_of(self.text, at),
            what.as_ref()
        )))
    }

    fn peek(&self) -> Option<&TokenKind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn next(&mut self) -> Option<TokenKind> {
        let token = self.tokens.get(self.at)?.kind.clone();
        self.at += 1;
        Some(token)
    }

    fn place(&self, from: usize) -> Place {
        let start = self
            .tokens
            .get(from)
            .map_or(self.text.len(), |token| token.at);
        let end = self
            .at
            .checked_sub(1)
            .and_then(|last| self.tokens.get(last))
            .map_or(start, |token| token.end);
        let before = self.text.get(..start).unwrap_or_default();
        Place {
            line: line_of(self.text, start),
            column: start - before.rfind('\n').map_or(0, |newline| newline + 1),
            text: self
                .text
                .get(start..end.max(start))
                .unwrap_or_default()
                .trim()
                .to_owned(),
        }
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.error("template is too deep");
        }
        Ok(())
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(token) = self.next() {
            match token {
                TokenKind::Text(text) => nodes.push(Node::Text(text)),
                TokenKind::Open => {
                    if let Some(end) = self.action(&mut nodes)? {
                        return Ok((nodes, end));
                    }
                }
                _ => return self.error("unexpected token"),
            }
        }
        Ok((nodes, End::Template))
    }

    /// One action, from behind its `{{`.
    fn action(&mut self, nodes: &mut Vec<Node>) -> Result<Option<End>, TemplateError> {
        let word = match self.peek() {
            Some(TokenKind::Word(word)) => word.clone(),
            _ => String::new(),
        };
        let start = self.at;
        self.at += usize::from(is_keyword(&word));
        match word.as_str() {
            "end" => {
                self.close("end")?;
                return Ok(Some(End::Here));
            }
            "else" => return Ok(Some(End::Else)),
            "if" => nodes.push(Node::If(self.branch("if")?)),
            "with" => nodes.push(Node::With(self.branch("with")?)),
            "range" => nodes.push(Node::Range(self.branch("range")?)),
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.error(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                self.close(&word)?;
                nodes.push(if word == "break" {
                    Node::Break
                } else {
                    Node::Continue
                });
            }
            "template" => nodes.push(self.invocation(start)?),
            "define" => self.definition()?,
            "block" => nodes.push(self.block(start)?),
            _ => {
                let pipeline = self.pipeline("command")?;
                self.close("command")?;
                nodes.push(Node::Action(pipeline));
            }
        }
        Ok(None)
    }

    fn close(&mut self, context: &str) -> Result<(), TemplateError> {
        match self.next() {
            Some(TokenKind::Close) => Ok(()),
            Some(_) => {
                self.at -= 1;
                self.error(format!("unexpected token in {context}"))
            }
            None => self.error("unclosed action"),
        }
    }

    fn string(&mut self, context: &str) -> Result<String, TemplateError> {
        match self.next() {
            Some(TokenKind::Quoted(text)) => Ok(text),
            _ => self.error(format!("missing name in {context} clause")),
        }
    }

    /// The nodes up to `end`.
    fn body(&mut self) -> Result<Vec<Node>, TemplateError> {
        self.deeper()?;
        let loops = std::mem::take(&mut self.loops);
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (nodes, end) = self.nodes()?;
        self.loops = loops;
        self.variables = variables;
        self.depth -= 1;
        match end {
            End::Here => Ok(nodes),
            End::Template => self.error("unexpected EOF"),
            End::Else => self.error("unexpected {{else}}"),
        }
    }

    fn branch(&mut self, keyword: &str) -> Result<Branch, TemplateError> {
        self.deeper()?;
        let in_sight = self.variables.len();
        let pipeline = self.pipeline(keyword)?;
        self.close(keyword)?;
        let in_loop = usize::from(keyword == "range");
        self.loops += in_loop;
        let (then, end) = self.nodes()?;
        self.loops -= in_loop;
        let otherwise = match end {
            End::Here => Vec::new(),
            End::Else => self.otherwise(keyword)?,
            End::Template => return self.error("unexpected EOF"),
        };
        self.variables.truncate(in_sight);
        self.depth -= 1;
        Ok(Branch {
            pipeline,
            then,
            otherwise,
        })
    }

    /// From behind `else`: `}} … {{end}}`, or ` if …` for a chain that shares its `end`.
    fn otherwise(&mut self, keyword: &str) -> Result<Vec<Node>, TemplateError> {
        match self.peek() {
            Some(TokenKind::Word(word)) if word == keyword && keyword != "range" => {
                self.at += 1;
                let branch = self.branch(keyword)?;
                Ok(vec![if keyword == "if" {
                    Node::If(branch)
                } else {
                    Node::With(branch)
                }])
            }
            _ => {
                self.close("else")?;
                let (nodes, end) = self.nodes()?;
                match end {
                    End::Here => Ok(nodes),
                    End::Else => self.error("expected end; found {{else}}"),
                    End::Template => self.error("unexpected EOF"),
                }
            }
        }
    }

    fn invocation(&mut self, start: usize) -> Result<Node, TemplateError> {
        let name = self.string("template")?;
        let argument = match self.peek() {
            Some(TokenKind::Close) => None,
            _ => Some(self.pipeline("template")?),
        };
        let place = self.place(start);
        self.close("template")?;
        Ok(Node::Template {
            name,
            argument,
            place,
        })
    }

    fn definition(&mut self) -> Result<(), TemplateError> {
        let name = self.string("define")?;
        self.close("define")?;
        let nodes = self.body()?;
        self.program.defined.insert(name, nodes);
        Ok(())
    }

    fn block(&mut self, start: usize) -> Result<Node, TemplateError> {
        let name = self.string("block")?;
        let argument = Some(self.pipeline("block")?);
        let place = self.place(start);
        self.close("block")?;
        let nodes = self.body()?;
        self.program.defined.entry(name.clone()).or_insert(nodes);
        Ok(Node::Template {
            name,
            argument,
            place,
        })
    }

    fn pipeline(&mut self, context: &str) -> Result<Pipeline, TemplateError> {
        self.deeper()?;
        let start = self.at;
        let (variables, declares) = self.declaration(context)?;
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        let mut commands = vec![self.command(context)?];
        while self.peek() == Some(&TokenKind::Pipe) {
            self.at += 1;
            let command = self.command(context)?;
            let stage = commands.len() + 1;
            // Only functions and what may be one can take what comes through the pipe.
            match command
                .operands
                .first()
                .map(|first| (&first.kind, first.fields.len()))
            {
                Some((Kind::Literal(_), _) | (Kind::Dot, 0)) => {
                    return self.error(format!("non executable command in pipeline stage {stage}"));
                }
                _ => commands.push(command),
            }
        }
        self.depth -= 1;
        Ok(Pipeline {
            variables,
            declares,
            commands,
            place: self.place(start),
        })
    }

    /// `$a :=`, `$a =` and, in a range, `$a, $b :=`.
    fn declaration(&mut self, context: &str) -> Result<(Vec<String>, bool), TemplateError> {
        let kinds: Vec<&TokenKind> = self
            .tokens
            .iter()
            .skip(self.at)
            .take(4)
            .map(|token| &token.kind)
            .collect();
        let (names, sign) = match kinds.as_slice() {
            [
                TokenKind::Variable(name),
                sign @ (TokenKind::Declare | TokenKind::Assign),
                ..,
            ] => (vec![name.clone()], *sign),
            [
                TokenKind::Variable(first),
                TokenKind::Comma,
                TokenKind::Variable(second),
                sign @ (TokenKind::Declare | TokenKind::Assign),
            ] if context == "range" => (vec![first.clone(), second.clone()], *sign),
            _ => return Ok((Vec::new(), false)),
        };
        let declares = *sign == TokenKind::Declare;
        self.at += names.len() * 2;
        Ok((names, declares))
    }

    fn command(&mut self, context: &str) -> Result<Command, TemplateError> {
        let mut operands: Vec<Operand> = Vec::new();
        let start = self.at;
        loop {
            let spaced = self.tokens.get(self.at).is_some_and(|token| token.spaced);
            match self.peek() {
                None => return self.error("unclosed action"),
                Some(TokenKind::Close | TokenKind::Pipe | TokenKind::CloseParen)
                    if operands.is_empty() =>
                {
                    return self.error(format!("missing value for {context}"));
                }
                Some(TokenKind::Close | TokenKind::Pipe | TokenKind::CloseParen) => {
                    let place = self.place(start);
                    return Ok(Command { operands, place });
                }
                Some(_) if !operands.is_empty() && !spaced => {
                    return self.error("unexpected token in operand");
                }
                Some(_) => operands.push(self.operand()?),
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let start = self.at;
        let mut fields = Vec::new();
        let dot = self.peek() == Some(&TokenKind::Dot);
        let kind = match self.next() {
            Some(TokenKind::Dot) => Kind::Dot,
            Some(TokenKind::Field(name)) => {
                fields.push(name);
                Kind::Dot
            }
            Some(TokenKind::Variable(name)) => {
                if !self.variables.contains(&name) {
                    self.at -= 1;
                    return self.error(format!("undefined variable {name:?}"));
                }
                Kind::Variable(name)
            }
            Some(TokenKind::Quoted(text)) => Kind::Literal(text.into()),
            Some(TokenKind::Integer(number)) => Kind::Literal(number.into()),
            Some(TokenKind::Float(number)) => Kind::Literal(number.into()),
            Some(TokenKind::Word(word)) => match word.as_str() {
                "true" => Kind::Literal(true.into()),
                "false" => Kind::Literal(false.into()),
                "nil" => Kind::Literal(Value::Null),
                _ if super::functions::exists(&word) => Kind::Function(word),
                _ => {
                    self.at -= 1;
                    return self.error(format!("function {word:?} not defined"));
                }
            },
            Some(TokenKind::OpenParen) => {
                let pipeline = self.pipeline("parenthesized pipeline")?;
                match self.next() {
                    Some(TokenKind::CloseParen) => Kind::Group(Box::new(pipeline)),
                    _ => return self.error("unclosed left paren"),
                }
            }
            _ => {
                self.at -= 1;
                return self.error("unexpected token in operand");
            }
        };
        while let Some(Token {
            kind: TokenKind::Field(name),
            spaced: false,
            ..
        }) = self.tokens.get(self.at)
        {
            if dot {
                return self.error("unexpected . after term \".\"");
            }
            fields.push(name.clone());
            self.at += 1;
        }
        Ok(Operand {
            kind,
            fields,
            place: self.place(start),
        })
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "end"
            | "else"
            | "if"
            | "with"
            | "range"
            | "break"
            | "continue"
            | "template"
            | "define"
            | "block"
    )
}
