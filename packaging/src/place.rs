//! Putting the files in place, and taking them away.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::{Content, Entry, Error, Result, Tree, at};

/// What [`install`] did that the user wants to know.
#[derive(Debug, Default)]
pub struct Installed {
    /// Settings that were there already, and differ: the new text is beside them, as `.new`.
    pub kept: Vec<PathBuf>,
}

/// Puts everything below `destdir` (`/`: the machine itself). A program that is running is replaced,
/// not overwritten.
pub fn install(tree: &Tree, destdir: &Path) -> Result<Installed> {
    let mut installed = Installed::default();
    for entry in &tree.entries {
        let path = below(destdir, &entry.path);
        if entry.settings && path.exists() {
            let new = with_suffix(&path, ".new");
            if same(entry, &path)? {
                remove(&new)?;
            } else {
                put(entry, &new)?;
                installed.kept.push(path);
            }
        } else {
            put(entry, &path)?;
        }
    }
    Ok(installed)
}

/// Removes what [`install`] has put there, but for settings that were changed. Folders stay.
pub fn uninstall(tree: &Tree, destdir: &Path) -> Result<()> {
    for entry in &tree.entries {
        let path = below(destdir, &entry.path);
        if entry.settings {
            remove(&with_suffix(&path, ".new"))?;
            if !path.exists() || !same(entry, &path)? {
                continue;
            }
        }
        remove(&path)?;
    }
    Ok(())
}

pub(crate) fn below(destdir: &Path, path: &Path) -> PathBuf {
    destdir.join(path.strip_prefix("/").unwrap_or(path))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether the file has the entry's text.
fn same(entry: &Entry, path: &Path) -> Result<bool> {
    let found = fs::read(path).map_err(at(path))?;
    Ok(matches!(&entry.content, Content::Text(text) if text.as_bytes() == found))
}

/// Under another name first: whoever starts the program meanwhile finds the old one or the new one.
fn put(entry: &Entry, path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(at(dir))?;
    let temporary = with_suffix(path, ".installing");
    remove(&temporary)?;
    match &entry.content {
        Content::Copy(from) => {
            fs::copy(from, &temporary).map_err(|err| {
                Error(format!("cannot copy {} to {}: {err}", from.display(), temporary.display()))
            })?;
        }
        Content::Text(text) => fs::write(&temporary, text).map_err(at(&temporary))?,
        Content::Link(target) => symlink(target, &temporary).map_err(at(&temporary))?,
    }
    if !matches!(entry.content, Content::Link(_)) {
        let mode = fs::Permissions::from_mode(entry.mode);
        fs::set_permissions(&temporary, mode).map_err(at(&temporary))?;
    }
    fs::rename(&temporary, path).map_err(at(path))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(at(path)(err)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    // A test ends by panicking.
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tree(settings: &str) -> Tree {
        let entry = |path: &str, content| Entry::new(path.into(), content);
        let text = |text: &str| Content::Text(text.to_owned());
        let program = Entry { mode: 0o755, ..entry("/usr/bin/ozone", text("program")) };
        let link = entry("/usr/sbin/helper", Content::Link("../bin/ozone".into()));
        let toml = Entry { settings: true, ..entry("/etc/ozone/x.toml", text(settings)) };
        Tree { entries: vec![program, link, toml], binary: PathBuf::new() }
    }

    #[test]
    fn settings_are_the_administrators() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        assert!(install(&tree("one"), dir.path()).unwrap().kept.is_empty());
        assert!(install(&tree("one"), dir.path()).unwrap().kept.is_empty(), "twice is once");
        assert_eq!(read("usr/sbin/helper").unwrap(), "program");
        let mode = fs::metadata(dir.path().join("usr/bin/ozone")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);

        let toml = dir.path().join("etc/ozone/x.toml");
        fs::write(&toml, "mine").unwrap();
        assert_eq!(install(&tree("two"), dir.path()).unwrap().kept, [toml]);
        assert_eq!(read("etc/ozone/x.toml").unwrap(), "mine");
        assert_eq!(read("etc/ozone/x.toml.new").unwrap(), "two");

        uninstall(&tree("two"), dir.path()).unwrap();
        assert_eq!(read("etc/ozone/x.toml").unwrap(), "mine");
        for gone in ["etc/ozone/x.toml.new", "usr/sbin/helper", "usr/bin/ozone"] {
            assert!(fs::symlink_metadata(dir.path().join(gone)).is_err(), "{gone}");
        }
        uninstall(&tree("mine"), dir.path()).unwrap();
        assert_eq!(read("etc/ozone/x.toml"), None, "unchanged ones go too");
    }
}
