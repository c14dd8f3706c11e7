#!/bin/bash
# The whole of pgslice in front of your eyes: a source database that grows, a replica that is topped off, and what
# happens when something is killed in the middle. Two throwaway PostgreSQL clusters and a store in a folder below /tmp;
# nothing is left behind, however this ends.
#
#   make demo                       five days of 70,000 messages
#   DEMO_ROWS=5000 make demo        a quick look
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
rows=${DEMO_ROWS:-70000}
unset "${!PG@}"
export LC_ALL=C.UTF-8

# ------------------------------------------------------------------------------------------------ what is printed

started=$SECONDS
bold='' dim='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi

heading() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
say() { printf '   %s\n' "$@"; }
fail() {
    printf '\n%sThe demo failed: %s%s\n' "$bold" "$1" "$plain" >&2
    exit 1
}
# Seconds with one digit, of a start as $EPOCHREALTIME gave it.
since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", to - from }'; }

# A command as one would type it; the part before the prompt says where.
prompt() {
    local place=$1 word line=
    shift
    for word; do
        [[ $word =~ ^[[:alnum:]_./=:,@%+-]+$ ]] || word="'$word'"
        line+=" $word"
    done
    printf '%s%s$%s%s\n' "$bold" "$place" "$line" "$plain"
}

# Runs a command in the folder of `producer` or `replica`, shows it first and how long it took after.
run() {
    local place=$1 from=$EPOCHREALTIME code=0
    shift
    prompt "$place" "$@"
    (cd "$work/$place" && "$@" 7>&- 8>&-) || code=$?
    printf '%s(%s)%s\n' "$dim" "$(since "$from")" "$plain"
    [ "$code" -eq 0 ] || fail "\"$*\" ended with exit code $code"
}

# ------------------------------------------------------------------------------------------------ preparations

"$root/scripts/install-debian"
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
target=${CARGO_TARGET_DIR:-$root/target}
if [ ! -x "$target/debug/pgslice" ]; then
    say "Building pgslice for the first time: about 4 minutes on two cores."
fi
(cd "$root" && cargo build)

PATH=$(cd "$target" && pwd)/debug:$("$root/scripts/find-postgresql"):$PATH
work=$(mktemp -d /tmp/pgslice-demo-XXXXXX)
# The server's user, who is not root, must find its way to its folder.
chmod 711 "$work"
keepers=()
exporter=

