-- Sessions of this database whose transaction could still add rows to a window: begun before its end, or hidden.
-- Asked in autocommit: inside a transaction pg_stat_activity stands still. Never the xmin horizon, which lets go of
-- transactions that began before the end and write later.
-- $1 timestamptz: the window's end; $2 text[]: application names that do not matter.
-- `hidden`: 'privilege' from this user, 'untracked' from everybody; NULL where it can be seen.
select
    a.pid,
    coalesce(a.application_name, '') as application,
    a.xact_start,
    case
        when a.xact_start is not null then null
        when a.query = '<insufficient privilege>' then 'privilege'
        else 'untracked'
    end as hidden
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database()
    and a.pid <> pg_catalog.pg_backend_pid()
    and coalesce(a.backend_type, '') not in ('autovacuum worker', 'walsender')
    and coalesce(a.application_name, '') <> all ($2::text[])
    and (
        a.xact_start < $1::timestamptz
        or (a.xact_start is null and (a.query = '<insufficient privilege>' or a.state = 'disabled'))
        -- A session that did not track what it did when its transaction began, or is only beginning to tell of it.
        or (a.xact_start is null and a.state like 'idle in transaction%')
        or (a.xact_start is null and a.state in ('active', 'fastpath function call') and a.query_start < $1::timestamptz)
    )
order by a.xact_start nulls last, a.pid;
