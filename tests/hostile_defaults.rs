//! Roles and databases whose defaults would change what is read, how it looks, or whether it gets through at all: the
//! rows are the same on both sides all the same.

use crate::cluster::{Cluster, Database};
use crate::pair::{Pair, rows};
use crate::scene::Scene;

/// A column of each kind that a default can change.
const SCHEMA: &str = "
CREATE TABLE public.entries (
    id int PRIMARY KEY,
    at timestamptz NOT NULL,
    stamp timestamp,
    \"date\" date,
    span interval,
    single real,
    number double precision,
    amount money,
    bytes bytea,
    body text,
    document xml,
    words text[],
    tree jsonb
);
CREATE TABLE public.kinds (id int PRIMARY KEY, name text UNIQUE);
";

const TABLES: &str = "
[[table]]
name = \"entries\"
time-column = \"at\"
";

/// Rows around the borders of days, with values whose text depends on settings.
const ROWS: &str = r"
INSERT INTO public.entries
SELECT i, '2024-03-31 22:00+00'::timestamptz + i * interval '13 minutes', '2024-02-01 03:04:05.678901'::timestamp + i * interval '1 day',
       '2024-01-02'::date + i, (i * interval '1 month - 2 days 03:04:05.678901') - interval '1 year', 0.1::real * i, 0.1::float8 * i + 0.2,
       (i * 1234.56)::numeric::money, decode(md5(i::text), 'hex'), E'tab\tback\\slash ä € ' || i, xmlparse(CONTENT 'two <b/> parts'),
       ARRAY['NULL', NULL, 'a,b', i::text], jsonb_build_object('at', '2024-05-01'::date, 'number', i)
FROM generate_series(1, 400) i;
";

/// A schema before which nobody's names are safe: operators, functions, casts and tables that shadow the real ones.
const EVIL: &str = r"
CREATE SCHEMA evil;
CREATE FUNCTION evil.lie(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE OPERATOR evil.>= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = evil.lie);
CREATE OPERATOR evil.< (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = evil.lie);
CREATE FUNCTION evil.lie(integer, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR evil.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = evil.lie);
CREATE FUNCTION evil.lie(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.lie);
CREATE FUNCTION evil.count(anyelement) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT '1970-01-01'::timestamptz$$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT '1970-01-01'::timestamptz$$;
CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION evil.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION evil.pg_try_advisory_lock(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$SELECT ''$$;
CREATE TYPE evil.text AS ENUM ('evil');
CREATE TYPE evil.int4 AS ENUM ('evil');
CREATE TABLE evil.entries (LIKE public.entries);
CREATE TABLE evil.pg_class (oid oid, relname name, relnamespace oid, relkind char);
CREATE TABLE evil.pg_attribute (attrelid oid);
CREATE TABLE evil.pg_settings (name text, setting text);
CREATE VIEW evil.pg_stat_activity AS SELECT 1 AS pid, now() - interval '1 hour' AS xact_start;
";

/// Whose default it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Role,
    Database,
}

/// A pair of databases that are worked on by roles of their own.
struct Hostile {
    pair: Pair,
    role: String,
}

impl Hostile {
    /// Both sides with what they hold, a role that may do what the documentation says, and these defaults.
    fn new(whose: Whose, defaults: &[(&str, &str)]) -> Hostile {
        let pair = Pair::with_empty_replica(SCHEMA, TABLES);
        pair.replica.psql(SCHEMA);
        pair.source.psql(ROWS);
        let role = format!("hostile_{}", pair.source.name);
        for database in [&pair.source, &pair.replica] {
            database.psql(EVIL);
            let name = &database.name;
            database.psql(&format!(
                "CREATE ROLE {role} LOGIN;
                 GRANT pg_read_all_stats TO {role};
                 GRANT ALL ON public.entries TO {role};
                 GRANT ALL ON SCHEMA evil TO {role};
                 GRANT ALL ON ALL TABLES IN SCHEMA evil TO {role};
                 GRANT CREATE, TEMPORARY ON DATABASE \"{name}\" TO {role};"
            ));
        }
        let mut hostile = Hostile { pair, role };
        for database in [&hostile.pair.source, &hostile.pair.replica] {
            hostile.spoil(database, whose, defaults);
        }
        let [source, replica] = [&hostile.pair.source, &hostile.pair.replica].map(|database| hostile.url_of(database));
        hostile.pair.scene.publish_from(&source);
        hostile.pair.scene.top_off(&replica);
        hostile
    }

    fn url_of(&self, database: &Database) -> String {
        database.url.replace("user=postgres", &format!("user={}", self.role))
    }

    /// Defaults of the role or of the database, set from another one: in this one nobody can work any more.
    fn spoil(&self, database: &Database, whose: Whose, defaults: &[(&str, &str)]) {
        let target = match whose {
            Whose::Role => format!("ROLE {}", self.role),
            Whose::Database => format!("DATABASE \"{}\"", database.name),
        };
        let script: String =
            defaults.iter().map(|(name, value)| format!("ALTER {target} SET {name} = {value};\n")).collect();
        database.cluster().psql("postgres", &script).expect("set defaults");
    }

