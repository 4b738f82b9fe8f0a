//! `rcon completion`

use std::path::PathBuf;

use clap::Args;
use rcon_sys::errors::in_words;

use crate::app::Command;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::usage::arity;

/// The arguments of `completion`.
#[derive(Args, Debug)]
pub struct Completion {
    /// Output the completion to file rather than stdout
    #[arg(short = 'f', long)]
    file: Option<PathBuf>,
    args: Vec<String>,
}

impl Command for Completion {
    const ABOUT: &'static str = "Generate shell autocompletions";
    const USAGE: &'static str = "[options] {bash|zsh|fish}";
    const EXAMPLES: &'static [&'static str] = &[
        "completion bash > ~/.local/share/bash-completion/completions/rcon",
        "completion zsh -f \"${fpath[1]}/_rcon\"",
        "completion fish -f ~/.config/fish/completions/rcon.fish",
    ];

    fn run(self, _: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        let script = match self.args[0].as_str() {
            "bash" => BASH,
            "zsh" => ZSH,
            "fish" => FISH,
            other => {
                return Err(Failure::new(format!(
                    "invalid argument {other:?}: there are completions for bash, zsh and fish"
                )));
            }
        };
        match self.file {
            None => output::print(script)?,
            Some(path) => std::fs::write(&path, script).map_err(|e| {
                Failure::new(format!("cannot write {}: {}", path.display(), in_words(&e)))
            })?,
        }
        Ok(0)
    }
}

const BASH: &str = r#"# bash completion for rcon; `rcon completion bash` prints it.
_rcon() {
    local line=${COMP_LINE:0:COMP_POINT} words current candidate files=
    # Not COMP_WORDS, which is parted at colons too.
    read -ra words <<<"$line"
    case $line in *[[:space:]]) words+=("") ;; esac
    current=${words[${#words[@]} - 1]}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        case $candidate in
            :files) files=1 ;;
            *) COMPREPLY+=("$candidate") ;;
        esac
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    if [ "${#COMPREPLY[@]}" = 1 ]; then
        case ${COMPREPLY[0]} in *[:=]) compopt -o nospace ;; esac
    fi
    if [ -n "$files" ]; then
        compopt -o filenames
        while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -f -- "$current")
    fi
    # bash puts the answer after the last colon.
    case $COMP_WORDBREAKS in
        *:*) case $current in *:*) COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}") ;; esac ;;
    esac
}
complete -F _rcon rcon
"#;

const ZSH: &str = r#"#compdef rcon
# zsh completion for rcon; `rcon completion zsh` prints it.
_rcon() {
    local line files=
    local -a candidates
    while IFS= read -r line; do
        case $line in
            :files) files=1 ;;
            *$'\t'*) candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
            *) candidates+=("${line//:/\\:}") ;;
        esac
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( $#candidates )) && _describe -V rcon candidates
    [[ -n $files ]] && _files
}
if [ "$funcstack[1]" = _rcon ]; then _rcon "$@"; else compdef _rcon rcon; fi
"#;

const FISH: &str = r#"# fish completion for rcon; `rcon completion fish` prints it.
function __rcon_ask
    set -l words (commandline -opc)
    $words[1] __complete $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c rcon -e
complete -c rcon -f -a '(__rcon_ask | string match -v ":*")'
complete -c rcon -n '__rcon_ask | string match -q ":files"' -F
"#;
