use std::io::ErrorKind;

use super::{
    Dir, DirEntry, create_dir_all, exists, free_bytes, read_dir, read_small, remove_dir, remove_dir_all, remove_file,
    rename, sync_dir, write_small_atomic,
};
use crate::testing::{run, scratch};

#[test]
fn directories_and_names() {
    let dir = scratch();
    let root = dir.path().to_owned();
    run(move || async move {
        let deep = root.join("a/b/c");
        create_dir_all(&deep).await.expect("created");
        create_dir_all(&deep).await.expect("there already");
        for name in ["2", "10", "1"] {
            write_small_atomic(root.join("a/b").join(name), name.as_bytes()).await.expect("written");
        }
        let entry = |name: &str, is_dir| DirEntry { name: name.to_owned(), is_dir };
        let expected = [entry("1", false), entry("10", false), entry("2", false), entry("c", true)];
        assert_eq!(read_dir(root.join("a/b")).await.expect("listed"), expected);

        rename(root.join("a/b/1"), root.join("a/b/2")).await.expect("renamed over another");
        sync_dir(root.join("a/b")).await.expect("flushed");
        assert_eq!(read_small(root.join("a/b/2"), 10).await.expect("read"), b"1");
        assert!(!exists(root.join("a/b/1")).await.expect("looked"));
        remove_file(root.join("a/b/2")).await.expect("removed");
        let kept = Dir::open(root.join("a/b")).await.expect("opened");
        kept.sync().await.expect("flushed");
        let full = remove_dir(root.join("a/b")).await.expect_err("something is in it");
        assert_eq!(full.kind(), ErrorKind::DirectoryNotEmpty);
        remove_dir(root.join("a/b/c")).await.expect("removed");
        remove_file(root.join("a/b/10")).await.expect("removed");
        remove_dir(root.join("a/b")).await.expect("removed");
        remove_dir_all(root.join("a")).await.expect("removed");
        assert!(!exists(root.join("a")).await.expect("looked"));
        assert!(free_bytes(&root).await.expect("known") > 0);
    });
}

#[test]
fn small_files_are_whole_and_bounded() {
    let dir = scratch();
    let path = dir.path().join("small");
    run(move || async move {
        write_small_atomic(&path, b"first").await.expect("written");
        write_small_atomic(&path, b"second").await.expect("written again");
        assert_eq!(read_small(&path, 6).await.expect("just fits"), b"second");
        let long = read_small(&path, 5).await.expect_err("one byte too long");
        assert_eq!(long.kind(), ErrorKind::FileTooLarge);
        assert!(long.to_string().contains("/small"), "{long}");
        let names = read_dir(path.parent().expect("in a directory")).await.expect("listed");
        assert_eq!(names.len(), 1, "no temporary file stays: {names:?}");
    });
}

#[test]
fn errors_name_the_path() {
    let dir = scratch();
    let missing = dir.path().join("missing");
    run(move || async move {
        let errors = [
            read_dir(&missing).await.map(drop),
            rename(&missing, missing.with_file_name("new")).await,
            remove_file(&missing).await,
            remove_dir_all(&missing).await,
            sync_dir(&missing).await,
            Dir::open(&missing).await.map(drop),
            remove_dir(&missing).await,
            free_bytes(&missing).await.map(drop),
            read_small(&missing, 1).await.map(drop),
            write_small_atomic(missing.join("file"), b"").await,
        ];
        for error in errors {
            let error = error.expect_err("it is missing");
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains("/missing"), "{error}");
        }
    });
}
