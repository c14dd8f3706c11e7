-- What a user may do to tables.
-- $1 oid[]: the tables.
select
    n.nspname::text as schema,
    c.relname::text as name,
    c.relkind = 'p' as partitioned,
    c.relpersistence = 'u' as unlogged,
    pg_catalog.has_schema_privilege(n.oid, 'usage') as schema_usage,
    array(
        select wanted.privilege
        from unnest(array['select', 'insert', 'update', 'delete']) with ordinality as wanted (privilege, place)
        where not pg_catalog.has_table_privilege(c.oid, wanted.privilege)
        order by wanted.place
    ) as missing,
    pg_catalog.pg_has_role(c.relowner, 'usage') as owned,
    pg_catalog.has_schema_privilege(n.oid, 'create') as schema_create
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any ($1::oid[])
order by 1, 2;
