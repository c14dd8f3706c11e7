#!/bin/bash
# The whole of pgslice in front of your eyes: a source database that grows, a replica that is topped off, and what
# happens when something is killed in the middle. Two throwaway PostgreSQL clusters and a store; all of it is below
# /tmp or in memory, and nothing is left behind, however this ends.
#
#   make demo                       five days of 70,000 messages
#   DEMO_ROWS=5000 make demo        a quick look
#
#   make demo STORE=folder          the store is a folder that both sides see; so it is without STORE
#   make demo STORE=http            the replica reads that folder through nginx, as a stranger would
#   make demo STORE=s3              the store is a bucket of a strict S3 server in memory (tests/strict_s3)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
rows=${DEMO_ROWS:-70000}
kind=${STORE:-folder}
# Nothing of the caller's own databases and accounts takes part.
unset "${!PG@}" "${!AWS_@}"
export LC_ALL=C.UTF-8 AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null

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

# Goes to the folder of `producer` or `replica`, and takes its credentials along if the store asks for any.
go_to() {
    cd "$work/$1"
    [ "$kind" != s3 ] || export AWS_ACCESS_KEY_ID=$1 AWS_SECRET_ACCESS_KEY="${secrets[$1]}"
}

# Runs a command there, shows it first and how long it took after.
run() {
    local place=$1 from=$EPOCHREALTIME code=0
    shift
    prompt "$place" "$@"
    (go_to "$place" && "$@" 7>&- 8>&- 9>&-) || code=$?
    printf '%s(%s)%s\n' "$dim" "$(since "$from")" "$plain"
    [ "$code" -eq 0 ] || fail "\"$*\" ended with exit code $code"
}

# ------------------------------------------------------------------------------------------------ preparations

case $kind in
folder | http | s3) ;;
*) fail "STORE is \"folder\", \"http\" or \"s3\", not \"$kind\"" ;;
esac
"$root/scripts/install-debian"
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
target=${CARGO_TARGET_DIR:-$root/target}
if [ ! -x "$target/debug/pgslice" ]; then
    say "Building pgslice for the first time: this takes several minutes."
fi
# The S3 server comes with it whatever STORE says: so the dependencies have the same features as for the tests, and are
# compiled once.
(cd "$root" && cargo build --bins --example strict-s3)

