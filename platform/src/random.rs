//! Randomness from the kernel. Never used inside `apply`, which must be deterministic.

use uuid::Uuid;

/// Random bytes, fit for keys.
///
/// Panics if the kernel has no randomness to give, which Linux never does after early boot: going
/// on without would make ids and keys that others can guess.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    if let Err(err) = getrandom::fill(&mut out) {
        panic!("the kernel gives no random bytes: {err}");
    }
    out
}

/// A random number below 2⁶⁴.
pub fn u64() -> u64 {
    u64::from_le_bytes(bytes())
}

/// A random (version 4) UUID.
pub fn uuid() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_differ() {
        assert_ne!(super::bytes::<32>(), super::bytes::<32>());
        assert_ne!(super::u64(), super::u64());
        assert_ne!(super::uuid(), super::uuid());
        assert_eq!(super::uuid().get_version_num(), 4);
    }
}
