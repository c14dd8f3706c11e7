#!/bin/bash
# Run once by the source's image, in the new database: the role that pgslice reads as, and DEMO_ROWS messages on each of
# the last five days.
set -euo pipefail

run_psql() { psql -Xq -v ON_ERROR_STOP=1 -U postgres -d "$POSTGRES_DB" "$@"; }

run_psql -v password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE reader LOGIN PASSWORD :'password';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
GRANT pg_read_all_stats TO reader;
SQL
for age in 5 4 3 2 1; do
    run_psql -v day="$(date -u -d "$age days ago" +%F)" -v rows="$DEMO_ROWS" -f /srv/fill.sql
done
