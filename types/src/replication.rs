//! How a block's bytes are spread over block servers.

use std::fmt;
use std::str::FromStr;

use crate::error::{ErrorCode, FsError};

/// The erasure codes that Ozone knows, by their data and parity counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EcCodec {
    ReedSolomon,
    Xor,
}

/// A bucket's replication. Its text form is Ozone's: `ONE`, `THREE`, `rs-3-2-1024k`, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replication {
    /// `n` equal copies.
    Replicated { copies: u8 },
    /// `data` shards and `parity` shards, in cells of `cell` bytes.
    Ec { codec: EcCodec, data: u8, parity: u8, cell: u32 },
}

impl Replication {
    pub const THREE: Replication = Replication::Replicated { copies: 3 };

    /// Block servers that a block of this kind lives on.
    pub fn nodes(self) -> usize {
        match self {
            Replication::Replicated { copies } => copies as usize,
            Replication::Ec { data, parity, .. } => data as usize + parity as usize,
        }
    }

    /// Fewest block servers with which a new block may be written (`min_write_replicas`).
    pub fn min_write_nodes(self) -> usize {
        match self {
            Replication::Replicated { copies } => (copies as usize).min(2),
            Replication::Ec { data, parity, .. } => data as usize + (parity as usize).min(1),
        }
    }
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Replication::Replicated { copies: 1 } => f.write_str("ONE"),
            Replication::Replicated { copies: 3 } => f.write_str("THREE"),
            Replication::Replicated { copies } => write!(f, "{copies}"),
            Replication::Ec { codec, data, parity, cell } => {
                let codec = match codec {
                    EcCodec::ReedSolomon => "rs",
                    EcCodec::Xor => "xor",
                };
                write!(f, "{codec}-{data}-{parity}-{}k", cell / 1024)
            }
        }
    }
}

impl FromStr for Replication {
    type Err = FsError;

    fn from_str(text: &str) -> Result<Self, FsError> {
        let ec = |codec, data, parity| Replication::Ec { codec, data, parity, cell: 1024 * 1024 };
        Ok(match text.to_ascii_lowercase().as_str() {
            "one" | "1" => Replication::Replicated { copies: 1 },
            "two" | "2" => Replication::Replicated { copies: 2 },
            "three" | "3" => Replication::THREE,
            "rs-3-2-1024k" => ec(EcCodec::ReedSolomon, 3, 2),
            "rs-6-3-1024k" => ec(EcCodec::ReedSolomon, 6, 3),
            "rs-10-4-1024k" => ec(EcCodec::ReedSolomon, 10, 4),
            "xor-2-1-1024k" => ec(EcCodec::Xor, 2, 1),
            _ => {
                return Err(FsError::with(
                    ErrorCode::Invalid,
                    format!(
                        "replication '{text}' is unknown; one of ONE, THREE, rs-3-2-1024k, \
                         rs-6-3-1024k, rs-10-4-1024k, xor-2-1-1024k"
                    ),
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["ONE", "THREE", "rs-3-2-1024k", "rs-10-4-1024k", "xor-2-1-1024k"] {
            assert_eq!(text.parse::<Replication>().unwrap().to_string(), text);
        }
        assert!("rs-4-2-1024k".parse::<Replication>().is_err());
        assert_eq!(Replication::THREE.min_write_nodes(), 2);
    }
}