    /// Exports, catches up, changes rows, and does both again. Panics unless both sides are equal each time.
    fn goes_through(&self) {
        let [source, replica] = [&self.pair.source, &self.pair.replica].map(Plain::of);
        self.scene().pgslice(&["export", "--from", "2024-03-31", "--to", "2024-04-04"]).exits(0);
        self.scene().pgslice(&["catchup"]).exits(0);
        assert_eq!(source.rows(), replica.rows(), "left: the source");
        assert_eq!(source.count(), "400");
        source.psql("UPDATE public.entries SET body = 'changed', at = at + interval '1 day' WHERE id % 50 = 1");
        source.psql("DELETE FROM public.entries WHERE id % 50 = 2");
        let again = ["export", "--from", "2024-03-31", "--to", "2024-04-05", "--accept-shrink"];
        self.scene().pgslice(&again).exits(0);
        self.scene().pgslice(&["catchup"]).exits(0);
        assert_eq!(source.rows(), replica.rows(), "left: the source");
        self.scene().pgslice(&["status"]).exits(0);
        // The decoys were left alone.
        assert_eq!(replica.psql("SELECT pg_catalog.count(*) FROM evil.entries"), "0");
    }

    fn scene(&self) -> &Scene {
        &self.pair.scene
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // The roles stay in their clusters, which end with the tests, but must own nothing in databases that are dropped.
        for database in [&self.pair.source, &self.pair.replica] {
            let _ = database.cluster().psql("postgres", &format!("ALTER ROLE {} NOLOGIN", self.role));
        }
    }
}

/// A database as the superuser sees it, whatever its defaults are.
struct Plain<'a>(&'a Database);

impl Plain<'_> {
    fn of(database: &Database) -> Plain<'_> {
        Plain(database)
    }

    fn psql(&self, sql: &str) -> String {
        let settings = include_str!("../sql/session.sql");
        let script = format!("{settings};\nSET default_transaction_read_only = off;\n\\echo rows:\n{sql};\n");
        let printed = self.0.psql(&script);
        printed.split_once("rows:").expect("it is printed").1.trim().to_owned()
    }

    fn rows(&self) -> String {
        self.psql("SELECT e::text FROM public.entries e ORDER BY id")
    }

    fn count(&self) -> String {
        self.psql("SELECT count(*) FROM public.entries")
    }
}

/// Panics unless days go from side to side with these defaults, the roles' and the databases'.
fn goes_through_with(defaults: &[(&str, &str)]) {
    for whose in [Whose::Role, Whose::Database] {
        Hostile::new(whose, defaults).goes_through();
    }
}

fn release(cluster: &Cluster) -> u32 {
    let number = cluster.psql("postgres", "SHOW server_version_num").expect("a number");
    number.trim().parse::<u32>().expect("a number") / 10_000
}

#[test]
fn how_dates_and_times_look_does_not_matter() {
    goes_through_with(&[
        ("datestyle", "'SQL, DMY'"),
        ("timezone", "'America/New_York'"),
        ("intervalstyle", "'sql_standard'"),
        ("timezone_abbreviations", "'Australia'"),
    ]);
    goes_through_with(&[("datestyle", "'German'"), ("timezone", "'Asia/Kathmandu'"), ("intervalstyle", "'iso_8601'")]);
}

#[test]
fn how_numbers_and_bytes_look_does_not_matter() {
    goes_through_with(&[("extra_float_digits", "-15"), ("bytea_output", "'escape'"), ("lc_monetary", "'C.UTF-8'")]);
}

#[test]
fn how_text_is_written_and_read_does_not_matter() {
    goes_through_with(&[
        ("client_encoding", "'LATIN1'"),
        ("standard_conforming_strings", "off"),
        ("backslash_quote", "off"),
        ("escape_string_warning", "on"),
        ("array_nulls", "off"),
        ("xmloption", "document"),
        ("quote_all_identifiers", "on"),
        ("transform_null_equals", "on"),
        ("default_text_search_config", "'pg_catalog.simple'"),
    ]);
}

#[test]
fn whose_names_come_first_does_not_matter() {
    goes_through_with(&[("search_path", "evil, pg_catalog, public")]);
    goes_through_with(&[("search_path", "''"), ("check_function_bodies", "off"), ("row_security", "on")]);
}

#[test]
fn how_long_things_may_take_does_not_matter() {
    let mut defaults = vec![
        ("statement_timeout", "'50ms'"),
        ("idle_in_transaction_session_timeout", "'5ms'"),
        ("lock_timeout", "'1ms'"),
    ];
    let release = release(crate::cluster::source());
    if release >= 14 {
        defaults.push(("idle_session_timeout", "'2s'"));
    }
    if release >= 17 {
        defaults.push(("transaction_timeout", "'150ms'"));
    }
    for whose in [Whose::Role, Whose::Database] {
        let hostile = Hostile::new(whose, &defaults);
        Plain::of(&hostile.pair.replica).psql(
            "CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.2); RETURN NULL; END $$;
             CREATE TRIGGER slowly AFTER INSERT ON public.entries FOR EACH STATEMENT EXECUTE FUNCTION public.slowly()",
        );
        hostile.goes_through();
    }
}

