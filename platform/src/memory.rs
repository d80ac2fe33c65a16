//! How much memory this process takes.

use std::io;

/// Bytes of memory that this process takes: its resident set.
pub fn resident() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_in_use_is_seen() {
        let before = super::resident().unwrap();
        let block = vec![1u8; 64 << 20];
        let after = super::resident().unwrap();
        assert!(after >= before + (32 << 20), "{before} {after} {}", block.len());
    }
}
