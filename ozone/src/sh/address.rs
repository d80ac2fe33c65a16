//! What commands are about: `/volume/bucket/key`, `volume/bucket`, `o3://host:port/volume/bucket`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;

use ozone_fuse_client::options::{METAD_PORT, UsageError, address};
use ozone_types::{BucketName, FsResult, VolumeName};

/// An address in parts, any of which may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    /// The metad to ask, if the address says so.
    metad: Vec<String>,
    volume: String,
    bucket: String,
    /// The rest, as it is written.
    key: Vec<u8>,
}

impl Parts {
    fn parse(text: &[u8]) -> Result<Parts, UsageError> {
        let wrong = |why: &str| {
            UsageError(format!("Invalid URI: {}. {why}", String::from_utf8_lossy(text)))
        };
        let (host, path) = match find(text, b"://") {
            Some(colon) if !text[..colon].contains(&b'/') => {
                if !text[..colon].eq_ignore_ascii_case(b"o3") {
                    return Err(wrong("Unknown protocol scheme: use o3:// as the scheme."));
                }
                let rest = &text[colon + 3..];
                rest.split_at(find(rest, b"/").unwrap_or(rest.len()))
            }
            Some(_) | None => (&[][..], text),
        };
        let host = std::str::from_utf8(host).map_err(|_| wrong("This is no host."))?;
        let hosts = host.split(',').filter(|host| !host.is_empty());
        let metad = hosts.map(|host| address(host, METAD_PORT)).collect::<Result<_, _>>()?;
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let mut parts = path.splitn(3, |&b| b == b'/');
        let mut name = || {
            let name = std::str::from_utf8(parts.next().unwrap_or_default());
            name.map(str::to_owned).map_err(|_| wrong("This is not UTF-8."))
        };
        let (volume, bucket) = (name()?, name()?);
        let key = parts.next().unwrap_or_default().to_vec();
        Ok(Parts { metad, volume, bucket, key })
    }

    fn need_volume(&self) -> Result<(), UsageError> {
        if self.volume.is_empty() {
            return Err(UsageError("Volume name is missing.".into()));
        }
        Ok(())
    }

