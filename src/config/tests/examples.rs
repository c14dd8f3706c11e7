//! The files in config/ and demo/compose/.

use super::*;

#[test]
fn every_example_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = Vec::new();
    for folder in ["config", "demo/compose"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("the examples") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|suffix| suffix == "toml") {
                load(&path).unwrap_or_else(|error| panic!("{error}"));
                seen.push(path.file_name().expect("a file").to_string_lossy().into_owned());
            }
        }
    }
    for name in ["full.toml", "minimal.toml", "replica.toml", "s3.toml", "bucket.toml", "folder.toml", "web.toml"] {
        assert!(seen.iter().any(|file| file == name), "{name} is missing among {seen:?}");
    }
}

#[test]
fn the_full_example_names_every_key_in_its_section() {
    let text = example("full.toml");
    let root = DeTable::parse(&text).expect("TOML");
    let document = Document::new(&text, root.get_ref());
    crate::config::parse::read(&document, Path::new("full.toml"));
    let known = document.known_keys();
    for expected in [("", "timezone"), ("export", "jobs"), ("table", "where"), ("replica", "max-age")] {
        assert!(known.contains(&expected), "{expected:?} is not among {known:?}");
    }
    for (section, key) in known {
        assert!(names_key(&text, section, key), "{section}.{key} is not in config/full.toml");
    }
}

/// Whether a line of `section` sets `key`, be it behind a `#`.
fn names_key(text: &str, section: &str, key: &str) -> bool {
    let mut current = "";
    text.lines().any(|line| {
        if line.starts_with('[') {
            current = line.trim_matches(['[', ']']);
        }
        let setting = line.trim_start_matches(['#', ' ']).split_once(" = ");
        current == section && setting.is_some_and(|(name, _)| name == key)
    })
}

#[test]
fn what_the_full_example_leaves_behind_a_hash_is_valid_too() {
    let text: String = example("full.toml")
        .lines()
        // Keys that another kind of column, or of store, has.
        .filter(|line| !line.starts_with("column-timezone") && !line.starts_with("# allow-http"))
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let config = parsed(&text);
    assert_eq!(config.replica.max_age, Some(TimeDelta::hours(36)));
    assert_eq!(config.store.s3.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(config.tables[0].key, ["id", "timestamp"]);
    assert_eq!(config.tables[0].inheritance, Inheritance::Only);
}

#[test]
fn the_values_of_the_full_example_are_the_defaults() {
    let (full, minimal) = (parsed(&example("full.toml")), parsed(&example("minimal.toml")));
    assert_eq!(full.timezone, minimal.timezone);
    assert_eq!(StoreConfig { url: None, ..full.store }, StoreConfig { url: None, ..minimal.store });
    assert_eq!(full.export, minimal.export);
    assert_eq!(full.retention, minimal.retention);
    assert_eq!(full.tables[0], minimal.tables[0]);
    assert_eq!(full.replica.max_age, minimal.replica.max_age);
}

#[test]
fn a_replica_lists_tables_without_rules() {
    let config = parsed(&example("replica.toml"));
    assert_eq!(config.source_url, None);
    assert!(config.tables.iter().all(|table| table.rows.is_none()));
    assert_eq!(names(&config), ["messages", "users_messages", "packages_messages", "users", "packages"]);
}
