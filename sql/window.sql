-- The instants at which a day and the next one start by the server's own time zone data.
-- $1, $2 text: the dates; $3 text: the zone.
select
    ($1::text)::timestamp at time zone $3::text as start,
    ($2::text)::timestamp at time zone $3::text as "end";
