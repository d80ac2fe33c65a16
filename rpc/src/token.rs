//! Block tokens: what metad lets a client do with one block, checked by blockd without asking.
//!
//! ```text
//! 0      1        2        6            14            30        62
//! ┌──────┬────────┬────────┬────────────┬─────────────┬─────────┐
//! │ ver  │ rights │ epoch  │ expires    │ block       │ mac     │   integers big-endian
//! │ u8=1 │ u8     │ u32    │ u64 unix s │ u64 ‖ u64   │ 32 bytes│
//! └──────┴────────┴────────┴────────────┴─────────────┴─────────┘
//! ```
//! The mac is HMAC-SHA-256 over bytes 0..30 with the cluster's key, which containerd makes and hands
//! to metad and blockd. Ozone's block tokens carry the same rights with a certificate's signature.

use hmac::{Hmac, Mac};
use ozone_types::{BlockEpoch, BlockId, ErrorCode, FsError, FsResult};
use sha2::Sha256;

const VERSION: u8 = 1;
const BODY: usize = 30;
/// Bytes of a token.
pub const TOKEN_LEN: usize = BODY + 32;

/// A set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    pub const READ: Rights = Rights(1);
    pub const READ_WRITE: Rights = Rights(3);
    /// Promise and seal: metad's own.
    pub const SEAL: Rights = Rights(4);
    pub const WRITE: Rights = Rights(2);

    fn covers(self, need: Rights) -> bool {
        self.0 & need.0 == need.0
    }
}

/// The cluster's secret.
#[derive(Clone)]
pub struct TokenKey([u8; 32]);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

impl TokenKey {
    pub fn new(key: [u8; 32]) -> Self {
        TokenKey(key)
    }

    /// From the wire; PROTOCOL for any other length than 32 bytes.
    pub fn from_slice(key: &[u8]) -> FsResult<Self> {
        let key = key
            .try_into()
            .map_err(|_| FsError::with(ErrorCode::Protocol, "a token key has 32 bytes"))?;
        Ok(TokenKey(key))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `expires` in seconds since 1970.
    pub fn mint(&self, block: BlockId, epoch: BlockEpoch, rights: Rights, expires: u64) -> Vec<u8> {
        let mut token = Vec::with_capacity(TOKEN_LEN);
        token.push(VERSION);
        token.push(rights.0);
        token.extend_from_slice(&epoch.0.to_be_bytes());
        token.extend_from_slice(&expires.to_be_bytes());
        token.extend_from_slice(&block.to_key());
        let mac = self.mac(&token).finalize().into_bytes();
        token.extend_from_slice(&mac);
        token
    }

    /// BAD_TOKEN unless `token` grants `need` on `block` now, in this epoch or a later one.
    pub fn check(
        &self,
        token: &[u8],
        block: BlockId,
        epoch: BlockEpoch,
        need: Rights,
        now: u64,
    ) -> FsResult<()> {
        let bad = |why: &str| Err(FsError::with(ErrorCode::BadToken, why));
        if token.len() != TOKEN_LEN || token[0] != VERSION {
            return bad("not a token of this version");
        }
        if self.mac(&token[..BODY]).verify_slice(&token[BODY..]).is_err() {
            return bad("the token was not made by this cluster");
        }
        let mut word = [0u8; 8];
        word.copy_from_slice(&token[6..14]);
        if u64::from_be_bytes(word) < now {
            return bad("the token has expired");
        }
        if token[14..BODY] != block.to_key() {
            return bad("the token is for another block");
        }
        let granted = u32::from_be_bytes([token[2], token[3], token[4], token[5]]);
        if !Rights(token[1]).covers(need) || granted < epoch.0 {
            return bad("the token does not grant this");
        }
        Ok(())
    }

    fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        // HMAC takes keys of any length, so this cannot fail for 32 bytes.
        #[allow(clippy::unwrap_used)]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).unwrap();
        mac.update(body);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ozone_types::ContainerId;

    #[test]
    fn a_token_grants_exactly_what_it_says() {
        let key = TokenKey::new([7; 32]);
        let block = BlockId::new(ContainerId(3), 4);
        let token = key.mint(block, BlockEpoch(2), Rights::READ, 100);
        let check = |key: &TokenKey, token: &[u8], block, epoch, need, now| {
            key.check(token, block, BlockEpoch(epoch), need, now).is_ok()
        };
        assert!(check(&key, &token, block, 0, Rights::READ, 100));
        assert!(!check(&key, &token, block, 0, Rights::READ, 101), "expired");
        assert!(!check(&key, &token, block, 3, Rights::READ, 1), "later epoch");
        assert!(!check(&key, &token, block, 0, Rights::WRITE, 1), "other right");
        assert!(!check(&key, &token, BlockId::new(ContainerId(3), 5), 0, Rights::READ, 1));
        assert!(!check(&TokenKey::new([8; 32]), &token, block, 0, Rights::READ, 1), "other key");
        for at in 0..token.len() {
            let mut forged = token.clone();
            forged[at] ^= 1;
            assert!(!check(&key, &forged, block, 0, Rights::READ, 1), "byte {at}");
            assert!(!check(&key, &token[..at], block, 0, Rights::READ, 1), "cut at {at}");
        }
    }
}
