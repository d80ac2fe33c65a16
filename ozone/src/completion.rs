//! `ozone completion`: scripts for shells.

use std::io::Write;

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

use crate::{Failure, Outcome};

#[derive(Args)]
pub struct CompletionArgs {
    /// The shell, e.g. `source <(ozone completion bash)`.
    shell: Known,
}

#[derive(Clone, Copy, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script for `command`.
pub fn run(args: &CompletionArgs, command: &mut Command) -> Outcome {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, command, "ozone", &mut script);
    let written = std::io::stdout().write_all(&script);
    written.map_err(|err| Failure::new(1, format!("cannot print: {err}")))
}
