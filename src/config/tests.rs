use std::path::Path;

use chrono::TimeDelta;
use toml::de::DeTable;

use super::reader::Document;
use super::*;
use crate::error::{Class, Failure};
use crate::layout::Layout;

/// What a configuration cannot do without, so that a test writes only what it is about.
const BASE: &str = "dataset = \"d\"\n";

fn parsed(text: &str) -> Config {
    parse(text, Path::new("test.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text, Path::new("test.toml")) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

/// Asserts that `text` has exactly one problem, on `line` with `key`, and that its message contains `words`.
#[track_caller]
fn refused(text: &str, line: usize, key: &str, words: &str) {
    let problems = problems(text);
    let [problem] = problems.as_slice() else { panic!("not one problem: {problems:#?}\nin\n{text}") };
    assert_eq!((problem.line, problem.key.as_str()), (line, key), "{problem}");
    assert!(problem.message.contains(words), "{problem}");
}

/// One setting of a section, on line 3; a table follows.
fn with_setting(section: &str, setting: &str) -> String {
    format!("{BASE}[{section}]\n{setting}\n[[table]]\nname = \"t\"\n")
}

/// One table, its name on line 3 and the settings from line 4 on.
fn with_table(settings: &str) -> String {
    format!("{BASE}[[table]]\nname = \"t\"\n{settings}\n")
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(config: &Config) -> Vec<&str> {
    config.tables.iter().map(|table| table.name.as_str()).collect()
}

mod examples;
mod looking;
mod replicas;

mod accepted {
    use super::*;

    #[test]
    fn every_setting_reaches_the_configuration() {
        let config = parsed(
            r#"
            dataset = "data.nom_mer-2"
            timezone = "Europe/Paris"
            [source]
            url = "postgres://a"
            password-file = "a.password"
            [store]
            url = "file:///b"
            layout = "hive"
            [export]
            jobs = 64
            compression-level = 19
            lookback = "0d"
            settle = "0s"
            unsettled = "wait"
            ignore-applications = ["pg_dump", "night job"]
            max-shrink = "0.5%"
            detect = "digest"
            expect = "strict"
            [retention]
            keep = "2w"
            min-complete = 1
            grace = "0h"
            [replica]
            url = "postgres://c"
            password-file = "/run/c"
            max-age = "90m"
            create-partitions = true
            new-columns = "add"
            [[table]]
            name = '"we.ird"."Ta""ble"'
            time-column = "At"
            epoch-unit = "ms"
            null-time = "exclude"
            key = ["id", '"a.b"']
            columns = ["id", '"a.b"', "At"]
            where = "id > 0"
            compression-level = 1
            format = "binary"
            relation = "materialized-view"
            inheritance = "include"
            detect = "off"
            min-rows = 1_000
            min-fraction = 0.3
            rename = { "user.name" = "agent_name" }
            natural-key = ['"a.b"']
            "#,
        );
        let text = |text: &str| text.to_owned();
        assert_eq!(
            config,
            Config {
                path: "test.toml".into(),
                dataset: text("data.nom_mer-2"),
                timezone: "Europe/Paris".parse().expect("a zone"),
                source_url: Some(text("postgres://a")),
                source_password_file: Some("a.password".into()),
                store: StoreConfig { layout: Layout::Hive, ..StoreConfig::at("file:///b") },
                export: ExportConfig {
                    jobs: 64,
                    compression_level: 19,
                    lookback_days: 0,
                    settle: TimeDelta::zero(),
                    unsettled: Unsettled::Wait,
                    ignore_applications: vec![text("pg_dump"), text("night job")],
                    max_shrink: 0.005,
                    detect: Detect::Digest,
                    expect: Expect::Strict,
                },
                retention: RetentionConfig { keep_days: 14, min_complete: 1, grace: TimeDelta::zero() },
                tables: vec![TableConfig {
                    schema: text("we.ird"),
                    name: text("Ta\"ble"),
                    rows: Some(RowsRule::Time {
                        column: text("At"),
                        zone: None,
                        epoch_unit: Some(EpochUnit::Milliseconds),
                        null_time: NullTime::Exclude,
                    }),
                    columns: Some(vec![text("id"), text("a.b"), text("At")]),
                    filter: Some(text("id > 0")),
                    key: vec![text("id"), text("a.b")],
                    compression_level: Some(1),
                    format: SliceFormat::Binary,
                    relation: RelationKind::MaterializedView,
                    inheritance: Inheritance::Include,
                    detect: Some(Detect::Off),
                    expectation: Expectation { min_rows: Some(1_000), min_fraction: Some(0.3) },
                    rename: BTreeMap::from([(text("user.name"), text("agent_name"))]),
                    natural_key: vec![text("a.b")],
                }],
                replica: ReplicaConfig {
                    url: Some(text("postgres://c")),
                    password_file: Some("/run/c".into()),
                    max_age: Some(TimeDelta::minutes(90)),
                    create_partitions: CreatePartitions::Yes,
                    new_columns: NewColumns::Add,
                },
            }
        );
    }

    #[test]
    fn every_setting_of_a_bucket_reaches_the_configuration() {
        let settings = r#"
            url = "s3://b/p"
            ca-file = "ca.pem"
            max-rate = "1kB/s"
            single-writer = true
            endpoint = "http://localhost:9000"
            region = "eu"
            path-style = false
            profile = "p"
            storage-class = "GLACIER_IR"
            sse = "aws:kms"
            kms-key-id = "k"
            tags = { b = "2", a = "1" }
            checksum = "crc64nvme"
            part-size = "5MiB"
            max-parts = 1000"#;
        let text = |text: &str| Some(text.to_owned());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parsed(&with_setting("store", settings)).store,
            StoreConfig {
                ca_file: Some("ca.pem".into()),
                max_rate: Some(1_000),
                single_writer: SingleWriter::Yes,
                s3: S3Config {
                    endpoint: text("http://localhost:9000"),
                    region: text("eu"),
                    path_style: Some(false),
                    profile: text("p"),
                    storage_class: text("GLACIER_IR"),
                    encryption: Some(Encryption::Kms(text("k"))),
                    tags: vec![pair("a", "1"), pair("b", "2")],
                    checksum: Checksum::Crc64Nvme,
                    part_bytes: 5 << 20,
                    max_parts: 1_000,
                },
                ..StoreConfig::at("s3://b/p")
            }
        );
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let config = parsed(&with_table(""));
        assert_eq!(config.timezone, Zone::UTC);
        assert_eq!(config.store, StoreConfig::default());
        assert_eq!((config.store.s3.part_bytes, config.store.s3.max_parts), (16 << 20, 10_000));
        let export = ExportConfig {
            jobs: 2,
            compression_level: 3,
            lookback_days: 3,
            settle: TimeDelta::minutes(15),
            unsettled: Unsettled::Provisional,
            ignore_applications: Vec::new(),
            max_shrink: 0.01,
            detect: Detect::Rows,
            expect: Expect::Lenient,
        };
        assert_eq!(config.export, export);
        assert_eq!((config.tables[0].detect, config.tables[0].expectation), (None, Expectation::default()));
        assert_eq!(config.retention, RetentionConfig { keep_days: 15, min_complete: 3, grace: TimeDelta::hours(48) });
        let replica = ReplicaConfig {
            url: None,
            password_file: None,
            max_age: None,
            create_partitions: CreatePartitions::No,
            new_columns: NewColumns::Refuse,
        };
        assert_eq!(config.replica, replica);
    }

    #[test]
    fn a_table_is_carried_by_reference_from_several_others() {
        let config = parsed(&format!(
            "{BASE}{}",
            r#"
            [[table]]
            name = "lines"
            rows = "referenced"
            referenced-by = ["app.orders.(year, number)", 'app."odd.name".("a b", c)']
            key = ["year", "number"]
            [[table]]
            name = "app.orders"
            time-column = "at"
            [[table]]
            name = 'app."odd.name"'
            rows = "all"
            "#
        ));
        let reference = |table: &str, columns: [&str; 2]| Reference {
            schema: "app".into(),
            table: table.into(),
            columns: columns.map(str::to_owned).to_vec(),
        };
        let expected = vec![reference("orders", ["year", "number"]), reference("odd.name", ["a b", "c"])];
        assert_eq!(config.tables[0].rows, Some(RowsRule::Referenced(expected)));
        assert_eq!(config.tables[2].rows, Some(RowsRule::All));
    }

    #[test]
    fn a_chain_and_a_diamond_of_references_are_no_circle() {
        let config = parsed(&format!(
            "{BASE}{}",
            r#"
            table = [
              { name = "top", rows = "referenced", referenced-by = ["left.t", "right.t"], key = ["id"] },
              { name = "left", rows = "referenced", referenced-by = ["bottom.l"], key = ["id"] },
              { name = "right", rows = "referenced", referenced-by = ["bottom.r"], key = ["id"] },
              { name = "bottom", time-column = "at" },
            ]
            "#
        ));
        assert_eq!(names(&config), ["top", "left", "right", "bottom"]);
    }

    #[test]
    fn tables_of_one_name_in_two_schemas_are_two_tables() {
        let config =
            parsed(&format!("{BASE}[[table]]\nname = \"t\"\n[[table]]\nname = \"T\"\n[[table]]\nname = \"a.t\"\n"));
        assert_eq!(names(&config), ["t", "T", "t"]);
    }

    #[test]
    fn files_of_windows_editors_are_read() {
        assert_eq!(parsed(&with_table("rows = \"all\"").replace('\n', "\r\n")).tables[0].rows, Some(RowsRule::All));
        refused(&with_setting("export", "jobs = 0").replace('\n', "\r\n"), 3, "export.jobs", "1 to 64");
    }

    #[test]
    fn nothing_is_expanded() {
        let config = parsed(&with_setting("source", "url = \"postgres://$HOME/${USER}\""));
        assert_eq!(config.source_url.as_deref(), Some("postgres://$HOME/${USER}"));
    }
}

mod refusals {
    use super::*;

    #[test]
    fn what_is_not_toml() {
        refused("dataset = \"d\"\ntimezone = UTC\n", 2, "", "not TOML");
        refused("dataset = \"d\n", 1, "", "not TOML");
        refused("dataset = \"d\"\ndataset = \"e\"\n", 2, "", "duplicate key");
        refused("[store]\nurl = \"a\"\n[export]\n[store]\n", 4, "", "duplicate key");
        refused("[export\njobs = 2\n", 1, "", "not TOML");
        let single_brackets = problems("[table]\nname = \"a\"\n[table]\nname = \"b\"\n");
        assert_eq!(single_brackets[0].line, 3);
        assert!(single_brackets[0].message.contains("a [[table]], in double brackets"), "{single_brackets:?}");
        refused(&format!("a = {}", "[".repeat(100_000)), 1, "", "not TOML");
        let several = problems("a = \nb = 2\nc = [1,\n\"unclosed\n");
        let lines: Vec<usize> = several.iter().map(|problem| problem.line).collect();
        assert!(lines.len() > 1 && lines.is_sorted() && lines[0] == 1, "{several:?}");
    }

    #[test]
    fn unknown_keys_with_what_may_have_been_meant() {
        refused(&with_setting("export", "job = 2"), 3, "export.job", "did you mean \"jobs\"?");
        refused(&with_setting("export", "max_shrink = \"1%\""), 3, "export.max_shrink", "did you mean \"max-shrink\"?");
        refused(
            &with_setting("export", "compression = 3"),
            3,
            "export.compression",
            "did you mean \"compression-level\"?",
        );
        refused(&with_setting("retention", "jobs = 2"), 3, "retention.jobs", "it belongs to [export]");
        refused(&with_table("timezone = \"UTC\""), 4, "table.timezone", "it belongs to the top of the file");
        refused(&format!("zoo = 1\n{}", with_table("")), 1, "zoo", "unknown key");
        refused(&format!("datasett = 1\n{}", with_table("")), 1, "datasett", "did you mean \"dataset\"?");
        refused(&with_table("time_colum = \"at\""), 4, "table.time_colum", "did you mean \"time-column\"?");
        refused(&with_table("column = \"at\""), 4, "table.column", "did you mean \"columns\"?");
        refused(&with_setting("exports", "jobs = 2"), 2, "exports", "unknown section; did you mean \"export\"?");
        refused(&with_setting("export", "\"jo\\nbs\" = 2"), 3, "export.\"jo\\nbs\"", "unknown key");
        assert_eq!(problems(&with_setting("export", "zebra = 2"))[0].message, "unknown key");
    }

    #[test]
    fn keys_of_the_design_that_this_version_does_not_know() {
        refused(&with_table("apply = \"insert\""), 4, "table.apply", "unknown key");
    }

    #[test]
    fn keys_of_another_kind_of_store() {
        let store = |url: &str, setting: &str| with_setting("store", &format!("{setting}\nurl = \"{url}\""));
        refused(&store("file:///a", "region = \"eu\""), 3, "store.region", "belongs to s3://");
        refused(
            &store("file:///a", "ca-file = \"ca.pem\""),
            3,
            "store.ca-file",
            "belongs to s3:// and https:// and http://",
        );
        refused(&store("https://a", "single-writer = true"), 3, "store.single-writer", "belongs to s3://");
        refused(&store("s3://a", "allow-http = true"), 3, "store.allow-http", "belongs to https:// and http://");
    }

    #[test]
    fn values_that_no_store_takes() {
        for (setting, key, words) in [
            ("part-size = \"4MiB\"", "store.part-size", "from \"5MiB\" to \"5GiB\""),
            ("part-size = \"16M\"", "store.part-size", "such as \"16MiB\""),
            ("max-parts = 10001", "store.max-parts", "from 1 to 10000"),
            ("max-rate = \"50MB\"", "store.max-rate", "such as \"50MB/s\""),
            ("endpoint = \"s3.example.org\"", "store.endpoint", "such as \"https://s3.example.org\""),
            ("endpoint = \"https://u:secret@host\"", "store.endpoint", "user or password"),
            ("storage-class = \"a b\"", "store.storage-class", "name of a class"),
            ("sse = \"kms\"", "store.sse", "must be \"AES256\" or \"aws:kms\""),
            ("kms-key-id = \"k\"", "store.kms-key-id", "needs sse"),
            ("tags = [\"a\"]", "store.tags", "{ team = "),
            ("tags = { a = 1 }", "store.tags", "{ team = "),
            ("tags = { a = \"&\" }", "store.tags", "stores refuse"),
            ("path-style = \"yes\"", "store.path-style", "true or false"),
        ] {
            refused(&with_setting("store", &format!("{setting}\nurl = \"s3://a\"")), 3, key, words);
        }
    }

    #[test]
    fn values_of_the_wrong_type() {
        for (section, setting, words) in [
            ("source", "url = 3", "must be a text in quotes, not a number"),
            ("store", "layout = true", "must be \"flat\" or \"hive\", not true or false"),
            ("export", "jobs = \"2\"", "must be a whole number from 1 to 64, not a text"),
            ("export", "jobs = 2.0", "must be a whole number from 1 to 64, not a number with decimals"),
            ("export", "settle = 15", "must be a length of time such as \"15m\", not a number"),
            ("export", "max-shrink = 1", "must be a share such as \"1%\", not a number"),
            ("retention", "keep = 15", "must be days such as \"15d\", not a number"),
            ("replica", "max-age = 2024-05-01", "not a date or time"),
            ("replica", "create-partitions = \"yes\"", "must be true or false"),
        ] {
            let key = format!("{section}.{}", setting.split(' ').next().expect("a key"));
            refused(&with_setting(section, setting), 3, &key, words);
        }
        refused(&with_table("key = \"id\""), 4, "table.key", "must be a list such as [\"id\"], not a text");
        refused(
            &with_table("key = [\n  \"id\",\n  3,\n]"),
            6,
            "table.key",
            "must be a column's name in quotes, not a number",
        );
        refused("dataset = 1\n[[table]]\nname = \"t\"\n", 1, "dataset", "must be a name in quotes");
    }

    #[test]
    fn sections_of_the_wrong_shape() {
        refused(&format!("{BASE}export = 3\n[[table]]\nname = \"t\"\n"), 2, "export", "must be a section, [export]");
        refused(&format!("{BASE}[[export]]\n[[table]]\nname = \"t\"\n"), 2, "export", "must be a section, [export]");
        refused(&format!("{BASE}[table]\nname = \"t\"\n"), 2, "table", "double brackets, [[table]]");
        refused(&format!("{BASE}table = [\n{{ name = \"t\" }},\n3]\n"), 4, "table", "double brackets, [[table]]");
    }

    #[test]
    fn missing_keys() {
        refused("[[table]]\nname = \"t\"\n", 1, "dataset", "is missing");
        refused(
            &format!("{BASE}\n[[table]]\nname = \"t\"\n[[table]]\nrows = \"all\"\n"),
            5,
            "table.name",
            "is missing",
        );
        refused(BASE, 1, "table", "is missing: write at least one [[table]]");
        refused(&format!("{BASE}table = []\n"), 2, "table", "at least one [[table]]");
    }

    #[test]
    fn numbers_out_of_range() {
        for (section, setting) in [
            ("export", "jobs = 0"),
            ("export", "jobs = 65"),
            ("export", "jobs = -1"),
            ("export", "jobs = 99999999999999999999"),
            ("export", "compression-level = 0"),
            ("export", "compression-level = 20"),
            ("export", "compression-level = 4294967299"),
            ("retention", "min-complete = 0"),
        ] {
            let key = format!("{section}.{}", setting.split(' ').next().expect("a key"));
            refused(&with_setting(section, setting), 3, &key, "must be a whole number from 1 to");
        }
        refused(&with_table("compression-level = 20"), 4, "table.compression-level", "from 1 to 19, not 20");
    }

    #[test]
    fn texts_that_say_nothing_usable() {
        for (section, setting, words) in [
            ("source", "url = \"\"", "must not be empty"),
            ("store", "url = \"a\\u0000\"", "NUL"),
            ("store", "layout = \"Flat\"", "must be \"flat\" or \"hive\", not \"Flat\""),
            ("export", "lookback = \"3\"", "say \"3d\""),
            ("export", "lookback = \"72h\"", "not a number of whole days"),
            ("export", "settle = \"1h30m\"", "not a length of time"),
            ("export", "max-shrink = \"101%\"", "from \"0%\" to \"100%\""),
            ("export", "max-shrink = \"0.01\"", "from \"0%\" to \"100%\""),
            ("retention", "keep = \"0d\"", "at least one day"),
            ("retention", "grace = \"-1h\"", "not a length of time"),
            ("replica", "max-age = \"0h\"", "more than zero"),
        ] {
            let key = format!("{section}.{}", setting.split(' ').next().expect("a key"));
            refused(&with_setting(section, setting), 3, &key, words);
        }
        for name in ["", "a b", "a/b", "ü", &"a".repeat(64)] {
            refused(&format!("dataset = {name:?}\n[[table]]\nname = \"t\"\n"), 1, "dataset", "1 to 63 letters");
        }
        refused(
            &format!("{BASE}timezone = \"CET+1\"\n[[table]]\nname = \"t\"\n"),
            2,
            "timezone",
            "not an IANA time zone",
        );
        refused(&with_table("time-column = \"at\"\ncolumn-timezone = \"here\""), 5, "table.column-timezone", "IANA");
        let abbreviation = with_table("time-column = \"at\"\ncolumn-timezone = \"CET\"");
        refused(&abbreviation, 5, "table.column-timezone", "Europe/Brussels");
        refused(&with_table("where = \" \""), 4, "table.where", "must not be empty");
        refused(&with_table("relation = \"matview\""), 4, "table.relation", "not \"matview\"");
        refused(&with_table("inheritance = \"both\""), 4, "table.inheritance", "must be \"only\" or \"include\"");
        refused(&with_table("time-column = \"at\"\nnull-time = \"keep\""), 5, "table.null-time", "\"exclude\"");
    }

    #[test]
    fn a_format_that_copy_does_not_have() {
        for format in ["parquet", "CSV", ""] {
            let words = "must be \"text\" or \"csv\" or \"binary\"";
            refused(&with_table(&format!("format = {format:?}")), 4, "table.format", words);
        }
    }

    #[test]
    fn names_that_no_table_or_column_can_have() {
        let long = "x".repeat(64);
        for (name, words) in [
            ("", "empty name"),
            ("a.b.c", "too many parts"),
            ("\"a", "not closed"),
            ("a\0", "NUL"),
            (&*long, "64 bytes"),
        ] {
            let toml = toml::Value::from(name).to_string();
            refused(&format!("{BASE}[[table]]\nname = {toml}\n"), 3, "table.name", words);
        }
        refused(&with_table("time-column = \"t.at\""), 4, "table.time-column", "must be one column's name");
    }

    #[test]
    fn a_table_that_is_configured_twice() {
        let text = format!("{BASE}[[table]]\nname = \"t\"\n[[table]]\nname = '\"public\".t'\n");
        refused(&text, 5, "table.name", "t is configured already, at line 3");
    }

    #[test]
    fn time_together_with_rows() {
        refused(&with_table("rows = \"all\"\ntime-column = \"at\""), 4, "table.rows", "excludes time-column");
    }

    #[test]
    fn settings_of_time_without_a_time_column() {
        for setting in ["column-timezone = \"UTC\"", "epoch-unit = \"s\"", "null-time = \"refuse\""] {
            let key = format!("table.{}", setting.split(' ').next().expect("a key"));
            refused(&with_table(setting), 4, &key, "needs time-column");
        }
    }

    #[test]
    fn a_zone_together_with_an_epoch() {
        let settings = "time-column = \"at\"\nepoch-unit = \"s\"\ncolumn-timezone = \"UTC\"";
        refused(&with_table(settings), 5, "table.epoch-unit", "excludes column-timezone (line 6)");
    }

    #[test]
    fn references_that_are_incomplete() {
        let other = "[[table]]\nname = \"m\"\n";
        let with = |settings: &str| with_table(&format!("{settings}\n{other}"));
        refused(&with("rows = \"referenced\"\nkey = [\"id\"]"), 4, "table.rows", "needs referenced-by");
        refused(&with("rows = \"referenced\"\nreferenced-by = [\"m.t\"]"), 4, "table.rows", "needs key");
        refused(&with("rows = \"all\"\nreferenced-by = [\"m.t\"]"), 5, "table.referenced-by", "rows = \"referenced\"");
        refused(&with("referenced-by = [\"m.t\"]"), 4, "table.referenced-by", "rows = \"referenced\"");
        let referenced =
            |by: &str, key: &str| with(&format!("rows = \"referenced\"\nreferenced-by = {by}\nkey = {key}"));
        refused(&referenced("[]", "[\"id\"]"), 5, "table.referenced-by", "must not be empty");
        refused(&referenced("[\"m.t\"]", "[]"), 6, "table.key", "must not be empty");
        refused(&referenced("[\"t\"]", "[\"id\"]"), 5, "table.referenced-by", "must name a table and its column");
        refused(&referenced("[\"m.t\", \"m.t\"]", "[\"id\"]"), 5, "table.referenced-by", "twice");
        refused(
            &referenced("[\n\"m.t\",\n\"m.(a, b)\"\n]", "[\"id\"]"),
            7,
            "table.referenced-by",
            "2 columns where key names 1 column",
        );
        refused(
            &referenced("[\"m.t\"]", "[\"a\", \"b\"]"),
            5,
            "table.referenced-by",
            "1 column where key names 2 columns",
        );
    }

    #[test]
    fn a_reference_from_outside_the_dataset() {
        let text = with_table(
            "rows = \"referenced\"\nreferenced-by = [\n\"app.m.t\"]\nkey = [\"id\"]\n[[table]]\nname = \"m\"",
        );
        refused(&text, 6, "table.referenced-by", "app.m is not a table of this dataset");
    }

    #[test]
    fn a_reference_to_a_table_whose_name_is_wrong_is_not_a_second_problem() {
        let text = with_table("rows = \"referenced\"\nreferenced-by = [\"m.t\"]\nkey = [\"id\"]\n[[table]]\nname = 3");
        refused(&text, 8, "table.name", "must be a table's name in quotes");
    }

    fn referenced(name: &str, by: &str) -> String {
        format!("[[table]]\nname = {name:?}\nrows = \"referenced\"\nkey = [\"id\"]\nreferenced-by = [{by:?}]\n")
    }

    #[test]
    fn tables_that_refer_to_each_other_in_a_circle() {
        let circle =
            [referenced("hang", "c.x"), referenced("a", "b.x"), referenced("b", "c.x"), referenced("c", "a.x")];
        let text = format!("{BASE}{}", circle.concat());
        refused(&text, 11, "table.referenced-by", "(a ← b ← c ← a): carry one of them whole, with rows = \"all\"");
        let alone = format!("{BASE}{}", referenced("app.self", "app.self.parent"));
        refused(&alone, 6, "table.referenced-by", "(app.self ← app.self)");
        let whole = alone.replace("rows = \"referenced\"", "rows = \"all\"");
        refused(&whole, 6, "table.referenced-by", "needs rows = \"referenced\"");
    }

    #[test]
    fn two_circles_are_two_problems() {
        let circles = [referenced("a", "b.x"), referenced("b", "a.x"), referenced("c", "d.x"), referenced("d", "c.x")];
        let problems = problems(&format!("{BASE}{}", circles.concat()));
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [6, 16], "{problems:?}");
    }

    #[test]
    fn column_lists_that_are_empty_or_repeat_themselves() {
        for key in ["columns", "key"] {
            refused(&with_table(&format!("{key} = []")), 4, &format!("table.{key}"), "must not be empty");
            let twice = format!("{key} = [\n\"a\",\n\"b\",\n'\"a\"']");
            refused(&with_table(&twice), 7, &format!("table.{key}"), "names the column \"a\" twice");
        }
    }

    #[test]
    fn key_and_time_outside_the_published_columns() {
        let columns = "columns = [\"id\", \"at\"]";
        refused(
            &with_table(&format!("{columns}\nkey = [\"id\",\n\"n\"]")),
            6,
            "table.key",
            "\"n\", which is not among",
        );
        refused(
            &with_table(&format!("{columns}\ntime-column = \"At\"")),
            5,
            "table.time-column",
            "\"At\", which is not among",
        );
    }
}

mod reports {
    use super::*;

    const MANY: &str = r#"dataset = "d d"
[retention]
keep = "15"
[export]
jobs = 0
lookbak = "3d"
[[table]]
name = "t"
rows = "some"
[[table]]
time-column = 3
[stor]
url = "secret"
"#;

    #[test]
    fn all_problems_are_reported_at_once_in_the_order_of_lines() {
        let error = parse(MANY, Path::new("conf/my.toml")).expect_err("much is wrong");
        let text = error.to_string();
        let heads: Vec<&str> = text.lines().map(|line| line.split(": ").next().expect("a head")).collect();
        assert_eq!(heads, [1, 3, 5, 6, 9, 10, 11, 12].map(|line| format!("conf/my.toml:{line}")), "{text}");
        assert!(text.contains("conf/my.toml:6: export.lookbak: unknown key; did you mean \"lookback\"?"), "{text}");
    }

    #[test]
    fn a_report_is_a_failure_of_usage_with_a_next_step() {
        let failure = Failure::from(parse(MANY, Path::new("my.toml")).expect_err("much is wrong"));
        assert_eq!(failure.class, Class::Usage);
        assert_eq!(failure.what.lines().count(), 8);
        assert!(failure.next.expect("a next step").contains("config/full.toml"));
    }

    #[test]
    fn whatever_is_cut_from_a_file_problems_are_on_lines_that_it_has() {
        let full = example("full.toml");
        let cuts = full.char_indices().map(|(end, _)| full[..end].to_owned());
        let lines: Vec<&str> = full.lines().collect();
        let gaps = (0..lines.len()).map(|gap| [&lines[..gap], &lines[gap + 1..]].concat().join("\n"));
        let mut refusals = 0;
        for text in cuts.chain(gaps) {
            if let Err(error) = parse(&text, Path::new("cut.toml")) {
                let ConfigError::Invalid { problems, .. } = error else { panic!("{error}") };
                assert!(!problems.is_empty() && problems.is_sorted_by_key(|problem| problem.line));
                let last = text.split('\n').count();
                assert!(problems.iter().all(|problem| (1..=last).contains(&problem.line)), "{problems:?}");
                refusals += 1;
            }
        }
        assert!(refusals > 100, "{refusals}");
    }

    #[test]
    fn a_report_repeats_no_address_and_no_line_breaks() {
        let text =
            with_table("\"a\\nb\" = 1\n[source]\nurl = [\"postgres://u:secret@h\"]\n[store]\nlayout = \"\\n\\n\"");
        let report = parse(&text, Path::new("my.toml")).expect_err("much is wrong").to_string();
        assert_eq!(report.lines().count(), 3, "{report}");
        assert!(!report.contains("secret"), "{report}");
        let unquoted = parse("[source]\nurl = postgres://u:secret@h\n", Path::new("my.toml")).expect_err("no quotes");
        assert!(!unquoted.to_string().contains("secret"), "{unquoted}");
    }
}
