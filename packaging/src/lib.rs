//! What an installation of Ozone FS is made of: files and links, once as a list, put in place by
//! [`install`] or into a Debian package by [`deb`]. No dependencies: `cargo xtask` is built with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod debian;
mod place;

pub use debian::{Compression, deb};
pub use place::{install, uninstall};

/// The version that is installed.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name of the Debian package and of its folder under share/doc.
pub const PACKAGE: &str = "ozone-fs";
/// The servers, which have a unit and a settings file each.
pub const DAEMONS: [&str; 3] = ["metad", "containerd", "blockd"];
/// mount(8)'s and umount(8)'s helpers, which are links to the program.
pub const HELPERS: [&str; 2] = ["mount.fuse.ozone", "umount.fuse.ozone"];

/// Why something could not be installed or packed; the text is for the user.
#[derive(Debug)]
pub struct Error(String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

fn error<T>(what: impl Into<String>) -> Result<T> {
    Err(Error(what.into()))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |err| Error(format!("{}: {err}", path.display()))
}

/// Which places are used.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `/usr` for a distribution's package, `/usr/local` by hand.
    prefix: PathBuf,
    /// Where mount(8) looks for its helpers, whatever the prefix.
    sbin: PathBuf,
}

impl Layout {
    /// A package's.
    pub fn package() -> Layout {
        Layout { prefix: "/usr".into(), sbin: "/usr/sbin".into() }
    }

    /// An administrator's: below an absolute `prefix`, with the helpers in /sbin, or in what that is a
    /// link to on this machine (a folder named sbin in a destdir would replace the link).
    pub fn local(prefix: &Path) -> Result<Layout> {
        if !prefix.is_absolute() {
            return error(format!("the prefix {} is no absolute path", prefix.display()));
        }
        let sbin = fs::canonicalize("/sbin").unwrap_or_else(|_| "/sbin".into());
        Ok(Layout { prefix: prefix.to_owned(), sbin })
    }

    fn bin(&self) -> PathBuf {
        self.prefix.join("bin")
    }

    fn share(&self, below: &str) -> PathBuf {
        self.prefix.join("share").join(below)
    }

    fn doc(&self) -> PathBuf {
        self.share("doc").join(PACKAGE)
    }

    /// Whether it is the distribution's own place.
    fn is_package(&self) -> bool {
        self.prefix == Path::new("/usr")
    }
}

/// What stands at a place.
#[derive(Clone, Debug)]
enum Content {
    Copy(PathBuf),
    Text(String),
    Link(PathBuf),
}

/// One file or link of an installation.
#[derive(Clone, Debug)]
struct Entry {
    /// Absolute, before any destdir.
    path: PathBuf,
    content: Content,
    mode: u32,
    /// The administrator's once it is there: never replaced, never removed.
    settings: bool,
}

impl Entry {
    fn new(path: PathBuf, content: Content) -> Entry {
        Entry { path, content, mode: 0o644, settings: false }
    }
}

/// Everything that belongs to an installation.
#[derive(Debug)]
pub struct Tree {
    entries: Vec<Entry>,
    /// The program, which other programs ask about.
    binary: PathBuf,
}

impl Tree {
    /// Of the program `binary`, which is asked for its manual and completions, and the sources in the
    /// workspace at `root`. Errors: a file is missing, or the program does not run.
    pub fn new(layout: &Layout, root: &Path, binary: &Path) -> Result<Tree> {
        let mut tree = Tree { entries: Vec::new(), binary: binary.to_owned() };
        let files = root.join("packaging/files");
        tree.add_programs(layout);
        tree.add_units(layout, &files)?;
        tree.add_settings(&files)?;
        tree.add_manual(layout, &files)?;
        tree.add_completions(layout)?;
        tree.add_documents(layout, root)?;
        Ok(tree)
    }

    fn add(&mut self, path: PathBuf, content: Content) {
        self.entries.push(Entry::new(path, content));
    }

    fn add_programs(&mut self, layout: &Layout) {
        let program = layout.bin().join("ozone");
        let copy = Content::Copy(self.binary.clone());
        self.entries.push(Entry { mode: 0o755, ..Entry::new(program.clone(), copy) });
        // Links within /usr are relative, as Debian has it.
        let target = if layout.is_package() { "../bin/ozone".into() } else { program };
        for helper in HELPERS {
            self.add(layout.sbin.join(helper), Content::Link(target.clone()));
        }
    }

