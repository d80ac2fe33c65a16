//! Asking before something cannot be undone.

use std::io::{BufRead, Write};

use super::{cannot_print, say};
use crate::Failure;

/// Shows the warning and asks for a `yes`; anything else cancels, and says so.
pub fn confirmed(warning: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout();
    write!(out, "{warning}\nEnter 'yes' to proceed': ").map_err(cannot_print)?;
    out.flush().map_err(cannot_print)?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|err| Failure::new(1, format!("cannot read the answer: {err}")))?;
    let yes = answer.trim().eq_ignore_ascii_case("yes");
    if !yes {
        say("Operation cancelled.")?;
    }
    Ok(yes)
}
