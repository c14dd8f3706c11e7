-- Foreign keys that point at the given relations.
-- $1 oid[]: the relations.
select distinct c.conrelid as child, c.confrelid as parent
from pg_catalog.pg_constraint c
where c.contype = 'f' and c.confrelid = any ($1::oid[]);