# From here on nothing leaves this machine.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
built=$(cd "$target" && pwd)/debug
PATH=$built:$built/examples:$("$root/scripts/find-postgresql"):$PATH
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
    # The servers end with their lifelines: ours are the only open ends.
    exec 7>&- 8>&- 9>&-
    for keeper in ${keepers[@]+"${keepers[@]}"}; do wait "$keeper" 2>/dev/null || :; done
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# start_server NAME LIFELINE COMMAND…: runs it, held by an open file descriptor; `answer` is the first line it says.
start_server() {
    local name=$1 lifeline=$2
    answer=
    mkfifo "$work/$name.lifeline" "$work/$name.answer"
    "${@:3}" <"$work/$name.lifeline" >"$work/$name.answer" 7>&- 8>&- 9>&- &
    keepers+=($!)
    eval "exec $lifeline>\"\$work/\$name.lifeline\""
    read -r answer <"$work/$name.answer"
}
start_cluster() {
    start_server "$1" "$2" "$root/scripts/throwaway-cluster" "$work/$1" || fail "the $1 cluster did not start"
}
# nginx shows the store on a port that happens to be free; `feed` becomes its address.
start_web() {
    local web port
    for web in web1 web2 web3; do
        port=$((20000 + RANDOM % 12000))
        feed=http://127.0.0.1:$port
        ! start_server $web 9 "$root/scripts/throwaway-web" "$work/$web" "$work/store" "$port" || return 0
    done
    fail "nginx did not start"
}
# The bucket "demo", where the producer may do everything and the replica may read; `endpoint` becomes its server's
# address.
start_bucket() {
    STRICT_S3_ACCESS_KEY=producer STRICT_S3_SECRET_KEY=${secrets[producer]} \
        STRICT_S3_READER_ACCESS_KEY=replica STRICT_S3_READER_SECRET_KEY=${secrets[replica]} \
        start_server bucket 9 strict-s3 --bucket demo --region "$region" --until-stdin-closes ||
        fail "the S3 server did not start"
    endpoint=${answer#listening on }
}

url() { printf 'postgres:///%s?host=%s&user=postgres' "$2" "$work/$1"; }
# SQL from the arguments or from standard input (a program that outlives the demo must not hold the lifelines); an answer is one line of fields separated by spaces.
sql() { psql -XAtq -F ' ' -v ON_ERROR_STOP=1 -d "$(url "$1" "$2")" "${@:3}" 7>&- 8>&- 9>&-; }
fill() { sql source datanommer -v day="$1" -v rows="$rows" "${@:2}" -f "$here/fill.sql"; }
configure() {
    local place=$1 lines=
    # Nobody stands between two programs of one machine.
    [ "$place $kind" != "replica http" ] || lines='allow-http = true'
    [ "$kind" != s3 ] || lines="endpoint = \"$endpoint\"\nregion = \"$region\"\npath-style = true"
    mkdir "$work/$place"
    sed "s|{source}|$(url source datanommer | sed 's/&/\\&/g')|; s|{store}|$store|; s|{feed}|$feed|
         s|{replica}|$(url copy datanommer | sed 's/&/\\&/g')|; ${lines:+/^\[store\]/a $lines}" \
        "$here/$place.toml" >"$work/$place/pgslice.toml"
}

# The five days end yesterday, so that a plain `pgslice export` means them too.
day() { date -u -d "$today - $1 days" +%F; }
today=$(date -u +%F)
days=("" "$(day 5)" "$(day 4)" "$(day 3)" "$(day 2)" "$(day 1)")
store=file://$work/store
region=eu-central-1
declare -A secrets=([producer]=$(openssl rand -hex 20) [replica]=$(openssl rand -hex 20))
[ "$kind" != s3 ] || store=s3://demo/datanommer
feed=$store

# ------------------------------------------------------------------------------------------------ the store by hand

# A signed GET of what is below the endpoint. The secret is in no argument list; Debian 12's curl leaves out the header
# that S3 asks for.
get_signed() {
    curl -fsS --aws-sigv4 "aws:amz:$region:s3" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
        -K <(printf 'user = "replica:%s"\n' "${secrets[replica]}") "$endpoint/$1"
}
# What the store holds, in lines of "KEY BYTES". A list of S3's ends after 1,000 objects: this story has fewer.
stored() {
    if [ "$kind" = s3 ]; then
        get_signed 'demo?list-type=2' | grep -oE '<(Key|Size)>[^<]*' | paste -d ' ' - - |
            sed 's|<Key>datanommer/||; s|<Size>||' | sort
    elif [ -d "$work/store" ]; then
        find "$work/store" -type f -printf '%P %s\n' | sort
    fi
}
# object KEY: prints it, got as a reader of this store gets it.
object() {
    case $kind in
    folder) cat "$work/store/$1" ;;
    http) curl -fsS "$feed/$1" ;;
    s3) get_signed "demo/datanommer/$1" ;;
    esac
}
sum_of_feed() { object feed.json | sha256sum | cut -d ' ' -f 1; }

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
if [ "$kind" = http ]; then
    start_web
    say "Besides them nginx shows the store at $feed, and that is all the replica knows of it."
elif [ "$kind" = s3 ]; then
    start_bucket
    say "Besides them an S3 server at $endpoint holds the store, a bucket that the replica's key may only read."
fi
configure producer
configure replica
sql source postgres -c 'CREATE DATABASE datanommer'
sql source datanommer -f "$here/datanommer.sql"
say "Will it all do? The producer tries on the store what it is going to ask of it, and asks the source:"
run producer pgslice check
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
stored | awk '{ bytes += $2 } END { printf "   %s objects of %.1f MB are now in the store.\n", NR, bytes / 1e6 }'
run replica pgslice catchup --replica
prove_equal copy datanommer "${days[1]}" "$today"
say "Once more: nothing to do."
run replica pgslice catchup --replica

