-- What a catchup must know that may have nothing to do: what was kept when nothing was pending, whether it may go on, and
-- what its outcome rests on beside the head and the configuration. Takes the replica's lock for the feed, if it is known
-- and free. One row.
--
-- Rows of the catalogs and of the ledger are told by who wrote them: xmin changes with each change of a row, by DDL too,
-- and neither with VACUUM nor with ANALYZE. A rewritten table has its rows elsewhere: that only costs a look.
-- $1 text: the dataset; $2 text: the tables, as JSON: [{"schema": …, "name": …}].
select
    f.settled,
    pg_catalog.pg_is_in_recovery()::text as in_recovery,
    pg_catalog.current_setting('default_transaction_read_only') as read_only,
    pg_catalog.pg_try_advisory_lock(
        pg_catalog.hashtextextended('pgslice catchup ' || f.feed_id, 0))::text as locked,
    (
        select coalesce(pg_catalog.string_agg(
            pg_catalog.concat_ws(
                ' ',
                pg_catalog.quote_ident(w.schema), pg_catalog.quote_ident(w.name), c.oid, c.xmin,
                pg_catalog.row_security_active(c.oid),
                (
                    select pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attnum, a.xmin), ',' order by a.attnum)
                    from pg_catalog.pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0
                ),
                (
                    select pg_catalog.string_agg(pg_catalog.concat_ws(':', r.oid, r.xmin), ',' order by r.oid)
                    from pg_catalog.pg_rewrite r
                    where r.ev_class = c.oid
                )),
            E'\n' order by w.schema, w.name), '')
        from pg_catalog.json_to_recordset($2::json) as w (schema text, name text)
        left join pg_catalog.pg_namespace n on n.nspname = w.schema
        left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
    ) as tables,
    (
        select pg_catalog.concat_ws(
            ' ',
            count(*),
            pg_catalog.sum(pg_catalog.hashtextextended(l.xmin::text || l.ctid::text, 0)))
        from pgslice.ledger l
        where l.feed_id = f.feed_id
    ) as ledger,
    pg_catalog.concat_ws(
        ' ',
        pg_catalog.current_setting('server_version_num'), pg_catalog.current_database(), current_user) as server
from (select $1::text as dataset) d
left join pgslice.feed f on f.dataset = d.dataset;
