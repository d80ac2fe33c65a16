//! A cluster of processes in a temporary directory, and mounts of it. Everything that was started
//! is stopped by its own id when the value is dropped, also after a failed test.

pub mod http;
pub mod process;
pub mod sides;
pub mod tree;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use process::Process;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; a wait that long is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn ozone() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ozone"))
}

/// Whether there is time for everything (`cargo xtask test --long`).
pub fn long() -> bool {
    std::env::var_os("OZONE_TEST_LONG").is_some()
}

/// Waits until `done` answers something, looking often.
pub fn await_some<T>(what: &str, done: impl FnMut() -> Option<T>) -> T {
    await_within(PATIENCE, what, done)
}

/// The same, for what may take another time than usual.
pub fn await_within<T>(patience: Duration, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < end, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a program that must succeed; answers its output.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A shell script that must succeed, run in `dir` with `set -e`; answers its standard output.
#[track_caller]
pub fn shell(dir: &Path, script: &str) -> String {
    let output =
        run(Command::new("bash").current_dir(dir).args(["-euo", "pipefail", "-c", script]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Metad,
    Containerd,
    Blockd(usize),
}

/// What a test may want to be different.
#[derive(Clone)]
pub struct Settings {
    pub blockds: usize,
    pub lease_ms: u64,
    pub dead_after_ms: u64,
    /// More lines for every blockd's TOML file.
    pub blockd_toml: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { blockds: 3, lease_ms: 6000, dead_after_ms: 8000, blockd_toml: String::new() }
    }
}

/// One metad, one containerd, some blockds, and `/vol1/bucket1`.
pub struct Cluster {
    pub dir: TempDir,
    pub settings: Settings,
    metad: Option<Process>,
    containerd: Option<Process>,
    blockds: Vec<Option<Process>>,
    ports: Ports,
}

struct Ports {
    metad: [u16; 3],
    containerd: [u16; 3],
    blockds: Vec<[u16; 2]>,
}

/// Ports that are free now, and that nothing else will take: below the range that the kernel gives
/// to outgoing connections, each handed out once by this process, and begun at a place of its own.
fn free_ports<const N: usize>() -> [u16; N] {
    const RANGE: std::ops::Range<u32> = 20_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(97);
    let next = || loop {
        let n = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (RANGE.start + n % (RANGE.end - RANGE.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    };
    std::array::from_fn(|_| next())
}

impl Cluster {
    pub fn start() -> Self {
        Cluster::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let ports = Ports {
            metad: free_ports(),
            containerd: free_ports(),
            blockds: (0..settings.blockds).map(|_| free_ports()).collect(),
        };
        let blockds = (0..settings.blockds).map(|_| None).collect();
        let dir = tempfile::Builder::new().prefix("ozone-e2e-").tempdir().expect("temp dir");
        let mut cluster = Cluster { dir, settings, metad: None, containerd: None, blockds, ports };
        // In an order that makes the first ones wait for the last.
        for n in 0..cluster.settings.blockds {
            cluster.launch(Role::Blockd(n));
        }
        cluster.launch(Role::Metad);
        cluster.launch(Role::Containerd);
        cluster.await_healthy();
        run(cluster.ozone().args(["sh", "volume", "create", "/vol1"]));
        run(cluster.ozone().args(["sh", "bucket", "create", "/vol1/bucket1"]));
        cluster
    }

    /// `ozone` with this cluster's addresses.
    pub fn ozone(&self) -> Command {
        let mut command = ozone();
        command.env("OZONE_METAD", self.metad_address());
        command.env("OZONE_CONTAINERD", self.containerd_address());
        command
    }

    pub fn metad_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.metad[0])
    }

    pub fn containerd_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.containerd[0])
    }

    pub fn source(&self) -> String {
        format!("{}:/vol1/bucket1", self.metad_address())
    }

    pub fn data_dir(&self, role: Role) -> PathBuf {
        self.dir.path().join(name(role))
    }

    pub fn http_port(&self, role: Role) -> u16 {
        match role {
            Role::Metad => self.ports.metad[1],
            Role::Containerd => self.ports.containerd[1],
            Role::Blockd(n) => self.ports.blockds[n][1],
        }
    }

    pub fn http(&self, role: Role, path: &str) -> Option<(u16, String)> {
        http::get(self.http_port(role), path)
    }

    /// The command line of a daemon.
    pub fn command(&self, role: Role) -> Command {
        self.command_of(role, &self.containerd_address())
    }

    /// The same, with another cluster's containerd.
    pub fn command_of(&self, role: Role, containerd: &str) -> Command {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let mut c = ozone();
        let data = self.data_dir(role);
        match role {
            Role::Metad => {
                let [rpc, http, raft] = self.ports.metad;
                c.arg("metad").args(["--listen", &at(rpc), "--http-listen", &at(http)]);
                c.args(["--raft-listen", &at(raft), "--containerd", containerd]);
                c.args(["--lease-ms", &self.settings.lease_ms.to_string()]);
            }
            Role::Containerd => {
                let [rpc, http, raft] = self.ports.containerd;
                let toml = self.dir.path().join("containerd.toml");
                let stale = self.settings.dead_after_ms / 2;
                fs::write(&toml, format!("heartbeat_ms = 500\nstale_after_ms = {stale}\n"))
                    .expect("write settings");
                c.arg("containerd").args(["--listen", &at(rpc), "--http-listen", &at(http)]);
                c.args(["--raft-listen", &at(raft)]).arg("--config").arg(toml);
                c.args(["--dead-after-ms", &self.settings.dead_after_ms.to_string()]);
            }
            Role::Blockd(n) => {
                let [rpc, http] = self.ports.blockds[n];
                let toml = self.dir.path().join("blockd.toml");
                fs::write(&toml, &self.settings.blockd_toml).expect("write settings");
                c.arg("blockd").args(["--listen", &at(rpc), "--http-listen", &at(http)]);
                c.args(["--containerd", containerd]).arg("--config").arg(toml);
            }
        }
        c.arg("--data-dir").arg(data);
        c
    }

    /// Starts a daemon without waiting for it.
    pub fn launch(&mut self, role: Role) {
        let log = self.dir.path().join(format!("{}.log", name(role)));
        let process = Process::spawn(&mut self.command(role), &log);
        *self.slot(role) = Some(process);
    }

    /// Starts a daemon and waits until it is well.
    pub fn restart(&mut self, role: Role) {
        self.launch(role);
        self.await_well(role);
    }

    fn slot(&mut self, role: Role) -> &mut Option<Process> {
        match role {
            Role::Metad => &mut self.metad,
            Role::Containerd => &mut self.containerd,
            Role::Blockd(n) => &mut self.blockds[n],
        }
    }

    pub fn process(&mut self, role: Role) -> &mut Process {
        self.slot(role).as_mut().unwrap_or_else(|| panic!("{role:?} is not running"))
    }

    /// `kill -9`.
    pub fn kill(&mut self, role: Role) {
        self.slot(role).take().expect("running").kill();
    }

    pub fn log(&self, role: Role) -> String {
        fs::read_to_string(self.dir.path().join(format!("{}.log", name(role)))).unwrap_or_default()
    }

    pub fn await_well(&self, role: Role) {
        await_some(&format!("{role:?} to be well\n{}", self.log(role)), || {
            self.http(role, "/healthz").filter(|(status, _)| *status == 200)
        });
    }

    /// All daemons well and all block servers registered.
    pub fn await_healthy(&self) {
        self.await_well(Role::Containerd);
        self.await_well(Role::Metad);
        for n in 0..self.settings.blockds {
            self.await_well(Role::Blockd(n));
        }
        let want = self.settings.blockds;
        await_some("all block servers to be healthy", || {
            (self.status().matches(" healthy ").count() == want).then_some(())
        });
        self.await_settled();
    }

    /// containerd knows enough to hand out blocks: it is out of safe mode.
    pub fn await_settled(&self) {
        await_some("the end of safe mode", || (!self.status().contains("safe mode")).then_some(()));
    }

    /// `ozone admin status` finds nothing wrong: all daemons' background work, too, has found the others.
    pub fn await_well_told(&self) {
        await_some("all to be well", || self.status().contains("all is well").then_some(()));
    }

    /// The screen of `ozone admin status`, whatever its exit status.
    pub fn status(&self) -> String {
        let output = self.ozone().args(["admin", "status"]).output().expect("ozone admin");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn mount(&self) -> Mount {
        self.mount_with("")
    }

    pub fn mount_with(&self, options: &str) -> Mount {
        Mount::new(&self.source(), options)
    }
}

fn name(role: Role) -> String {
    match role {
        Role::Metad => "metad".to_owned(),
        Role::Containerd => "containerd".to_owned(),
        Role::Blockd(n) => format!("blockd{n}"),
    }
}

/// A mount by `ozone mount` in the foreground.
pub struct Mount {
    dir: TempDir,
    process: Option<Process>,
    source: String,
    options: String,
}

impl Mount {
    pub fn new(source: &str, options: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ozone-mnt-").tempdir().expect("temp dir");
        let mut mount =
            Mount { dir, process: None, source: source.to_owned(), options: options.to_owned() };
        mount.up();
        mount
    }

    /// Mounts (again).
    pub fn up(&mut self) {
        let mut command = ozone();
        command.arg("mount").arg(&self.source).arg(self.path());
        if !self.options.is_empty() {
            command.args(["-o", &self.options]);
        }
        let log = self.log_path();
        self.process = Some(Process::spawn(&mut command, &log));
        await_some("the mount", || {
            let ended = self.process.as_mut().and_then(Process::ended);
            assert!(ended.is_none(), "mount ended: {ended:?}\n{}", self.log());
            is_mounted(self.path()).then_some(())
        });
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().with_extension("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("mounted")
    }

    /// umount(8), and the client has ended well: everything is on the servers.
    #[track_caller]
    pub fn down(&mut self) {
        run(Command::new("umount").arg(self.path()));
        let log = self.log_path();
        let status = self.process.take().expect("mounted").wait();
        let text = fs::read_to_string(log).unwrap_or_default();
        assert!(status.success(), "client ended with {status}\n{text}");
    }

    /// `kill -9` of the client, and the dead mount taken away.
    pub fn kill(&mut self) {
        self.process.take().expect("mounted").kill();
        lazy_umount(self.path());
    }

    #[track_caller]
    pub fn remount(&mut self) {
        self.down();
        self.up();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- client log ----\n{}", tail(&self.log()));
        }
        lazy_umount(self.path());
        drop(self.process.take());
        let _ = fs::remove_file(self.log_path());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut roles = vec![Role::Metad, Role::Containerd];
        roles.extend((0..self.settings.blockds).map(Role::Blockd));
        for role in roles {
            eprintln!("---- {role:?} ----\n{}", tail(&self.log(role)));
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

pub fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    mounts.lines().any(|l| l.split(' ').nth(1) == path.to_str())
}

/// The line of /proc/self/mounts for a mount point, split into its fields.
pub fn mount_line(path: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    let line = mounts.lines().find(|l| l.split(' ').nth(1) == path.to_str());
    line.expect("mounted").split(' ').map(str::to_owned).collect()
}

fn lazy_umount(path: &Path) {
    if is_mounted(path) {
        let _ = Command::new("umount").arg("-l").arg(path).output();
    }
}