#[test]
fn how_transactions_behave_and_where_things_are_kept_does_not_matter() {
    goes_through_with(&[
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_deferrable", "on"),
        ("synchronous_commit", "off"),
        ("default_tablespace", "''"),
        ("default_table_access_method", "heap"),
        ("temp_tablespaces", "''"),
        ("synchronize_seqscans", "on"),
        ("enable_seqscan", "off"),
        ("enable_indexscan", "off"),
        ("jit_above_cost", "0"),
        ("work_mem", "64"),
        ("exit_on_error", "on"),
        ("client_min_messages", "debug5"),
        ("plan_cache_mode", "force_generic_plan"),
    ]);
}

#[test]
fn everything_at_once_does_not_matter_either() {
    goes_through_with(&[
        ("datestyle", "'Postgres, YMD'"),
        ("timezone", "'Africa/Cairo'"),
        ("intervalstyle", "'postgres_verbose'"),
        ("extra_float_digits", "-3"),
        ("bytea_output", "'escape'"),
        ("client_encoding", "'SQL_ASCII'"),
        ("standard_conforming_strings", "off"),
        ("search_path", "evil"),
        ("statement_timeout", "'50ms'"),
        ("lock_timeout", "1"),
        ("idle_in_transaction_session_timeout", "'5ms'"),
        ("default_transaction_isolation", "serializable"),
        ("exit_on_error", "on"),
    ]);
}

#[test]
fn defaults_that_only_a_superuser_can_set_do_not_matter() {
    goes_through_with(&[
        ("log_statement", "'all'"),
        ("log_min_messages", "debug1"),
        ("log_error_verbosity", "verbose"),
        ("log_min_duration_statement", "0"),
        ("zero_damaged_pages", "off"),
        ("lo_compat_privileges", "on"),
        ("track_activities", "on"),
    ]);
}

#[test]
fn a_source_that_only_reads_is_exported_from() {
    let hostile = Hostile::new(Whose::Role, &[]);
    hostile.spoil(&hostile.pair.source, Whose::Role, &[("default_transaction_read_only", "on")]);
    hostile.goes_through();
    let hostile = Hostile::new(Whose::Database, &[]);
    hostile.spoil(&hostile.pair.source, Whose::Database, &[("default_transaction_read_only", "on")]);
    hostile.goes_through();
}

#[test]
fn a_replica_that_only_reads_is_refused_untouched_and_says_what_to_change() {
    for whose in [Whose::Role, Whose::Database] {
        let hostile = Hostile::new(whose, &[]);
        hostile.scene().pgslice(&["export", "--from", "2024-03-31", "--to", "2024-04-04"]).exits(0);
        hostile.spoil(&hostile.pair.replica, whose, &[("default_transaction_read_only", "on")]);
        let ran = hostile.scene().pgslice(&["catchup"]).exits(6);
        assert!(ran.stderr.contains("default_transaction_read_only"), "{ran}");
        assert_eq!(Plain::of(&hostile.pair.replica).count(), "0");
        // Looking is allowed.
        hostile.scene().pgslice(&["catchup", "--dry-run"]).exits(0);
        hostile.spoil(&hostile.pair.replica, whose, &[("default_transaction_read_only", "off")]);
        hostile.goes_through();
    }
}

#[test]
fn triggers_and_rules_fire_as_the_roles_default_says() {
    // session_replication_role = replica is how an operator keeps triggers quiet: it is not pinned.
    let hostile = Hostile::new(Whose::Role, &[]);
    let replica = Plain::of(&hostile.pair.replica);
    replica.psql(
        "CREATE TABLE public.fired (id int);
         CREATE FUNCTION public.fire() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             AS $$ BEGIN INSERT INTO public.fired VALUES (new.id); RETURN new; END $$;
         CREATE TRIGGER fire AFTER INSERT ON public.entries FOR EACH ROW EXECUTE FUNCTION public.fire()",
    );
    hostile.scene().pgslice(&["export", "--from", "2024-03-31", "--to", "2024-04-01"]).exits(0);
    hostile.scene().pgslice(&["catchup", "--to", "2024-03-31"]).exits(0);
    let fired = "SELECT count(*) FROM public.fired";
    let before = replica.psql(fired);
    assert_ne!(before, "0");
    hostile.spoil(&hostile.pair.replica, Whose::Role, &[("session_replication_role", "replica")]);
    hostile.scene().pgslice(&["catchup"]).exits(0);
    assert_eq!(replica.psql(fired), before);
    assert_eq!(rows(&hostile.pair.replica, "public.entries").lines().count(), 8 + 111);
}
