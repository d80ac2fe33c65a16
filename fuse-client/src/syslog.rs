//! Log lines to the machine's syslog, for a process without a terminal.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The facility `daemon`.
const DAEMON: u8 = 3 << 3;
const SOCKET: &str = "/dev/log";

/// Where there is no syslog, lines are dropped: there is nowhere else to say so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syslog;

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line::new(&Level::INFO)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line::new(metadata.level())
    }
}

/// One line, sent when it is dropped.
pub(crate) struct Line(Vec<u8>);

impl Line {
    fn new(level: &Level) -> Line {
        let severity = match *level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let head = format!("<{}>ozone-mount[{}]: ", DAEMON | severity, std::process::id());
        Line(head.into_bytes())
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = self.0.trim_ascii_end();
        // Log lines are rare enough for a socket each, which survives a restart of syslog.
        if let Ok(socket) = UnixDatagram::unbound()
            && socket.set_nonblocking(true).is_ok()
        {
            let _ = socket.send_to(line, SOCKET);
        }
    }
}
