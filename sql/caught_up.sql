-- Remembers the head after a catchup that left nothing pending.
-- $1 text: dataset; $2 text: feed_id; $3 text: sequence; $4 text: published_at; $5 text: what spares the next one a
-- look, or null.
insert into pgslice.feed as f (dataset, feed_id, sequence, published_at, settled, caught_up_at)
values ($1, $2, $3::bigint, $4::timestamptz, $5, pg_catalog.now())
on conflict (dataset) do update set
    feed_id = excluded.feed_id,
    sequence = excluded.sequence,
    published_at = excluded.published_at,
    settled = excluded.settled,
    caught_up_at = pg_catalog.now();
