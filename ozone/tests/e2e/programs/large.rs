//! Files that are larger than any cache.

use std::fs;
use std::io::{Read, Write};

use crate::harness::sides::{Sides, long};
use crate::harness::tree::Random;
use crate::harness::{Cluster, shell};

#[test]
fn two_gigabytes_come_back_through_another_mount() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 2048;
    let cluster = Cluster::start();
    let mut first = cluster.mount();
    let mut file = fs::File::create(first.join("big")).unwrap();
    let mut hash = std::collections::hash_map::DefaultHasher::new();
    for n in 0..CHUNKS {
        let chunk = Random::new(n as u64 + 1).bytes(CHUNK);
        std::hash::Hasher::write(&mut hash, &chunk);
        file.write_all(&chunk).unwrap();
    }
    file.sync_all().unwrap();
    let sum = shell(first.path(), "sha256sum big");
    let second = cluster.mount();
    assert_eq!(shell(second.path(), "sha256sum big"), sum);
    // And what is there is what was written, not only the same in both.
    let mut again = std::collections::hash_map::DefaultHasher::new();
    let mut reader = fs::File::open(second.join("big")).unwrap();
    let mut chunk = vec![0; CHUNK];
    for _ in 0..CHUNKS {
        reader.read_exact(&mut chunk).unwrap();
        std::hash::Hasher::write(&mut again, &chunk);
    }
    assert_eq!(std::hash::Hasher::finish(&hash), std::hash::Hasher::finish(&again));
    let limit = 640 << 20; // 512 MiB of cache and dirty data, and the program itself
    assert!(first.process().peak_memory() < limit, "{} MiB", first.process().peak_memory() >> 20);
}

/// The ways in which dd writes, each compared with the same on a local disk; 2 GiB at once in the long form.
#[test]
fn dd_in_all_its_ways() {
    let mib = 32;
    let mut sides = Sides::start(&["dd", "sha256sum"]);
    sides.same(&format!(
        "dd() {{ command dd status=none \"$@\"; }}
         seq -f '%020g' 1 $(({mib} * 1048576 / 21)) > seed
         dd if=seed of=a bs=1M conv=fsync; dd if=a of=b bs=1M oflag=direct; dd if=b of=c bs=1M iflag=direct
         dd if=a of=d bs=128K conv=fdatasync; dd if=a of=e bs=999983 conv=sparse
         dd if=a of=e bs=1M seek=3 skip=1 count=2 conv=notrunc oflag=dsync
         head -c 1M /dev/zero | dd of=e oflag=append conv=notrunc; dd if=a bs=64K | dd of=f bs=4K
         dd if=a of=g bs=1M seek=$(({mib} * 2)); sha256sum seed a b c d e f g; stat -c '%n %s' ?"
    ));
    sides.mount.remount();
    sides.same("sha256sum ?; rm ? seed; ls -A");
    if long() {
        sides.same(
            "head -c 2G <(seq -f %020g 1 200000000) | dd of=big bs=1M iflag=fullblock conv=fsync status=none
             stat -c %s big; sha256sum big; dd if=big bs=1M skip=1000 count=100 status=none | sha256sum",
        );
        sides.mount.remount();
        sides.same("sha256sum big");
    }
}
