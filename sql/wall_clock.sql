-- What the wall clocks of a zone show at an instant, by the server's own time zone data.
-- $1 timestamptz; $2 text: the zone.
select $1::timestamptz at time zone $2::text as local;
