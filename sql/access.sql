-- Whether this user sees every row of relations.
-- $1 oid[]: the relations.
select
    n.nspname::text as schema,
    c.relname::text as name,
    current_user::text as username,
    pg_catalog.has_schema_privilege(n.oid, 'usage') as schema_usage,
    pg_catalog.has_table_privilege(c.oid, 'select') as "select",
    pg_catalog.row_security_active(c.oid) as row_security
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any ($1::oid[])
order by 1, 2;
