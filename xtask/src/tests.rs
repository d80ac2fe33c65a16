//! `cargo xtask test`: everything, once, with the counts at the end.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use crate::{Outcome, cargo, packages, root, run};

/// The profile that tests are built with: optimised, with the checks of a debug build, so that one
/// build serves the unit tests and the mounts that move gigabytes.
const PROFILE: &str = "checked";
/// Programs that the tests run, built beside our own: their crates, and the variables that say where
/// they are.
const TOOLS: [(&str, &str, &str); 2] =
    [("fsx", "0.3.2", "OZONE_TEST_FSX"), ("pjdfstest", "0.2.2", "OZONE_TEST_PJDFSTEST")];

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// `--long` sets OZONE_TEST_LONG, which the long tests look at.
pub fn run_all(args: &[String]) -> Outcome {
    let long = args.iter().any(|a| a == "--long");
    if let Some(odd) = args.iter().find(|a| *a != "--long") {
        return Err(format!("cargo xtask test: unknown option '{odd}'"));
    }
    packages::need(packages::TESTS)?;
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--profile", PROFILE, "--no-fail-fast"])
        .stdout(Stdio::piped());
    for (name, version, variable) in TOOLS {
        command.env(variable, install(name, version)?);
    }
    if long {
        command.env("OZONE_TEST_LONG", "1");
    }
    let mut child = command.spawn().map_err(|e| format!("cargo test: {e}"))?;
    let mut counts = Counts::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            println!("{line}");
            count(&line, &mut counts);
        }
    }
    let status = child.wait().map_err(|e| format!("cargo test: {e}"))?;
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    if status.success() && counts.failed == 0 && counts.passed > 0 {
        Ok(())
    } else {
        Err(format!("tests failed ({status})"))
    }
}

/// Where the program of a crate is, which is built if it is not there or is another version.
fn install(name: &str, version: &str) -> Result<PathBuf, String> {
    let tools = root().join("target/tools").join(format!("{name}-{version}"));
    let program = tools.join("bin").join(name);
    if !program.exists() {
        let spec = format!("{name}@{version}");
        crate::run(cargo().args(["install", &spec, "--locked", "--quiet", "--root"]).arg(&tools))
            .or_else(|_| run(cargo().args(["install", &spec, "--quiet", "--root"]).arg(&tools)))?;
    }
    Ok(program)
}

/// Adds up a line such as `test result: ok. 4 passed; 0 failed; 1 ignored; …`.
fn count(line: &str, counts: &mut Counts) {
    let Some(result) = line.strip_prefix("test result: ") else { return };
    for part in result.split([';', '.']) {
        let mut words = part.split_whitespace();
        let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match what {
            "passed" => counts.passed += number,
            "failed" => counts.failed += number,
            "ignored" => counts.ignored += number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn counts_are_added_up() {
        let mut counts = Counts::default();
        let line = "test result: ok. 4 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        count(line, &mut counts);
        count(line, &mut counts);
        count("test foo ... ok", &mut counts);
        assert_eq!((counts.passed, counts.failed, counts.ignored), (8, 2, 4));
    }
}
