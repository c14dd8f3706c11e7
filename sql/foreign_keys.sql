-- Foreign keys that point at the given relations, and at those that deletes there reach by way of foreign keys, whoever
-- owns them.
-- $1 oid[]: the relations.
-- A key of a partition counts for the partition and for all that it is a partition of, at either end: one pair each.
-- `cascades`: a deleted parent row deletes its child rows, or changes them.
with recursive foreign_key as (
    select child.relation as child, parent.relation as parent, bool_or(c.confdeltype in ('c', 'n', 'd')) as cascades
    from pg_catalog.pg_constraint c
    cross join lateral (
        select c.conrelid as relation
        union
        select above.relid from pg_catalog.pg_partition_ancestors(c.conrelid) above
    ) child
    cross join lateral (
        select c.confrelid as relation
        union
        select above.relid from pg_catalog.pg_partition_ancestors(c.confrelid) above
    ) parent
    where c.contype = 'f'
    group by 1, 2
),
reached as (
    select given.relation from unnest($1::oid[]) as given (relation)
    union
    select k.child from reached r join foreign_key k on k.parent = r.relation where k.cascades
)
select k.child, k.parent, k.cascades
from foreign_key k
where k.parent in (select r.relation from reached r);
