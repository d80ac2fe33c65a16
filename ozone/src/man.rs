//! `ozone man-pages`: the manual, made of the help texts. For installing, so `--help` hides it.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use crate::{Failure, Outcome};

/// What an administrator runs, with its subcommands; all else is in section 1.
const SECTION_8: [&str; 5] = ["metad", "containerd", "blockd", "mount", "admin"];

#[derive(Args)]
pub struct ManArgs {
    /// The folder to write them to; made if it is missing.
    dir: PathBuf,
}

/// Writes `ozone.1`, `ozone-metad.8`, … for `command` and all that is below it.
pub fn run(args: &ManArgs, command: Command) -> Outcome {
    write(command, &args.dir)
        .map_err(|err| Failure::new(1, format!("{}: {err}", args.dir.display())))
}

fn write(command: Command, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    for below in visible(&command) {
        let section = if SECTION_8.contains(&below.get_name()) { "8" } else { "1" };
        write_all(below, section, dir)?;
    }
    let mut page = Vec::new();
    let man = Man::new(command);
    man.render(&mut page)?;
    let mut page = String::from_utf8(page).map_err(io::Error::other)?;
    // clap takes all subcommands to be in their command's section.
    for name in SECTION_8 {
        page = page.replace(&format!("ozone\\-{name}(1)"), &format!("ozone\\-{name}(8)"));
    }
    std::fs::write(dir.join(man.get_filename()), page)
}

fn write_all(command: &Command, section: &str, dir: &Path) -> io::Result<()> {
    Man::new(command.clone()).section(section).generate_to(dir)?;
    visible(command).try_for_each(|below| write_all(below, section, dir))
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use clap::CommandFactory;
    use ozone_fuse_client::helper::USAGE;
    use ozone_fuse_client::options::Options;

    use super::*;
    use crate::Cli;

    #[test]
    fn each_command_has_its_page() {
        let dir = tempfile::tempdir().unwrap();
        write(Cli::command(), dir.path()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let all = read("ozone.1");
        for name in SECTION_8 {
            assert!(all.contains(&format!("ozone\\-{name}(8)")), "{name} in {all}");
            assert!(!all.contains(&format!("ozone\\-{name}(1)")), "{name} in {all}");
            assert!(read(&format!("ozone-{name}.8")).contains(&format!("ozone {name}")), "{name}");
        }
        assert!(!all.contains("man-pages") && !all.contains("man\\-pages"), "{all}");
        assert!(read("ozone-metad.8").contains("\\-\\-lease\\-ms"));
        assert!(read("ozone-sh-bucket-create.1").contains("\\-\\-space\\-quota"));
        assert!(read("ozone-admin-session-evict.8").contains("evict"));
    }

    /// The page of the mount helper is written by hand, since its options are not clap's.
    #[test]
    fn the_helpers_page_has_its_options_and_no_other() {
        let page =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/files/man/mount.fuse.ozone.8");
        let page = fs::read_to_string(page).unwrap();
        let headers = page.lines().filter(|line| line.starts_with("\\fB"));
        let bold = headers.flat_map(|line| line.split("\\fB").skip(1));
        let described: BTreeSet<&str> = bold.map(|text| text.split_once('\\').unwrap().0).collect();
        for option in &described {
            let value = match *option {
                "metad=" => "host1",
                "memory=" => "1G",
                "connect_timeout=" | "readers=" | "bucket_idle=" => "5",
                "log=" | "config=" => "/tmp/file",
                "log_level=" => "info",
                _ => "",
            };
            assert!(Options::parse(&format!("{option}{value}"), false).is_ok(), "{option}");
        }
        let (_, usage) = USAGE.split_once("options besides").unwrap();
        let mut told = 0;
        for line in usage.lines().skip(1).flat_map(|line| line.split(", ")) {
            let Some(name) = line.split_whitespace().next() else { continue };
            let name = name.split_inclusive('=').next().unwrap();
            if name.ends_with('=') || name == "allow_other" {
                assert!(described.contains(name), "{name}");
                told += 1;
            }
        }
        assert_eq!(told, 9, "of {usage}");
    }
}