heading "Act two: an export is killed in the middle"
say "Old rows are changed on ${days[5]}; publishing it again is killed with SIGKILL."
for attempt in 1 2 3 4 5; do
    sql source datanommer -c "
        UPDATE messages SET source_version = 'changed $attempt'
        WHERE \"timestamp\" >= '${days[5]}' AND agent_name LIKE 'user1%'"
    before=$(sum_of_feed)
    found=$(stored)
    printf '%sproducer$ pgslice export --date %s &%s\n' "$bold" "${days[5]}" "$plain"
    (go_to producer && exec pgslice export --date "${days[5]}") >"$work/killed.log" 2>&1 &
    exporter=$!
    # In the middle: something of the new revision is in the store, or a while has passed, a shorter one each time.
    from=$EPOCHREALTIME
    until [ "$(stored)" != "$found" ] || awk "BEGIN { exit $EPOCHREALTIME - $from < 0.3 / $attempt }"; do
        sleep 0.01
    done
    printf '%sproducer$ kill -9 %%1%s\n' "$bold" "$plain"
    kill -9 "$exporter" 2>/dev/null || :
    code=0
    wait "$exporter" 2>/dev/null || code=$?
    exporter=
    [ "$code" -ne 137 ] || break
    [ "$attempt" -lt 5 ] || fail "the export was over before it could be killed, with exit code $code"
    say "It was faster than the signal (exit code $code). The replica follows; other values, and again."
    run replica pgslice catchup --replica
done
after=$(sum_of_feed)
say "feed.json before: $before" "feed.json after:  $after"
[ "$before" = "$after" ] || fail "a killed export changed feed.json"
debris=$(comm -13 <(printf '%s\n' "$found") <(stored))
if [ -n "$debris" ]; then
    say "In the store, but named by nothing that a reader follows:"
    while read -r key _; do say "  $key"; done <<<"$debris"
else
    say "No object of it had come into the store yet."
fi
say "A replica sees nothing of it:"
run replica pgslice catchup --replica
say "The server notices within moments that its client is gone; then the next run heals, and the replica follows:"
for _ in {1..100}; do
    [ "$(sql source postgres -c "SELECT count(*) FROM pg_stat_activity WHERE datname = 'datanommer'")" != 0 ] || break
    sleep 0.1
done
run producer pgslice export --date "${days[5]}"
[ "$(sum_of_feed)" != "$before" ] || fail "the day was not published again"
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
manifest=$(object feed.json | grep -o "\"[^\"]*${days[4]}[^\"]*/manifest.json\"" | tr -d '"') ||
    fail "feed.json names no manifest of ${days[4]}"
folder=$(dirname "$manifest")
say "feed.json names $manifest; beside it are the day's objects and their checksums. Got, and checked:"
mkdir -p "$work/by_hand/$folder"
cd "$work/by_hand/$folder"
object "$folder/SHA256SUMS" >SHA256SUMS
while read -r _ part; do
    part=${part#\*}
    # A part that an earlier revision published is beside this one's folder: ../r1-…/….
    key=$(realpath -ms --relative-to="$work/by_hand" "$part")
    mkdir -p "$work/by_hand/$(dirname "$key")"
    object "$key" >"$work/by_hand/$key"
done <SHA256SUMS
prompt "$folder" sha256sum -c SHA256SUMS
sha256sum -c SHA256SUMS
from=$EPOCHREALTIME
for table in users packages messages users_messages packages_messages; do
    loaded=
    while read -r _ part; do
        part=${part#\*}
        [[ ${part##*/} == public."$table-${days[4]}"*.copy.zst ]] || continue
        printf "%s$ zstd -dc %s | psql -c '\\\\copy %s from pstdin'%s\n" "$bold" "$part" "$table" "$plain"
        zstd -dc "$part" | sql copy by_hand -c "\\copy $table from pstdin"
        loaded=yes
    done <SHA256SUMS
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
