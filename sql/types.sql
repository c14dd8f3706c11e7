-- Types by schema, name and modifier, as this server writes them in DDL; NULL for those that it does not have.
-- $1 text[]: schemas; $2 text[]: names; $3 integer[]: modifiers.
select pg_catalog.format_type(t.oid, wanted.typmod) as ddl
from unnest($1::text[], $2::text[], $3::integer[]) with ordinality as wanted (schema, name, typmod, place)
left join pg_catalog.pg_namespace n on n.nspname = wanted.schema
left join pg_catalog.pg_type t on t.typnamespace = n.oid and t.typname = wanted.name
order by wanted.place;
