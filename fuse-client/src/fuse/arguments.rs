//! How the access log shows what was asked.

use std::fmt;

use ozone_client::TimeSet;

use crate::vfs::Changes;

/// A name: quoted, in one line, whatever bytes it has.
pub(super) struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

/// The attributes that setattr changes.
pub(super) struct Setting<'a>(pub &'a Changes);

impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes { mode, uid, gid, size, atime, mtime, ctime } = self.0;
        let mut parts = Vec::new();
        parts.extend(mode.map(|mode| format!("mode {mode:o}")));
        parts.extend(uid.map(|uid| format!("uid {uid}")));
        parts.extend(gid.map(|gid| format!("gid {gid}")));
        parts.extend(size.map(|size| format!("size {size}")));
        for (name, time) in [("atime", atime), ("mtime", mtime), ("ctime", ctime)] {
            parts.extend(time.map(|time| match time {
                TimeSet::Now => format!("{name} now"),
                TimeSet::At(at) => format!("{name} {}.{:09}", at.secs, at.nanos),
            }));
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use ozone_types::Timestamp;

    use super::*;

    #[test]
    fn one_line_for_everything() {
        assert_eq!(Shown(b"a \"b\"\n\xff").to_string(), r#""a \"b\"\n�""#);
        let at = Some(TimeSet::At(Timestamp::new(7, 5)));
        let changes = Changes {
            mode: Some(0o640),
            size: Some(9),
            atime: Some(TimeSet::Now),
            mtime: at,
            ..Changes::default()
        };
        let shown = Setting(&changes).to_string();
        assert_eq!(shown, "mode 640, size 9, atime now, mtime 7.000000005");
    }
}