    fn add_units(&mut self, layout: &Layout, files: &Path) -> Result<()> {
        let filled = |file: PathBuf| -> Result<Content> {
            let (bin, doc) = (layout.bin().display().to_string(), layout.doc());
            let text = read(&file)?.replace("@BIN@", &bin);
            Ok(Content::Text(text.replace("@DOC@", &doc.display().to_string())))
        };
        for daemon in DAEMONS {
            let name = format!("ozone-{daemon}.service");
            let unit = filled(files.join("systemd").join(&name))?;
            self.add(layout.prefix.join("lib/systemd/system").join(name), unit);
        }
        let user = layout.prefix.join("lib/sysusers.d/ozone-fs.conf");
        self.add(user, Content::Text(read(&files.join("ozone.sysusers"))?));
        let preset = layout.prefix.join("lib/systemd/system-preset/50-ozone-fs.preset");
        self.add(preset, Content::Text(read(&files.join("ozone.preset"))?));
        let mount = filled(files.join("mnt-ozone.mount"))?;
        self.add(layout.doc().join("examples/mnt-ozone.mount"), mount);
        Ok(())
    }

    fn add_settings(&mut self, files: &Path) -> Result<()> {
        for name in ["ozone", "metad", "containerd", "blockd"].map(|name| format!("{name}.toml")) {
            let text = Content::Text(read(&files.join("etc").join(&name))?);
            let path = Path::new("/etc/ozone").join(name);
            self.entries.push(Entry { settings: true, ..Entry::new(path, text) });
        }
        Ok(())
    }

    fn add_manual(&mut self, layout: &Layout, files: &Path) -> Result<()> {
        let mut pages = Vec::new();
        for helper in HELPERS.map(|name| format!("{name}.8")) {
            let text = read(&files.join("man").join(&helper))?;
            pages.push((helper, text.replace("@VERSION@", VERSION)));
        }
        let dir = Scratch::new()?;
        output(Command::new(&self.binary).arg("man-pages").arg(&dir.0))?;
        for file in fs::read_dir(&dir.0).map_err(at(&dir.0))? {
            let file = file.map_err(at(&dir.0))?;
            pages.push((file.file_name().to_string_lossy().into_owned(), read(&file.path())?));
        }
        pages.sort();
        for (name, text) in pages {
            let section = name.chars().next_back().unwrap_or('1');
            self.add(layout.share(&format!("man/man{section}")).join(name), Content::Text(text));
        }
        Ok(())
    }

    fn add_completions(&mut self, layout: &Layout) -> Result<()> {
        // Distributions' packages have folders of their own for zsh and fish.
        let (zsh, fish) = match layout.is_package() {
            true => ("zsh/vendor-completions/_ozone", "fish/vendor_completions.d/ozone.fish"),
            false => ("zsh/site-functions/_ozone", "fish/vendor_completions.d/ozone.fish"),
        };
        let bash = "bash-completion/completions/ozone";
        for (shell, path) in [("bash", bash), ("zsh", zsh), ("fish", fish)] {
            let script = output(Command::new(&self.binary).args(["completion", shell]))?;
            self.add(layout.share(path), Content::Text(script));
        }
        Ok(())
    }

    fn add_documents(&mut self, layout: &Layout, root: &Path) -> Result<()> {
        for name in ["README.md", "docs/OPERATIONS.md", "docs/METRICS.md", "docs/SEMANTICS.md"] {
            let text = Content::Text(read(&root.join(name))?);
            self.add(layout.doc().join(name.trim_start_matches("docs/")), text);
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(at(path))
}

/// What a program prints. Errors: it cannot be run, or fails.
fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|err| Error(format!("cannot run {command:?}: {err}")))?;
    if !output.status.success() {
        return error(format!("{command:?} failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|err| Error(format!("{command:?}: {err}")))
}

/// A folder that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    /// Made by mktemp(1), so that nobody else has made it before.
    fn new() -> Result<Scratch> {
        let path =
            output(Command::new("mktemp").args(["--directory", "--tmpdir", "ozone-XXXXXX"]))?;
        Ok(Scratch(PathBuf::from(path.trim_end())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
