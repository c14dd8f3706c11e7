-- What stands between a catchup and the rows of tables.
-- $1 oid[]: the tables.
select
    c.oid as relation,
    n.nspname::text as schema,
    c.relname::text as name,
    pg_catalog.row_security_active(c.oid) as row_security,
    array(
        select r.rulename::text
        from pg_catalog.pg_rewrite r
        where r.ev_class = c.oid and r.ev_type in ('2', '3', '4') and r.ev_enabled in ('O', 'A')
        order by 1
    ) as rules,
    array(
        select g.tgname::text
        from pg_catalog.pg_trigger g
        where g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled in ('O', 'A')
        order by 1
    ) as triggers
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any ($1::oid[])
order by 2, 3;
