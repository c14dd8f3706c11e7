//! A database whose clock shows what a test wants: what pgslice asks for the time, and when transactions began.

use crate::cluster::Database;

/// The clock of a database; it goes on from what it was set to.
#[derive(Debug)]
pub(crate) struct Clock<'d> {
    database: &'d Database,
}

impl<'d> Clock<'d> {
    /// Takes the place of the database's own clock, and shows `instant`.
    pub(crate) fn showing(database: &'d Database, instant: &str) -> Clock<'d> {
        database.psql(
            r"CREATE TABLE clock (ahead interval NOT NULL, began timestamptz);
              INSERT INTO clock VALUES ('0', NULL);
              GRANT SELECT ON clock TO PUBLIC;
              SET allow_system_table_mods = on;
              UPDATE pg_proc SET proname = 'straight_clock' WHERE oid = 'clock_timestamp()'::regprocedure;
              CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql
              AS $$ SELECT pg_catalog.straight_clock() + (SELECT ahead FROM public.clock) $$;
              SELECT 'CREATE OR REPLACE VIEW pg_catalog.pg_stat_activity AS '
                  || replace(pg_get_viewdef('pg_catalog.pg_stat_activity'),
                             's.xact_start',
                             '(SELECT CASE WHEN s.xact_start IS NOT NULL THEN coalesce(began, s.xact_start + ahead) END
                               FROM public.clock) AS xact_start')
              \gexec",
        );
        let clock = Clock::of(database);
        clock.show(instant);
        clock
    }

    /// The one that a database was given before.
    pub(crate) fn of(database: &'d Database) -> Clock<'d> {
        Clock { database }
    }

    /// Lets whatever transaction is open seem to have begun at `instant`.
    pub(crate) fn transactions_began(&self, instant: &str) {
        self.database.psql(&format!("UPDATE clock SET began = '{instant}'"));
    }

    /// Sets it.
    pub(crate) fn show(&self, instant: &str) {
        self.database.psql(&format!("UPDATE clock SET ahead = '{instant}'::timestamptz - pg_catalog.straight_clock()"));
    }
}