clean_up() {
    local code=$? keeper
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$exporter" ] || kill -9 "$exporter" 2>/dev/null || :
    # The clusters end with their lifelines: ours are the only open ends.
    exec 7>&- 8>&-
    for keeper in ${keepers[@]+"${keepers[@]}"}; do wait "$keeper" 2>/dev/null || :; done
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Starts a cluster in $work/NAME, held by an open file descriptor.
start_cluster() {
    local name=$1 lifeline=$2
    mkfifo "$work/$name.lifeline" "$work/$name.answer"
    "$root/scripts/throwaway-cluster" "$work/$name" <"$work/$name.lifeline" >"$work/$name.answer" 7>&- 8>&- &
    keepers+=($!)
    eval "exec $lifeline>\"\$work/\$name.lifeline\""
    read -r answer <"$work/$name.answer" || fail "the $name cluster did not start"
    [ "$answer" = ready ] || fail "the $name cluster did not start"
}

url() { printf 'postgres:///%s?host=%s&user=postgres' "$2" "$work/$1"; }
# SQL from the arguments or from standard input (a program that outlives the demo must not hold the lifelines); an answer is one line of fields separated by spaces.
sql() { psql -XAtq -F ' ' -v ON_ERROR_STOP=1 -d "$(url "$1" "$2")" "${@:3}" 7>&- 8>&-; }
fill() { sql source datanommer -v day="$1" -v rows="$rows" "${@:2}" -f "$here/fill.sql"; }
configure() {
    mkdir "$work/$1"
    sed "s|{source}|$(url source datanommer | sed 's/&/\\&/g')|; s|{store}|$store|
         s|{replica}|$(url copy datanommer | sed 's/&/\\&/g')|" "$here/$1.toml" >"$work/$1/pgslice.toml"
}

# The five days end yesterday, so that a plain `pgslice export` means them too.
day() { date -u -d "$today - $1 days" +%F; }
today=$(date -u +%F)
days=("" "$(day 5)" "$(day 4)" "$(day 3)" "$(day 2)" "$(day 1)")
store=$work/store

# ------------------------------------------------------------------------------------------------ proofs

# Per table: its rows and an md5 over them that does not depend on their order.
rows_of() {
    local table=$1 condition=$2
    printf "SELECT '%s', count(*), md5(coalesce(string_agg(row_md5, '' ORDER BY row_md5), ''))
            FROM (SELECT md5(t::text) AS row_md5 FROM %s t WHERE %s) hashed;" "$table" "$table" "$condition"
}

# The rows of all tables from one day on, before another; users and packages as far as those rows point to them.
proof() {
    local from=$1 until=$2 within
    rows_of messages "t.\"timestamp\" >= '$from' AND t.\"timestamp\" < '$until'"
    within="msg_timestamp >= '$from' AND msg_timestamp < '$until'"
    rows_of users_messages "$within"
    rows_of packages_messages "$within"
    rows_of users "id IN (SELECT user_id FROM users_messages WHERE $within)"
    rows_of packages "id IN (SELECT package_id FROM packages_messages WHERE $within)"
}

# prove_equal CLUSTER DATABASE FROM UNTIL: the source and that database hold the same rows, of `messages` at least one.
prove_equal() {
    local from=$EPOCHREALTIME expected found
    proof "$3" "$4" | sql source datanommer >"$work/expected" &
    found=$(proof "$3" "$4" | sql "$1" "$2")
    wait $! || fail "the source could not be read"
    expected=$(<"$work/expected")
    printf '   %-18s %9s  %-32s  %s\n' table rows "md5 over all rows: source" "$2"
    paste -d ' ' <(printf '%s\n' "$expected") <(printf '%s\n' "$found") |
        while read -r table count digest _ other_count other_digest; do
            verdict="$other_digest"
            [ "$count $digest" != "$other_count $other_digest" ] || verdict="the same"
            printf '   %-18s %9s  %-32s  %s\n' "$table" "$count" "$digest" "$verdict"
        done
    [ "$expected" = "$found" ] || fail "$2 differs from the source: $found"
    [[ $expected != "messages 0 "* ]] || fail "there is nothing to compare"
    say "Equal, computed by psql on both sides ($(since "$from"))."
}

# ------------------------------------------------------------------------------------------------ the story

heading "Two throwaway clusters, and five days of $rows messages in the source"
start_cluster source 7
start_cluster copy 8
configure producer
configure replica
sql source postgres -c 'CREATE DATABASE datanommer'
sql source datanommer -f "$here/datanommer.sql"
sql copy postgres -c 'CREATE DATABASE datanommer'
from=$EPOCHREALTIME
fill "${days[1]}"
fill "${days[2]}"
fill "${days[3]}" -v last=$((rows / 2))
say "${days[1]}, ${days[2]} and the morning of ${days[3]} are there ($(since "$from"))." \
    "Now the nightly full dump is taken and restored elsewhere: the replica."
run producer pg_dump --format=custom --compress=1 --file="$work/full.dump" --host="$work/source" --username=postgres datanommer
run replica pg_restore --jobs=2 --host="$work/copy" --username=postgres --dbname=datanommer "$work/full.dump"
rm "$work/full.dump"
from=$EPOCHREALTIME
fill "${days[3]}" -v first=$((rows / 2 + 1))
fill "${days[4]}"
fill "${days[5]}"
sql source datanommer -c "
    INSERT INTO messages (msg_id, i, topic, \"timestamp\", category, msg)
    SELECT 'late-' || n, 1, 'org.fedoraproject.prod.late', '${days[2]} 12:00', 'late', '{\"late\": true}'
    FROM generate_series(1, 3) n"
say "The source lives on: two and a half more days, and three late messages dated ${days[2]} ($(since "$from"))."

heading "Act one: publish five days; top the replica off"
run producer pgslice export --from "${days[1]}" --to "${days[5]}"
run producer du -sh "$store"
run replica pgslice catchup --replica
prove_equal copy datanommer "${days[1]}" "$today"
say "Once more: nothing to do."
run replica pgslice catchup --replica

heading "Act two: an export is killed in the middle"
sql source datanommer -c "
    UPDATE messages SET agent_name = 'renamed' WHERE \"timestamp\" >= '${days[5]}' AND agent_name LIKE 'user1%'"
say "Old rows were changed on ${days[5]}; publishing it again is killed with SIGKILL."
before=$(sha256sum <"$store/feed.json")
cp "$store/feed.json" "$work/feed-before.json"
for attempt in 1 2 3 4 5; do
    found=$(find "$store" | sort)
    printf '%sproducer$ pgslice export --date %s &%s\n' "$bold" "${days[5]}" "$plain"
    (cd "$work/producer" && exec pgslice export --date "${days[5]}") >"$work/killed.log" 2>&1 &
    exporter=$!
    # In the middle: something of the new revision is in the store, or a third of a second has passed.
    for _ in {1..30}; do
        [ "$(find "$store" 2>/dev/null | sort)" = "$found" ] || break
        sleep 0.01
    done
    printf '%sproducer$ kill -9 %%1%s\n' "$bold" "$plain"
    kill -9 "$exporter" 2>/dev/null || :
    code=0
    wait "$exporter" 2>/dev/null || code=$?
    exporter=
    [ "$code" -ne 137 ] || break
    [ "$attempt" -lt 5 ] || fail "the export was over before it could be killed, with exit code $code"
    say "It was faster than the signal (exit code $code); again."
    before=$(sha256sum <"$store/feed.json")
    cp "$store/feed.json" "$work/feed-before.json"
done
say "feed.json before: ${before%% *}" "feed.json after:  $(sha256sum <"$store/feed.json" | cut -d ' ' -f 1)"
cmp "$store/feed.json" "$work/feed-before.json" || fail "a killed export changed feed.json"
debris=$(comm -13 <(printf '%s\n' "$found") <(find "$store" | sort))
if [ -n "$debris" ]; then
    say "On the disk, but named by nothing that a reader follows:"
    while read -r path; do say "  ${path#"$store"/}"; done <<<"$debris"
fi
say "A replica sees nothing of it:"
run replica pgslice catchup --replica
say "The server notices within moments that its client is gone; then the next run heals, and the replica follows:"
for _ in {1..100}; do
    [ "$(sql source postgres -c "SELECT count(*) FROM pg_stat_activity WHERE datname = 'datanommer'")" != 0 ] || break
    sleep 0.1
done
run producer pgslice export --date "${days[5]}"
[ "$(sha256sum <"$store/feed.json")" != "$before" ] || fail "the day was not published again"
run replica pgslice catchup --replica
prove_equal copy datanommer "${days[1]}" "$today"

heading "Act three: somebody without room for all of it holds just the last three days"
sql copy postgres -c 'CREATE DATABASE last_days'
run replica pgslice catchup --create --replica="$(url copy last_days)" --from "${days[3]}"
prove_equal copy last_days "${days[3]}" "$today"
[ "$(sql copy last_days -c "SELECT count(*) FROM messages WHERE \"timestamp\" < '${days[3]}'")" = 0 ] ||
    fail "more than three days were taken"

heading "Act four: one day without pgslice, by zstd and psql"
sql copy postgres -c 'CREATE DATABASE by_hand'
sql copy by_hand -f "$here/datanommer.sql"
manifest=$(grep -o "\"[^\"]*${days[4]}[^\"]*/manifest.json\"" "$store/feed.json" | tr -d '"')
[ -f "$store/$manifest" ] || fail "feed.json names no manifest of ${days[4]}"
folder=$(dirname "$store/$manifest")
say "feed.json names $manifest; beside it are the day's objects and their checksums."
printf '%s%s$ sha256sum -c SHA256SUMS%s\n' "$bold" "$(dirname "$manifest")" "$plain"
(cd "$folder" && sha256sum -c SHA256SUMS)
from=$EPOCHREALTIME
for table in users packages messages users_messages packages_messages; do
    loaded=
    while read -r _ part; do
        part=${part#\*}
        [[ ${part##*/} == public."$table-${days[4]}"*.copy.zst ]] || continue
        printf "%s$ zstd -dc %s | psql -c '\\\\copy %s from pstdin'%s\n" "$bold" "$part" "$table" "$plain"
        zstd -dc "$folder/$part" | sql copy by_hand -c "\\copy $table from pstdin"
        loaded=yes
    done <"$folder/SHA256SUMS"
    [ -n "$loaded" ] || fail "SHA256SUMS names no object of $table"
done
printf '%s(%s)%s\n' "$dim" "$(since "$from")" "$plain"
prove_equal copy by_hand "${days[4]}" "${days[5]}"

heading "Housekeeping: keep three days"
run producer pgslice prune --keep 3d --dry-run
run producer pgslice prune --keep 3d
run producer pgslice status
run replica pgslice status
run producer pgslice ls

heading "Done in $((SECONDS - started)) s. Everything that was proven equal was equal; now it all goes."
