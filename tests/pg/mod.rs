//! The blocking session against a real server: what it reads is what psql reads, and nothing that goes wrong looks
//! like an end.

mod impostor;
mod login;
mod pins;

use std::time::{Duration, Instant};

use pgslice::error::Class;
use pgslice::pg::{Endpoint, PgError, Session, TransactionState};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Database, source};

fn endpoint(url: &str) -> Endpoint {
    Endpoint::parse(url).expect("a connection string")
}

fn session(url: &str) -> Session {
    endpoint(url).session(&CancellationToken::new()).expect("a session")
}

/// All rows of a COPY, and the server's count.
fn copy(session: &mut Session, sql: &str) -> Result<(Vec<Vec<u8>>, u64), PgError> {
    let mut rows = Vec::new();
    let count = session.copy_out(sql, |row| {
        rows.push(row.to_vec());
        Ok::<(), PgError>(())
    })?;
    Ok((rows, count))
}

/// Waits for the server to have nothing running in the session with that process id.
fn ends_within(longest: Duration, database: &Database, pid: i32) -> bool {
    let running = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'");
    let begun = Instant::now();
    while begun.elapsed() < longest {
        if database.psql(&running) == "0" {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Rows that flow from the start: in FROM the function would be gathered first.
const ENDLESS: &str = "COPY (SELECT generate_series(1, 1000000000), repeat('x', 100)) TO STDOUT";

#[test]
fn rows_and_their_count_are_those_of_psql() {
    let database = source().create_database("rows");
    database.psql(
        r#"CREATE TABLE t (i int, t text, j jsonb, ts timestamptz, d date, iv interval, f float8, b bytea, a text[]);
          INSERT INTO t VALUES
            (1, E'tab\t newline\n return\r backslash\\ \\. dot', '{"k": "\\u00e4"}', '2024-05-01 12:00:00.000001+02',
             '0044-03-15 BC', '-1 mons +2 days -00:00:00.000001', 0.1::float8 + 0.2::float8, '\x00ff', '{a,NULL,""}'),
            (2, '', 'null', 'infinity', '9999-12-31', '1 year', 'NaN', '', '{}'),
            (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
          INSERT INTO t (i, t) SELECT i, repeat(chr(64 + i % 60), i % 3000) FROM generate_series(4, 20000) i;"#,
    );
    let sql = "COPY (SELECT * FROM public.t ORDER BY i) TO STDOUT";
    let (rows, count) = copy(&mut session(&database.url), sql).expect("a complete COPY");
    assert_eq!(count, 20_000);
    assert_eq!(rows.len(), 20_000, "one call per row");
    assert!(rows.iter().all(|row| row.ends_with(b"\n")));
    let psql = database.psql(&format!("SET timezone = 'UTC'; {sql}")) + "\n";
    assert!(rows.concat() == psql.as_bytes(), "the bytes differ from psql's");
    let over_tcp = copy(&mut session(&database.tcp_url()), sql).expect("a complete COPY");
    assert!(over_tcp.0 == rows);
}

#[test]
fn no_rows_are_a_count_of_zero() {
    let database = source().create_database("none");
    let (rows, count) = copy(&mut session(&database.url), "COPY (SELECT 1 WHERE false) TO STDOUT").expect("a COPY");
    assert_eq!((rows.len(), count), (0, 0));
}

#[test]
fn a_row_of_two_hundred_megabytes_comes_whole() {
    let database = source().create_database("huge");
    let mut lengths = Vec::new();
    let sql = "COPY (SELECT repeat('x', n) FROM (VALUES (1), (200 << 20), (2)) v(n)) TO STDOUT";
    let count = session(&database.url)
        .copy_out(sql, |row| {
            lengths.push(row.len());
            Ok::<(), PgError>(())
        })
        .expect("a complete COPY");
    assert_eq!((count, lengths), (3, vec![2, (200 << 20) + 1, 3]));
}

#[test]
fn a_failing_callback_ends_the_query_on_the_server_and_the_session() {
    #[derive(Debug, PartialEq)]
    enum Stopped {
        OnPurpose,
        Otherwise,
    }
    impl From<PgError> for Stopped {
        fn from(_: PgError) -> Self {
            Stopped::Otherwise
        }
    }
    let database = source().create_database("callback");
    let mut session = session(&database.url);
    let mut rows = 0;
    let stopped = session.copy_out(ENDLESS, |_| {
        rows += 1;
        if rows == 10 { Err(Stopped::OnPurpose) } else { Ok(()) }
    });
    assert_eq!(stopped, Err(Stopped::OnPurpose));
    assert!(ends_within(Duration::from_secs(2), &database, session.backend_pid()));
    assert!(matches!(session.run("SELECT 1"), Err(PgError::Broken)));
}

#[test]
fn a_cancelled_token_ends_a_copy_within_a_second_whether_rows_flow_or_not() {
    let database = source().create_database("cancelled");
    for sql in [ENDLESS, "COPY (SELECT pg_sleep(60)) TO STDOUT"] {
        let cancel = CancellationToken::new();
        let mut session = endpoint(&database.url).session(&cancel).expect("a session");
        let ending = std::thread::scope(|scope| {
            let canceller = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                cancel.cancel();
                Instant::now()
            });
            let ending = session.copy_out(sql, |_| Ok::<(), PgError>(())).expect_err("cancelled");
            let cancelled_at = canceller.join().expect("the canceller ends");
            assert!(cancelled_at.elapsed() < Duration::from_secs(1), "{sql}");
            ending
        });
        assert!(matches!(ending, PgError::Cancelled), "{sql}: {ending}");
        assert_eq!(ending.class(), Class::Interrupted);
        assert!(ends_within(Duration::from_secs(2), &database, session.backend_pid()), "{sql}");
    }
}

#[test]
fn a_backend_terminated_in_the_middle_is_an_error_and_not_an_end() {
    let database = source().create_database("terminated");
    let mut session = session(&database.url);
    let pid = session.backend_pid();
    let mut rows = 0;
    let ending = session
        .copy_out(ENDLESS, |_| {
            rows += 1;
            if rows == 1000 {
                database.psql(&format!("SELECT pg_terminate_backend({pid})"));
            }
            Ok::<(), PgError>(())
        })
        .expect_err("the server went away");
    assert_eq!(ending.class(), Class::Transient, "{ending}");
    assert!(matches!(session.run("SELECT 1"), Err(PgError::Broken)));
}

#[test]
fn an_error_of_the_server_in_the_middle_leaves_the_session_usable() {
    let database = source().create_database("middle");
    let mut session = session(&database.url);
    let error = copy(&mut session, "COPY (SELECT 1 / (50000 - i) FROM generate_series(1, 100000) i) TO STDOUT")
        .expect_err("a division by zero");
    assert_eq!(error.code(), Some("22012"));
    assert_eq!(copy(&mut session, "COPY (SELECT 1) TO STDOUT").expect("usable").1, 1);
}

#[test]
fn rows_sent_in_any_pieces_are_loaded_and_counted() {
    let database = source().create_database("load");
    database.psql("CREATE TABLE t (i int, filler text)");
    let lines: Vec<u8> = (0..50_000).flat_map(|i| format!("{i}\t{}\n", "y".repeat(i % 100)).into_bytes()).collect();
    let mut session = session(&database.url);
    for piece in [17, 4096, 262_144, lines.len()] {
        session.run("TRUNCATE public.t").expect("empty");
        let mut copy = session.copy_in("COPY public.t FROM STDIN").expect("a COPY");
        lines.chunks(piece).for_each(|piece| copy.send(piece).expect("taken"));
        assert_eq!(copy.finish().expect("loaded"), 50_000);
        assert_eq!(database.psql("SELECT count(*), sum(i), sum(length(filler)) FROM t"), "50000|1249975000|2475000");
    }
}

#[test]
fn a_refusal_of_the_first_line_is_noticed_while_a_gigabyte_is_being_sent() {
    let database = source().create_database("refused");
    database.psql("CREATE TABLE t (i int)");
    let mut session = session(&database.url);
    session.run("BEGIN").expect("a transaction");
    let lines = b"1234567\n".repeat(1 << 17);
    let mut copy = session.copy_in("COPY public.t FROM STDIN").expect("a COPY");
    copy.send(b"no number\n").expect("gathered");
    let mut sent_bytes = 0_usize;
    let error = loop {
        assert!(sent_bytes < 1 << 30, "a whole gigabyte was sent");
        match copy.send(&lines) {
            Ok(()) => sent_bytes += lines.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Some("22P02"));
    assert!(sent_bytes < 16 << 20, "{sent_bytes} bytes were sent");
    assert!(copy.send(&lines).is_err());
    drop(copy);
    assert!(session.in_failed_transaction());
    session.run("ROLLBACK").expect("the session is usable");
    assert_eq!(session.transaction_state(), TransactionState::Idle);
}

#[test]
fn a_refusal_of_the_last_line_is_noticed_at_the_end() {
    let database = source().create_database("last");
    database.psql("CREATE TABLE t (i int UNIQUE)");
    let mut session = session(&database.url);
    let mut copy = session.copy_in("COPY public.t FROM STDIN").expect("a COPY");
    copy.send(b"1\n1\n").expect("gathered");
    assert!(copy.finish().expect_err("a key twice").is_unique_violation());
    assert_eq!(session.query("SELECT count(*) FROM public.t", &[]).expect("usable")[0].get(0), Some("0"));
}

#[test]
fn a_flood_of_notices_does_not_stop_a_load() {
    let database = source().create_database("notices");
    database.psql(
        "CREATE TABLE t (i int);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE NOTICE '%', repeat('n', 2000); RETURN new; END $$;
         CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();",
    );
    let mut session = session(&database.url);
    session.run("SET client_min_messages = notice").expect("set");
    // A deadlock would end as NoProgress.
    session.set_no_progress(Duration::from_secs(5));
    let mut copy = session.copy_in("COPY public.t FROM STDIN").expect("a COPY");
    for _ in 0..200 {
        copy.send(&b"1234567890\n".repeat(200)).expect("taken");
    }
    assert_eq!(copy.finish().expect("loaded"), 40_000);
}

#[test]
fn a_load_that_is_dropped_leaves_no_rows_and_a_usable_session() {
    let database = source().create_database("dropped");
    database.psql("CREATE TABLE t (i int)");
    let mut session = session(&database.url);
    let mut copy = session.copy_in("COPY public.t FROM STDIN").expect("a COPY");
    copy.send(&b"1\n".repeat(1 << 20)).expect("taken");
    drop(copy);
    assert_eq!(session.query("SELECT count(*) FROM public.t", &[]).expect("usable")[0].get(0), Some("0"));
}

#[test]
fn a_backend_terminated_during_a_load_says_so() {
    let database = source().create_database("load_end");
    database.psql("CREATE TABLE t (i int)");
    let mut session = session(&database.url);
    let pid = session.backend_pid();
    let mut copy = session.copy_in("COPY public.t FROM STDIN").expect("a COPY");
    database.psql(&format!("SELECT pg_terminate_backend({pid})"));
    let error = (0..100).find_map(|_| copy.send(&b"1\n".repeat(1 << 20)).err()).expect("the server went away");
    assert_eq!(error.code(), Some("57P01"), "{error}");
    drop(copy);
    assert!(matches!(session.run("SELECT 1"), Err(PgError::Broken)));
}

#[test]
fn parameters_go_as_text_and_rows_come_as_text() {
    let database = source().create_database("params");
    let mut session = session(&database.url);
    let rows = session
        .query(
            "SELECT $1::int + 1, $2::text, $3::text, length($4::text)",
            &[Some("41"), Some("ä'\\\n"), None, Some("")],
        )
        .expect("one row");
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!((row.get(0), row.get(1), row.get(2), row.get(3)), (Some("42"), Some("ä'\\\n"), None, Some("0")));
    assert!(row.text(2).is_err() && row.text(9).is_err());
    assert_eq!(row.text(0).expect("a value"), "42");
    assert_eq!(session.query("SELECT 1 WHERE false", &[]).expect("no rows").len(), 0);
}

#[test]
fn affected_rows_are_the_servers_count() {
    let database = source().create_database("affected");
    let mut session = session(&database.url);
    assert_eq!(session.execute("CREATE TABLE public.t (i int)", &[]).expect("made"), 0);
    let insert = "INSERT INTO public.t SELECT generate_series(1, $1::int)";
    assert_eq!(session.execute(insert, &[Some("7")]).expect("inserted"), 7);
    assert_eq!(session.execute("DELETE FROM public.t WHERE i > $1::int", &[Some("4")]).expect("deleted"), 3);
}

#[test]
fn after_an_error_the_session_is_ready_again() {
    let database = source().create_database("ready");
    let mut session = session(&database.url);
    for attempt in 0..3 {
        let error = session.query("SELECT * FROM public.nothing", &[]).expect_err("no such table");
        assert_eq!((error.code(), error.class()), (Some("42P01"), Class::Drift));
        assert!(session.query("SELECT $1::int", &[Some("no number")]).is_err());
        assert!(session.run("SELECT 1; SELECT nothing; SELECT 2").is_err());
        assert!(session.copy_in("COPY public.nothing FROM STDIN").is_err());
        assert!(copy(&mut session, "COPY public.nothing TO STDOUT").is_err());
        assert_eq!(session.query("SELECT 1", &[]).expect("ready").len(), 1, "attempt {attempt}");
    }
}

#[test]
fn the_state_of_the_transaction_is_the_servers() {
    let database = source().create_database("state");
    let mut session = session(&database.url);
    session.run("BEGIN").expect("begun");
    assert_eq!(session.transaction_state(), TransactionState::Open);
    assert!(session.query("SELECT 1/0", &[]).is_err());
    assert!(session.in_failed_transaction());
    session.run("ROLLBACK").expect("rolled back");
    assert_eq!(session.transaction_state(), TransactionState::Idle);
}

#[test]
fn a_copy_that_is_none_is_an_error() {
    let database = source().create_database("other");
    assert!(matches!(copy(&mut session(&database.url), "SELECT 1"), Err(PgError::Protocol(_))));
    assert!(matches!(session(&database.url).run("COPY (SELECT 1) TO STDOUT"), Err(PgError::Protocol(_))));
    let nul = session(&database.url).run("SELECT '\0'");
    assert!(matches!(nul, Err(PgError::Protocol(_))));
}

/// A table with every kind of constraint, and rows that break each of them with `S3CRET` in some value.
const CONSTRAINED: &str = "
    CREATE TYPE mood AS ENUM ('ok');
    CREATE DOMAIN short AS text CHECK (length(value) < 3);
    CREATE TABLE parent (id text PRIMARY KEY);
    CREATE TABLE t (id text UNIQUE, i int, n numeric(3), v varchar(3), m mood, d date, j jsonb, b bytea, u uuid,
                    s short, parent text REFERENCES parent, c text CHECK (c <> 'S3CRET'), nn text NOT NULL DEFAULT '',
                    a int[], EXCLUDE (c WITH =));
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN IF new.id = 'S3CRET-raise' THEN RAISE 'S3CRET' USING HINT = 'S3CRET', ERRCODE = '42501'; END IF;
         RETURN new; END $$;
    CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
    INSERT INTO t (id, c) VALUES ('S3CRET', 'S3CRET-twice');";

const BREAKING: [(&str, &str); 16] = [
    ("i", "S3CRET"),
    ("i", "99999999999999"),
    ("n", "31337999"),
    ("v", "S3CRET"),
    ("m", "S3CRET"),
    ("d", "2024-13-31337"),
    ("d", "S3CRET"),
    ("j", r#"{"S3CRET": S3CRET}"#),
    ("b", r"\\xS3CRET"),
    ("u", "S3CRET"),
    ("s", "S3CRET"),
    ("parent", "S3CRET"),
    ("c", "S3CRET"),
    ("c", "S3CRET-twice"),
    ("a", "{S3CRET"),
    ("id", "S3CRET-raise"),
];

#[test]
fn no_value_of_a_row_is_in_the_text_of_an_error() {
    let database = source().create_database("values");
    database.psql(CONSTRAINED);
    let mut session = session(&database.url);
    let refusals = BREAKING.map(|(column, value)| {
        let mut copy = session.copy_in(&format!("COPY public.t ({column}) FROM STDIN")).expect("a COPY");
        copy.send(format!("{value}\n").as_bytes()).expect("gathered");
        copy.finish().expect_err(value)
    });
    for ((column, value), error) in BREAKING.iter().zip(refusals) {
        let told = format!("{error} {error:?}");
        for secret in ["S3CRET", "31337", "99999999999999"] {
            assert!(!told.contains(secret), "{column} {value}: {told}");
        }
        assert!(error.code().is_some_and(|code| told.contains(code)), "{told}");
    }
    let error = session.execute("INSERT INTO public.t (id) VALUES ($1)", &[Some("S3CRET")]).expect_err("a key twice");
    assert!(error.is_unique_violation());
    assert!(!error.to_string().contains("S3CRET") && error.to_string().contains("t_id_key"), "{error}");
}

#[test]
fn an_error_of_a_load_says_where() {
    let database = source().create_database("place");
    database.psql("CREATE TABLE t (i int, word text NOT NULL)");
    let mut session = session(&database.url);
    let mut copy = session.copy_in("COPY public.t FROM STDIN").expect("a COPY");
    copy.send(b"1\ta\nx1\tb\n").expect("gathered");
    let error = copy.finish().expect_err("no number").to_string();
    assert!(error.contains("COPY t, line 2, column i"), "{error}");
    let mut copy = session.copy_in("COPY public.t FROM STDIN").expect("a COPY");
    copy.send(b"1\t\\N\n").expect("gathered");
    let error = copy.finish().expect_err("a NULL").to_string();
    assert!(error.contains(r#"null value in column "word" of relation "t""#), "{error}");
}

#[tokio::test]
async fn the_drivers_errors_hold_no_values_either() {
    let database = source().create_database("driver");
    database.psql(CONSTRAINED);
    let client = endpoint(&database.url).client().await.expect("a client");
    for (column, value) in BREAKING {
        let statement = format!("INSERT INTO public.t ({column}) VALUES (E'{value}')");
        let error = PgError::from(client.batch_execute(&statement).await.expect_err(value));
        let told = format!("{error} {error:?}");
        assert!(!told.contains("S3CRET") && !told.contains("31337"), "{column} {value}: {told}");
        assert!(error.code().is_some(), "{told}");
    }
    let missing = client.batch_execute("SELECT * FROM public.nothing").await.expect_err("no such table");
    assert_eq!(pgslice::pg::class_of_driver(&missing), Class::Drift);
}
