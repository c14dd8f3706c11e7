use super::*;

fn key(text: &str) -> Key {
    text.parse().expect("a legal key")
}

fn store() -> (tempfile::TempDir, FolderStore) {
    let above = tempfile::TempDir::new().expect("a temporary folder");
    let store = FolderStore::open(&above.path().join("feed"), Access::ReadWrite).expect("opened");
    (above, store)
}

#[tokio::test]
async fn a_full_disk_is_told_and_shows_nothing() {
    let (_above, store) = store();
    let mut staged = store.folder.stage(&key("day/part")).expect("staged");
    staged.file = File::options().write(true).open("/dev/full").expect("the device that is always full");
    let folder = Arc::clone(&store.folder);
    let mut upload =
        Box::new(FolderUpload { folder, key: key("day/part"), staged: Some(staged), behind_bytes: 0, syncing: None });
    let error = upload.write("bytes".into()).await.expect_err("no room");
    assert_eq!(error.class(), Class::Other);
    let told = error.to_string();
    assert!(
        told.contains("the disk is full") && told.contains("/feed/day/part") && told.contains("free space"),
        "{told}"
    );
    upload.write("more".into()).await.expect_err("the upload is broken for good");
    upload.finish().await.expect_err("nor does it become visible");
    assert!(store.read(&key("day/part"), 100).await.expect("an answer").is_none());
    let staged = store.folder.walk(STAGING).expect("walked").expect("there");
    assert_eq!(staged.entries().expect("listed").count(), 0, "the room is given back at once");
}

#[tokio::test]
async fn a_write_that_was_not_waited_for_is_never_published() {
    let (_above, store) = store();
    let mut upload = store.upload(&key("part")).await.expect("started");
    upload.write("first".into()).await.expect("written");
    {
        // Large enough to be under way still when it is looked at.
        let mut abandoned = upload.write(vec![2; 64 << 20].into());
        let waker = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(abandoned.as_mut().poll(waker).is_pending());
    }
    upload.finish().await.expect_err("nobody knows how much was written");
    assert!(store.read(&key("part"), 100).await.expect("an answer").is_none());
}

#[test]
fn errors_are_classified_by_what_they_ask_of_the_operator() {
    let class = |errno: Errno| store_error("cannot write /srv/x".into(), errno.into()).class();
    for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
        assert_eq!(class(errno), Class::Permission, "{errno:?}");
    }
    for errno in [Errno::AGAIN, Errno::STALE, Errno::TIMEDOUT, Errno::BUSY] {
        assert_eq!(class(errno), Class::Transient, "{errno:?}");
    }
    for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::XDEV, Errno::NAMETOOLONG] {
        assert_eq!(class(errno), Class::Other, "{errno:?}");
    }
    let told = |errno: Errno| store_error("cannot write /srv/x".into(), errno.into()).to_string();
    assert!(told(Errno::DQUOT).contains("quota") && told(Errno::DQUOT).contains("/srv/x"));
    assert!(!told(Errno::IO).contains("full"));
}

#[test]
fn a_file_system_without_exclusive_renames_does_not_replace_either() {
    let (_above, store) = store();
    let folder = &store.folder;
    for (name, linked) in [("free", true), ("taken", false), ("dangling", false)] {
        match name {
            "taken" => folder.write(&key(name), b"first", Onto::Nothing).expect("written"),
            "dangling" => folder.root.symlink("nowhere", name).expect("linked"),
            _ => {}
        }
        let staged = folder.stage(&key(name)).expect("staged");
        let outcome = staged.link(&folder.root, name).map_err(|error| error.kind());
        assert_eq!(outcome, if linked { Ok(()) } else { Err(ErrorKind::AlreadyExists) }, "{name}");
    }
    assert_eq!(folder.read(&key("taken"), 100).expect("readable").expect("there").0, "first");
    assert_eq!(folder.read(&key("free"), 100).expect("readable").expect("there").0, "");
    let staged = folder.walk(STAGING).expect("walked").expect("there");
    assert_eq!(staged.entries().expect("listed").count(), 0);
}

#[test]
fn a_path_and_its_url_name_each_other() {
    for (path, url) in [
        ("/srv/feed", "file:///srv/feed"),
        ("/", "file:///"),
        ("/srv/a b#c?d%/é", "file:///srv/a%20b%23c%3Fd%25/%C3%A9"),
    ] {
        assert_eq!(url_of(Path::new(path)), url);
        assert_eq!(path_of(url), Ok(PathBuf::from(path)));
    }
    let not_text = PathBuf::from(OsString::from_vec(vec![b'/', 0xff, 0x80]));
    assert_eq!(path_of(&url_of(&not_text)), Ok(not_text));
    assert_eq!(path_of("FILE:///srv/%c3%a9"), Ok(PathBuf::from("/srv/é")));
}

#[test]
fn urls_that_name_no_absolute_path_are_refused() {
    for url in [
        "file:",
        "file:/srv",
        "file:srv",
        "file://",
        "file://srv/feed",
        "file://./feed",
        "file:///a%",
        "file:///a%2",
        "file:///a%zz",
        "file:///a%00b",
        "file:///a?b",
        "file:///a#b",
        "file:éé/",
    ] {
        assert!(path_of(url).is_err(), "{url}");
    }
}