    fn need_bucket(&self) -> Result<(), UsageError> {
        self.need_volume()?;
        if self.bucket.is_empty() {
            return Err(UsageError("Bucket name is missing.".into()));
        }
        Ok(())
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Nothing in particular: where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootAddress {
    pub metad: Vec<String>,
}

impl FromStr for RootAddress {
    type Err = UsageError;

    fn from_str(text: &str) -> Result<Self, UsageError> {
        let parts = Parts::parse(text.as_bytes())?;
        if !parts.volume.is_empty() {
            let why = "Invalid URI. Volume/bucket/key elements should not been used";
            return Err(UsageError(why.into()));
        }
        Ok(RootAddress { metad: parts.metad })
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeAddress {
    pub metad: Vec<String>,
    pub volume: String,
}

impl VolumeAddress {
    /// Errors: INVALID_VOLUME_NAME.
    pub fn check(&self) -> FsResult<()> {
        VolumeName::new(&self.volume).map(drop)
    }
}

impl FromStr for VolumeAddress {
    type Err = UsageError;

    fn from_str(text: &str) -> Result<Self, UsageError> {
        let parts = Parts::parse(text.as_bytes())?;
        parts.need_volume()?;
        if !parts.bucket.is_empty() || !parts.key.is_empty() {
            let why = "Invalid volume name. Delimiters (/) not allowed in volume name";
            return Err(UsageError(why.into()));
        }
        Ok(VolumeAddress { metad: parts.metad, volume: parts.volume })
    }
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketAddress {
    pub metad: Vec<String>,
    pub volume: String,
    pub bucket: String,
}

impl BucketAddress {
    /// Errors: INVALID_VOLUME_NAME, INVALID_BUCKET_NAME.
    pub fn check(&self) -> FsResult<()> {
        VolumeName::new(&self.volume)?;
        BucketName::new(&self.bucket).map(drop)
    }
}

impl FromStr for BucketAddress {
    type Err = UsageError;

    fn from_str(text: &str) -> Result<Self, UsageError> {
        let parts = Parts::parse(text.as_bytes())?;
        parts.need_bucket()?;
        if !parts.key.is_empty() {
            let why = "Invalid bucket name. Delimiters (/) not allowed in bucket name";
            return Err(UsageError(why.into()));
        }
        Ok(BucketAddress { metad: parts.metad, volume: parts.volume, bucket: parts.bucket })
    }
}

/// A volume, or a bucket of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    Volume(VolumeAddress),
    Bucket(BucketAddress),
}

impl FromStr for Container {
    type Err = UsageError;

    fn from_str(text: &str) -> Result<Self, UsageError> {
        match Parts::parse(text.as_bytes())?.bucket.is_empty() {
            true => text.parse().map(Container::Volume),
            false => text.parse().map(Container::Bucket),
        }
    }
}

/// A key, whose name may be any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAddress {
    pub bucket: BucketAddress,
    pub key: OsString,
}

impl KeyAddress {
    /// Errors: it names no key, or is no address.
    pub fn parse(text: OsString) -> Result<Self, UsageError> {
        let parts = Parts::parse(text.as_bytes())?;
        parts.need_bucket()?;
        if parts.key.is_empty() {
            return Err(UsageError("Key name is missing.".into()));
        }
        let Parts { metad, volume, bucket, key } = parts;
        let key = OsString::from_vec(key);
        Ok(KeyAddress { bucket: BucketAddress { metad, volume, bucket }, key })
    }
}

#[cfg(test)]
mod tests {
    use ozone_types::ErrorCode;

    use super::*;

    fn bucket(text: &str) -> Result<BucketAddress, UsageError> {
        text.parse()
    }

    #[test]
    fn addresses_of_volumes_and_buckets() {
        let volume: VolumeAddress = "o3://host/vol1/".parse().unwrap();
        assert_eq!(
            (&volume.volume[..], &volume.metad[..]),
            ("vol1", &["host:9862".to_owned()][..])
        );
        for text in ["/vol1/b-1", "vol1/b-1", "vol1/b-1/", "o3:///vol1/b-1", "O3:///vol1/b-1"] {
            let parsed = bucket(text).unwrap();
            assert_eq!((&parsed.volume[..], &parsed.bucket[..]), ("vol1", "b-1"), "{text}");
            assert!(parsed.metad.is_empty(), "{text}");
        }
        let metad = bucket("o3://h1:1,[::1]/vol1/b-1").unwrap().metad;
        assert_eq!(metad, ["h1:1", "[::1]:9862"]);
        for wrong in
            ["", "/", "/vol1", "/vol1/b/key", "o3://host", "s3://host/vol1/b", "o3://h:x/vol1/b-1"]
        {
            assert!(bucket(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "/", "/vol1/b", "o3://host/"] {
            assert!(wrong.parse::<VolumeAddress>().is_err(), "{wrong}");
        }
        assert_eq!("/".parse(), Ok(RootAddress { metad: vec![] }));
        assert_eq!("o3://h:1".parse(), Ok(RootAddress { metad: vec!["h:1".into()] }));
        assert!("/vol1".parse::<RootAddress>().is_err());
        assert!(matches!("/vol1".parse(), Ok(Container::Volume(_))));
        assert!(matches!("/vol1/b".parse(), Ok(Container::Bucket(_))));
        assert!("/vol1/b/c".parse::<Container>().is_err());
    }

    #[test]
    fn names_are_checked_when_they_are_used() {
        let volume: VolumeAddress = "/X_1".parse().unwrap();
        assert_eq!(volume.check().unwrap_err().code(), ErrorCode::InvalidVolumeName);
        let code = bucket("/vol1/a").unwrap().check().unwrap_err().code();
        assert_eq!(code, ErrorCode::InvalidBucketName);
    }

    #[test]
    fn keys_are_all_that_follows_the_bucket() {
        let key = |text: &[u8]| KeyAddress::parse(OsString::from_vec(text.to_vec()));
        let parsed = key(b"o3://h:1/vol1/b-1/a//b:\xff/").unwrap();
        assert_eq!(parsed.key.as_bytes(), b"a//b:\xff/");
        assert_eq!(parsed.bucket.metad, ["h:1"]);
        assert_eq!(key(b"vol1/b-1/x://y").unwrap().key, "x://y");
        for wrong in [&b"/vol1/b-1"[..], b"/vol1/b-1/", b"/vol1", b"/\xff/b/k"] {
            assert!(key(wrong).is_err(), "{wrong:?}");
        }
    }
}
