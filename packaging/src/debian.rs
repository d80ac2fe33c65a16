//! A Debian package of the tree, by dpkg-deb.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Content, Entry, Error, PACKAGE, Result, Scratch, Tree, VERSION, at, error, output};
use crate::{place, read};

/// How small the package gets, against how long that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Small,
    Quick,
}

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Packs a tree of [`crate::Layout::package`] into `out`; answers the package's path. Needs dpkg-deb,
/// gzip and strip.
pub fn deb(mut tree: Tree, root: &Path, out: &Path, compression: Compression) -> Result<PathBuf> {
    let files = root.join("packaging/files/debian");
    let scratch = Scratch::new()?;
    // mktemp's folder is its owner's alone; the package's root is everybody's.
    let stage = scratch.0.join("root");
    fs::create_dir(&stage).map_err(at(&stage))?;
    strip(&mut tree, &scratch.0)?;
    let doc = Path::new("/usr/share/doc").join(PACKAGE);
    for (name, file) in
        [("changelog", root.join("CHANGELOG.md")), ("copyright", files.join("copyright"))]
    {
        tree.entries.push(Entry::new(doc.join(name), Content::Text(read(&file)?)));
    }
    place::install(&tree, &stage)?;
    compress(&tree, &stage)?;
    write_control(&tree, &stage, &files)?;
    open_folders(&stage)?;

    fs::create_dir_all(out).map_err(at(out))?;
    let package = out.join(format!("{PACKAGE}_{VERSION}_{}.deb", architecture()?));
    let mut command = Command::new("dpkg-deb");
    if compression == Compression::Quick {
        command.args(["-Zgzip", "-z1"]);
    }
    output(command.args(["--root-owner-group", "--build"]).arg(&stage).arg(&package))?;
    Ok(package)
}

/// The program without what only a debugger reads: a sixth of the size. Names of functions stay, for
/// backtraces.
fn strip(tree: &mut Tree, scratch: &Path) -> Result<()> {
    let stripped = scratch.join("ozone");
    output(Command::new("strip").args(["--strip-debug", "-o"]).arg(&stripped).arg(&tree.binary))?;
    let original = std::mem::replace(&mut tree.binary, stripped.clone());
    for entry in &mut tree.entries {
        match &mut entry.content {
            Content::Copy(from) if *from == original => *from = stripped.clone(),
            _ => {}
        }
    }
    Ok(())
}

/// Pages of the manual and the changelog are compressed in a package.
fn compress(tree: &Tree, stage: &Path) -> Result<()> {
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "-n"]);
    for entry in &tree.entries {
        let page = entry.path.starts_with("/usr/share/man");
        if page || entry.path.ends_with(format!("doc/{PACKAGE}/changelog")) {
            gzip.arg(place::below(stage, &entry.path));
        }
    }
    output(&mut gzip).map(drop)
}

fn write_control(tree: &Tree, stage: &Path, files: &Path) -> Result<()> {
    let dir = stage.join("DEBIAN");
    fs::create_dir(&dir).map_err(at(&dir))?;
    let write = |name: &str, text: String, mode: u32| {
        let path = dir.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(at(&path))
    };
    let size = output(Command::new("du").args(["-sk", "--apparent-size"]).arg(stage))?;
    let size = size.split_whitespace().next().unwrap_or("0");
    let control = read(&files.join("control"))?
        .replace("@VERSION@", VERSION)
        .replace("@ARCH@", &architecture()?)
        .replace("@GLIBC@", &oldest_glibc(&tree.binary)?)
        .replace("@SIZE@", size);
    write("control", control, 0o644)?;
    let settings = tree.entries.iter().filter(|entry| entry.settings);
    let settings: String = settings.map(|entry| format!("{}\n", entry.path.display())).collect();
    write("conffiles", settings, 0o644)?;
    for script in SCRIPTS {
        write(script, read(&files.join(script))?, 0o755)?;
    }
    // For `dpkg --verify`.
    let sums = output(Command::new("find").current_dir(stage).args([
        "-type",
        "f",
        "-not",
        "-path",
        "./DEBIAN/*",
        "-printf",
        "%P\\0",
    ]))?;
    let mut paths: Vec<&str> = sums.split_terminator('\0').collect();
    paths.sort_unstable();
    let sums = output(Command::new("md5sum").current_dir(stage).arg("--").args(paths))?;
    write("md5sums", sums, 0o644)
}

/// Folders are made with the umask of whoever builds.
fn open_folders(stage: &Path) -> Result<()> {
    output(Command::new("find").arg(stage).args(["-type", "d", "-exec", "chmod", "755", "{}", "+"]))
        .map(drop)
}

fn architecture() -> Result<String> {
    Ok(output(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned())
}

/// The oldest C library that has all the symbols the program wants.
fn oldest_glibc(binary: &Path) -> Result<String> {
    let bytes = fs::read(binary).map_err(at(binary))?;
    let newest = versions(&bytes).max();
    let (major, minor) =
        newest.ok_or_else(|| Error(format!("{} needs no glibc?", binary.display())))?;
    match major {
        2 => Ok(format!("{major}.{minor}")),
        _ => error(format!("{} needs glibc {major}.{minor}?", binary.display())),
    }
}

/// The names of symbols' versions in an ELF file: `GLIBC_2.34`.
fn versions(bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    const NAME: &[u8] = b"\0GLIBC_";
    let starts = bytes.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    starts.filter_map(|(start, _)| {
        let rest = &bytes[start + NAME.len()..];
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (major, minor) = std::str::from_utf8(&rest[..end]).ok()?.split_once('.')?;
        // The likes of 2.2.5 are older than any that counts.
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts() {
        let names = b"x\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0\0GLIBC_".as_slice();
        assert_eq!(versions(names).collect::<Vec<_>>(), [(2, 34), (2, 9)]);
    }
}
