-- Remembers a head before anything of it is applied: from then on another feed, or an older head, is refused. What an
-- earlier run left is unsettled by that.
-- $1 text: dataset; $2 text: feed_id; $3 int8: sequence.
insert into pgslice.feed as f (dataset, feed_id, sequence)
values ($1, $2, $3)
on conflict (dataset) do update set sequence = excluded.sequence, settled = null
where f.sequence <= excluded.sequence;
