//! The project's own commands: `cargo xtask quickstart DIR`, `install`, `deb`, `test`, `check`, `fix`.
//!
//! `quickstart` and `test` install what they need from the distribution (Debian's apt), or say what
//! is missing where they may not.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

mod installing;
mod packages;
mod tests;

const USAGE: &str = "\
usage: cargo xtask COMMAND
  quickstart [ARGS…]  install what a mount needs, build, and run `ozone quickstart ARGS…`
  install [--prefix DIR] [--destdir DIR]
                      build and install: program, mount helpers, units, settings, manual
  uninstall [--prefix DIR] [--destdir DIR]
                      remove what `install` put there, but for settings that were changed
  deb                 build the Debian package, target/debian/ozone-fs_VERSION_ARCH.deb
                      (these three: --binary FILE for a program that was built already)
  test [--long]       install what the tests need, build, and run all of them
  check               the gate: format, clippy, no test
  fix                 format and apply clippy's suggestions
";

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let outcome = match args.first().map(String::as_str) {
        Some("quickstart") => quickstart(rest),
        Some("install") => installing::install(rest),
        Some("uninstall") => installing::uninstall(rest),
        Some("deb") => installing::deb(rest),
        Some("test") => tests::run_all(rest),
        Some("check") => check(),
        Some("fix") => fix(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
}

fn quickstart(args: &[String]) -> Outcome {
    packages::need(packages::MOUNT)?;
    let err = Command::new(build()?).arg("quickstart").args(args).exec();
    Err(format!("cannot run the ozone binary: {err}"))
}

/// Builds the program; answers where it is.
fn build() -> Result<PathBuf, String> {
    run(cargo().args(["build", "--release", "--locked", "--package", "ozone"]))?;
    Ok(target().join("release/ozone"))
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}

fn check() -> Outcome {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn fix() -> Outcome {
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
    ]))?;
    run(cargo().args(["fmt", "--all"]))
}
