-- Foreign keys that point at the given relations.
-- $1 oid[]: the relations.
-- `cascades`: a deleted parent row deletes its child rows, or changes them.
select c.conrelid as child, c.confrelid as parent, bool_or(c.confdeltype in ('c', 'n', 'd')) as cascades
from pg_catalog.pg_constraint c
where c.contype = 'f' and c.confrelid = any ($1::oid[])
group by 1, 2;
