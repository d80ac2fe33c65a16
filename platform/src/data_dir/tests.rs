use std::fs;

use super::*;

fn cluster(n: u8) -> ClusterId {
    ClusterId(Uuid::from_bytes([n; 16]))
}

/// Every file of a directory with its content, to show that a refusal touches nothing.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.clone(), fs::read(p).unwrap_or_default()))
        .collect();
    all.sort();
    all
}

fn refused(dir: &Path, role: Role) -> DataDirError {
    let before = content(dir);
    let err = DataDir::open(dir, role).unwrap_err();
    assert_eq!(content(dir), before, "a refusal must touch nothing");
    err
}

#[test]
fn a_new_directory_gets_an_identity_that_stays() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("a/metad");
    let dir = DataDir::open(&path, Role::Metad).unwrap();
    let id = dir.id();
    assert_eq!((dir.path(), dir.cluster()), (path.as_path(), None));
    dir.bind_cluster(cluster(1)).unwrap();
    dir.bind_cluster(cluster(1)).unwrap();
    drop(dir);
    let dir = DataDir::open(&path, Role::Metad).unwrap();
    assert_eq!((dir.id(), dir.cluster()), (id, Some(cluster(1))));
}

#[test]
fn an_empty_or_half_made_directory_is_taken() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir(tmp.path().join("lost+found")).unwrap();
    fs::write(tmp.path().join(VERSION_TMP), "form").unwrap();
    fs::write(tmp.path().join(LOCK), "").unwrap();
    DataDir::open(tmp.path(), Role::Blockd).unwrap();
}

#[test]
fn a_foreign_directory_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("thesis.tex"), "x").unwrap();
    let err = refused(tmp.path(), Role::Blockd);
    assert!(matches!(err, DataDirError::Foreign { .. }));
    assert!(err.to_string().contains("thesis.tex"), "{err}");
}

#[test]
fn a_file_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("f");
    fs::write(&path, "x").unwrap();
    let err = DataDir::open(&path, Role::Blockd).unwrap_err();
    assert!(matches!(err, DataDirError::Io { .. }), "{err}");
}

#[test]
fn another_role_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    drop(DataDir::open(tmp.path(), Role::Blockd).unwrap());
    let err = refused(tmp.path(), Role::Metad);
    assert!(matches!(err, DataDirError::OtherRole { found: Role::Blockd, .. }));
    assert!(err.to_string().contains("belongs to blockd, not to metad"), "{err}");
}

#[test]
fn an_unknown_format_is_refused_whatever_else_it_says() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join(VERSION), "format = 9\nnew_key = [1]\n").unwrap();
    let err = refused(tmp.path(), Role::Metad);
    assert!(matches!(err, DataDirError::UnknownFormat { found: 9, known: FORMAT, .. }), "{err}");
}

#[test]
fn a_damaged_version_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    for text in [
        &b""[..],
        b"\xff\xfe",
        b"format = \"1\"",
        b"format = 1\nrole = \"metad\"",
        b"format = 1\nrole = \"king\"\nid = \"00000000-0000-0000-0000-000000000000\"",
        b"format = 1\nrole = \"metad\"\nid = \"00000000-0000-0000-0000-000000000000\"\nx = 1",
    ] {
        fs::write(tmp.path().join(VERSION), text).unwrap();
        let err = refused(tmp.path(), Role::Metad);
        assert!(matches!(err, DataDirError::Damaged { .. }), "{err}");
        assert!(err.to_string().contains(VERSION), "{err}");
    }
}

#[test]
fn a_directory_in_use_is_refused_with_the_pid() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(tmp.path(), Role::Metad).unwrap();
    let err = refused(tmp.path(), Role::Metad);
    assert!(matches!(err, DataDirError::InUse { .. }));
    assert!(err.to_string().contains(&format!("process {}", std::process::id())), "{err}");
    drop(dir);
    DataDir::open(tmp.path(), Role::Metad).unwrap();
}

#[test]
fn another_cluster_is_refused_and_both_are_named() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(tmp.path(), Role::Metad).unwrap();
    dir.bind_cluster(cluster(1)).unwrap();
    let err = dir.bind_cluster(cluster(2)).unwrap_err();
    assert!(matches!(err, DataDirError::OtherCluster { .. }));
    let text = err.to_string();
    assert!(text.contains(&cluster(1).to_string()) && text.contains(&cluster(2).to_string()));
    assert_eq!(dir.cluster(), Some(cluster(1)));
}
