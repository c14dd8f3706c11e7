-- Sessions of this database whose transaction could still add rows to a window: begun before its end, or hidden.
-- Asked in autocommit: inside a transaction pg_stat_activity stands still. Never the xmin horizon, which lets go of
-- transactions that began before the end and write later.
-- $1 timestamptz: the window's end.
select
    a.pid,
    coalesce(a.application_name, '') as application,
    a.xact_start
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database()
    and a.pid <> pg_catalog.pg_backend_pid()
    and coalesce(a.backend_type, '') not in ('autovacuum worker', 'walsender')
    and (
        a.xact_start < $1::timestamptz
        or (a.xact_start is null and (a.query = '<insufficient privilege>' or a.state = 'disabled'))
    )
order by a.xact_start nulls last, a.pid;
