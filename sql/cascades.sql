-- Foreign keys at whose parent rows hang child rows that are deleted or changed with them, by pairs of columns.
-- $1 oid[]: the parent relations. A key that points at a partition points at what it is a partition of.
-- `schemas` and `operators`: the equality of the pair, the parent's column on the left.
select
    parent.relation as parent,
    n.nspname::text as child_schema,
    child.relname::text as child_name,
    pair.parents,
    pair.children,
    pair.schemas,
    pair.operators
from pg_catalog.pg_constraint c
cross join lateral (
    select c.confrelid as relation
    union
    select above.relid from pg_catalog.pg_partition_ancestors(c.confrelid) above
) parent
join pg_catalog.pg_class child on child.oid = c.conrelid
join pg_catalog.pg_namespace n on n.oid = child.relnamespace
cross join lateral (
    select
        array_agg(p.attname::text order by k.place) as parents,
        array_agg(h.attname::text order by k.place) as children,
        array_agg(opn.nspname::text order by k.place) as schemas,
        array_agg(o.oprname::text order by k.place) as operators
    from unnest(c.confkey, c.conkey, c.conpfeqop) with ordinality as k (parent, child, operator, place)
    join pg_catalog.pg_attribute p on p.attrelid = c.confrelid and p.attnum = k.parent
    join pg_catalog.pg_attribute h on h.attrelid = c.conrelid and h.attnum = k.child
    join pg_catalog.pg_operator o on o.oid = k.operator
    join pg_catalog.pg_namespace opn on opn.oid = o.oprnamespace
) pair
where c.contype = 'f' and c.confdeltype in ('c', 'n', 'd') and c.conparentid = 0 and parent.relation = any ($1::oid[]);
