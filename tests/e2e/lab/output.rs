//! What a finished command gave, and what is expected of it.

use std::process::ExitStatus;
use std::time::Duration;

/// The end of one command.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Output {
    /// Puts together what was read.
    pub fn new(
        line: String,
        status: ExitStatus,
        stdout: &[u8],
        stderr: &[u8],
        took: Duration,
    ) -> Output {
        use std::os::unix::process::ExitStatusExt;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output {
            line,
            code,
            stdout: text(stdout),
            stderr: text(stderr),
            took,
        }
    }

    /// The whole story, for a panic.
    pub fn story(&self) -> String {
        format!(
            "$ {}\nexit code {} after {:.2?}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.line, self.code, self.took, self.stdout, self.stderr
        )
    }

    /// It must have ended with `code`.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Output {
        assert!(
            self.code == code,
            "expected exit code {code}\n{}",
            self.story()
        );
        self
    }

    /// It must have succeeded; its standard output without the last newline.
    #[track_caller]
    pub fn ok(&self) -> &str {
        self.code(0)
            .stdout
            .strip_suffix('\n')
            .unwrap_or(&self.stdout)
    }

    /// It must have succeeded; the cells of a line of the table that it printed, of which the first is the head.
    #[track_caller]
    pub fn cells(&self, line: usize) -> Vec<&str> {
        let line = self.ok().lines().nth(line);
        line.unwrap_or_else(|| panic!("no such line\n{}", self.story()))
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect()
    }

    /// It must have succeeded and printed exactly this.
    #[track_caller]
    pub fn prints(&self, expected: &str) -> &Output {
        assert!(
            self.code == 0 && self.stdout == expected,
            "expected stdout {expected:?}\n{}",
            self.story()
        );
        self
    }

    /// Its standard output must hold `part`.
    #[track_caller]
    pub fn shows(&self, part: &str) -> &Output {
        assert!(
            self.stdout.contains(part),
            "expected stdout to hold {part:?}\n{}",
            self.story()
        );
        self
    }

    /// Its standard error must hold `part` (letter case aside).
    #[track_caller]
    pub fn says(&self, part: &str) -> &Output {
        let has = self.stderr.to_lowercase().contains(&part.to_lowercase());
        assert!(has, "expected stderr to hold {part:?}\n{}", self.story());
        self
    }

    /// It must have said nothing on standard error.
    #[track_caller]
    pub fn quiet(&self) -> &Output {
        assert!(
            self.stderr.is_empty(),
            "expected nothing on stderr\n{}",
            self.story()
        );
        self
    }

    /// It must have failed as podman does with `code`: one line that begins with `Error: `, then at most a
    /// remedy, nothing on standard output, and no bare number for a reason.
    #[track_caller]
    pub fn refused(&self, code: i32) -> &Output {
        self.code(code);
        // Attempts that failed and are made again are told in lines of their own, as podman does.
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .skip_while(|l| l.starts_with("time=\"") && l.contains("retrying in"))
            .collect();
        let shaped = lines.first().is_some_and(|l| l.starts_with("Error: "))
            && lines[1..].iter().all(|l| {
                l.starts_with("hint: ") || l.starts_with("      ") || l.starts_with("See '")
            });
        assert!(
            shaped,
            "expected one line 'Error: …' and at most a hint\n{}",
            self.story()
        );
        assert!(
            !self.stderr.contains("os error"),
            "a raw error number\n{}",
            self.story()
        );
        assert!(
            !self.stderr.contains("panicked"),
            "a panic\n{}",
            self.story()
        );
        assert!(
            self.stdout.is_empty(),
            "expected nothing on stdout\n{}",
            self.story()
        );
        self
    }

    /// The same after lines of progress that begin with `progress`.
    #[track_caller]
    pub fn refused_after(&self, progress: &str, code: i32) -> Output {
        let rest: Vec<&str> = self
            .stderr
            .lines()
            .skip_while(|l| l.starts_with(progress))
            .collect();
        let rest = Output {
            stderr: rest.join("\n"),
            ..self.clone()
        };
        rest.refused(code);
        rest
    }
}
