//! `cargo xtask install`, `uninstall` and `deb`: what the program is asked to be, and where.

use std::path::{Path, PathBuf};

use ozone_packaging::{Compression, Layout, Tree};

use crate::{Outcome, build, packages, root, target};

const DEFAULT_PREFIX: &str = "/usr/local";

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    prefix: PathBuf,
    destdir: PathBuf,
    /// A program that was built already.
    binary: Option<PathBuf>,
}

impl Places {
    fn parse(command: &str, args: &[String]) -> Result<Places, String> {
        let mut places =
            Places { prefix: DEFAULT_PREFIX.into(), destdir: "/".into(), binary: None };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (option, value) = match arg.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (arg.as_str(), args.next().cloned()),
            };
            let value = value.map(PathBuf::from);
            let value = value.ok_or_else(|| format!("cargo xtask {command}: {option} of what?"));
            match option {
                "--prefix" => places.prefix = value?,
                "--destdir" => places.destdir = value?,
                "--binary" => places.binary = Some(value?),
                _ => return Err(format!("cargo xtask {command}: unknown option '{arg}'")),
            }
        }
        Ok(places)
    }

    fn tree(&self) -> Result<Tree, String> {
        let binary = self.binary.clone().map_or_else(build, Ok)?;
        let layout = Layout::local(&self.prefix).map_err(|err| err.to_string())?;
        Tree::new(&layout, &root(), &binary).map_err(|err| err.to_string())
    }
}

pub fn install(args: &[String]) -> Outcome {
    let places = Places::parse("install", args)?;
    let installed = ozone_packaging::install(&places.tree()?, &places.destdir)
        .map_err(|err| err.to_string())?;
    for path in installed.kept {
        println!("{} is kept; the new one is {0}.new", path.display());
    }
    println!("installed. The servers run as a user of their own, which `systemd-sysusers` makes;");
    println!("`systemctl daemon-reload` shows systemd the units. docs/OPERATIONS.md goes on.");
    Ok(())
}

pub fn uninstall(args: &[String]) -> Outcome {
    let mut places = Places::parse("uninstall", args)?;
    // The installed program knows best which pages came with it; and nothing has to be built.
    if places.binary.is_none() {
        let program = places.prefix.join("bin/ozone");
        let installed = places.destdir.join(program.strip_prefix("/").unwrap_or(&program));
        places.binary = Some(installed).filter(|path| path.exists());
    }
    ozone_packaging::uninstall(&places.tree()?, &places.destdir).map_err(|err| err.to_string())
}

/// `--binary` packs a program that was built already.
pub fn deb(args: &[String]) -> Outcome {
    let places = Places::parse("deb", args)?;
    if places.prefix != Path::new(DEFAULT_PREFIX) || places.destdir != Path::new("/") {
        return Err("cargo xtask deb: a package has its own places".to_owned());
    }
    packages::need(packages::DEB)?;
    let binary = places.binary.map_or_else(build, Ok)?;
    let package = Tree::new(&Layout::package(), &root(), &binary).and_then(|tree| {
        ozone_packaging::deb(tree, &root(), &target().join("debian"), Compression::Small)
    });
    println!("{}", package.map_err(|err| err.to_string())?.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let parse = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Places::parse("install", &args)
        };
        let default = Places { prefix: "/usr/local".into(), destdir: "/".into(), binary: None };
        assert_eq!(parse(""), Ok(default));
        let given = Places {
            prefix: "/opt/ozone".into(),
            destdir: "/tmp/x".into(),
            binary: Some("b".into()),
        };
        assert_eq!(parse("--prefix /opt/ozone --destdir=/tmp/x --binary b"), Ok(given));
        for wrong in ["--prefix", "here", "--pre /usr"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
