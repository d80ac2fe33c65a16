//! ACLs against what Linux makes of them (values read from an ext4).

use super::*;

/// Entries of an attribute's value, as `tag, permissions, id`.
pub(crate) fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn acl(entries: &[(u16, u16, u32)]) -> Acl {
    Acl::parse(&value(entries)).unwrap().unwrap()
}

fn refused(value: &[u8]) -> ErrorCode {
    Acl::parse(value).unwrap_err().code()
}

fn hex(acl: &Acl) -> String {
    acl.encode().iter().map(|byte| format!("{byte:02x}")).collect()
}

const N: u32 = NO_ID;

#[test]
fn setfacl_of_one_user_gives_what_linux_stores() {
    // setfacl -m u:1000:rw on a file of mode 644.
    let mut one = acl(&[(1, 6, N), (2, 6, 1000), (4, 4, N), (16, 6, N), (32, 4, N)]);
    let stored = "0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff\
                  20000400ffffffff";
    assert_eq!(hex(&one), stored);
    assert_eq!((one.permissions(), one.is_mode()), (0o664, false));
    one.chmod(0o4751);
    let stored = "0200000001000700ffffffff02000600e803000004000400ffffffff10000500ffffffff\
                  20000100ffffffff";
    assert_eq!(hex(&one), stored);
    assert_eq!(one.permissions(), 0o751);
}

#[test]
fn an_acl_that_is_a_mode_is_known_as_one() {
    // The ids that stand where nobody is named mean nothing.
    let mut base = acl(&[(1, 7, 0), (4, 5, 5), (32, 1, 0)]);
    assert!(base.is_mode());
    assert_eq!(base.permissions(), 0o751);
    assert_eq!(base.encode(), value(&[(1, 7, N), (4, 5, N), (32, 1, N)]));
    base.chmod(0o640);
    assert_eq!(base, acl(&[(1, 6, N), (4, 4, N), (32, 0, N)]));
    let masked = acl(&[(1, 7, N), (4, 5, N), (16, 4, N), (32, 1, N)]);
    assert_eq!((masked.permissions(), masked.is_mode()), (0o741, false));
}

#[test]
fn every_acl_comes_back_as_it_was_given() {
    for entries in [
        &[(1, 0, N), (4, 0, N), (32, 0, N)][..],
        // Ids in any order, users and groups with the same ids.
        &[(1, 7, N), (2, 0, 9), (2, 7, 3), (4, 1, N), (8, 2, 9), (16, 7, N), (32, 4, N)],
        &[(1, 7, N), (4, 1, N), (8, 2, 0), (8, 3, N - 1), (16, 0, N), (32, 4, N)],
    ] {
        assert_eq!(acl(entries).encode(), value(entries));
    }
    for none in [&b""[..], &value(&[])] {
        assert_eq!(Acl::parse(none).unwrap(), None);
    }
}

#[test]
fn what_linux_refuses_is_refused() {
    let good = [(1, 6, N), (2, 6, 7), (4, 4, N), (8, 4, 7), (16, 6, N), (32, 4, N)];
    assert!(Acl::parse(&value(&good)).is_ok());
    for cut in 5..value(&good).len() {
        assert_eq!(refused(&value(&good)[..cut]), ErrorCode::Invalid, "{cut}");
    }
    assert_eq!(refused(&[2, 0]), ErrorCode::Invalid);
    assert_eq!(refused(&[&[3, 0, 0, 0], &value(&good)[4..]].concat()), ErrorCode::Unsupported);
    // Each entry missing, twice, with a fourth bit, of another kind, in the place of the next one.
    for at in 0..good.len() {
        let (mut without, mut bits, mut kind, mut swapped) =
            (good.to_vec(), good.to_vec(), good.to_vec(), good.to_vec());
        without.remove(at);
        bits[at].1 |= 8;
        kind[at].0 = 64;
        if at + 1 < good.len() {
            swapped.swap(at, at + 1);
            assert_eq!(refused(&value(&swapped)), ErrorCode::Invalid, "{swapped:?}");
        }
        let mut twice = good.to_vec();
        twice.insert(at, good[at]);
        for wrong in [bits, kind, twice] {
            assert_eq!(refused(&value(&wrong)), ErrorCode::Invalid, "{wrong:?}");
        }
        // A user or a group may be missing, all others not.
        let optional = matches!(good[at].0, USER | GROUP);
        assert_eq!(Acl::parse(&value(&without)).is_ok(), optional, "{without:?}");
    }
    let nobody = [(1, 6, N), (2, 6, N), (4, 4, N), (16, 6, N), (32, 4, N)];
    assert_eq!(refused(&value(&nobody)), ErrorCode::Invalid);
}

#[test]
fn a_default_acl_is_inherited_as_on_linux() {
    // default, mode asked for; what is inherited, its mode.
    for (default, asked, inherited, mode) in [
        (
            &[(1, 7, N), (2, 7, 1000), (4, 5, N), (16, 7, N), (32, 0, N)][..],
            0o666,
            &[(1, 6, N), (2, 7, 1000), (4, 5, N), (16, 6, N), (32, 0, N)][..],
            0o660,
        ),
        (&[(1, 7, N), (4, 5, N), (32, 5, N)], 0o666, &[(1, 6, N), (4, 4, N), (32, 4, N)], 0o644),
        (
            &[(1, 6, N), (4, 7, N), (8, 7, 55), (16, 5, N), (32, 1, N)],
            0o2777,
            &[(1, 6, N), (4, 7, N), (8, 7, 55), (16, 5, N), (32, 1, N)],
            0o651,
        ),
        (
            &[(1, 7, N), (4, 1, N), (16, 7, N), (32, 5, N)],
            0o604,
            &[(1, 6, N), (4, 1, N), (16, 0, N), (32, 4, N)],
            0o604,
        ),
    ] {
        let child = acl(default).inherited(asked);
        assert_eq!(child, acl(inherited));
        assert_eq!(child.permissions(), mode);
    }
}
