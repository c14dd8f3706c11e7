-- Rows of a slice's window went elsewhere: it matches no manifest until it is applied again.
-- $1 text: feed_id; $2 text: day; $3 text: table_name; $4 text: the digest that stands for doubt.
update pgslice.ledger
set manifest_sha256 = '', rows_digest = $4
where feed_id = $1 and day = $2::date and table_name = $3;
