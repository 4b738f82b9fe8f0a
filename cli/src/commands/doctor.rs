//! `rcon doctor`

use clap::Args;
use rcon_engine::{Finding, Grade};
use serde_json::json;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::format::{self, Format};
use crate::output::{self, json};

/// The arguments of `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Change the output format to JSON or a Go template
    #[arg(short = 'f', long)]
    format: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Command for Doctor {
    const ABOUT: &'static str = "Say what containers have here, and what would give them more";
    const USAGE: &'static str = "[options]";
    const EXAMPLES: &'static [&'static str] = &[
        "doctor",
        "doctor --format '{{.part}}: {{.used}} ({{.grade}})'",
    ];

    fn run(self, context: &Context) -> Outcome {
        if !self.args.is_empty() {
            return Err(Failure::new(format!(
                "`{}` takes no arguments",
                context.name
            )));
        }
        let findings = context.engine()?.examine();
        let text = match Format::parse(self.format.as_deref()) {
            Format::Default => findings.iter().map(told).collect(),
            Format::Json => json::pretty(&json!(findings), 2),
            Format::Lines(text) | Format::Table(text) => {
                let values: Vec<_> = findings.iter().map(|finding| json!(finding)).collect();
                format::lines("doctor", &text, &values)?
            }
        };
        output::print(&text)?;
        let bad = findings.iter().any(|finding| finding.grade == Grade::Bad);
        Ok(u8::from(bad))
    }
}

/// A part in a line, and what is to be said about it in further ones.
fn told(finding: &Finding) -> String {
    let mark = match finding.grade {
        Grade::Good => "ok  ",
        Grade::Less => "less",
        Grade::Bad => "NO  ",
    };
    let mut text = format!("{mark}  {:<18} {}\n", finding.part, finding.used);
    let further = [
        ("because", &finding.why),
        ("so", &finding.matters),
        ("try", &finding.remedy),
    ];
    for (word, what) in further {
        if let Some(what) = what {
            text += &format!("      {word:>8}: {what}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_a_line_and_its_reasons() {
        let finding = Finding {
            part: "ids".into(),
            used: "one id".into(),
            grade: Grade::Less,
            why: Some("no newuidmap".into()),
            matters: None,
            remedy: Some("sudo apt install uidmap".into()),
        };
        assert_eq!(
            told(&finding),
            "less  ids                one id\n       because: no newuidmap\n           try: sudo apt \
             install uidmap\n"
        );
    }
}
