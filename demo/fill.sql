-- Fills one day of the tables of datanommer.sql with made-up messages.
--
--   psql -v day=2024-05-01 -v rows=70000 [-v first=1 -v last=35000] -f fill.sql
--
-- A day has :rows messages, numbered along its hours; only the numbers :first to :last are made, so that a day can be
-- filled in pieces. Everything but the ids follows from day and number: the same call makes the same rows, and a day
-- always has its :rows messages, whatever else is in the tables.
--
-- Bodies are JSON texts of 0.2 to 5 kB, 1.5 kB on average, that zstd packs about 10:1. They hold what breaks naive
-- tools: quotes, tabs, newlines, backslashes, \u0000 escapes, lines of "\.", text in several scripts. About one
-- message in two has a user, two in three a package; both populations grow a little each day.

\if :{?first}
\else
    \set first 1
\endif
\if :{?last}
\else
    \set last :rows
\endif

BEGIN;
SET LOCAL TimeZone = 'UTC';
SET LOCAL client_min_messages = warning;
SET LOCAL jit = off; -- it costs more than it saves

-- One row per message: its number, and `seed`, the start of all that is drawn for it. A draw is
-- hashint8extended(seed, n) for n = 1, 2, …; `& 65535` makes it a number from 0 to 65535.
-- One message in a hundred arrives late: its sender's clock says up to six hours ago, but never yesterday.
CREATE TEMP TABLE batch ON COMMIT DROP AS
SELECT nextval('messages_id_seq')::integer AS id, number, seed,
       :'day'::timestamp + greatest(
           (number - 1 + (hashint8extended(seed, 1) & 65535) / 65536.0) / :rows * interval '1 day'
             - CASE WHEN hashint8extended(seed, 2) & 127 = 0
                    THEN (hashint8extended(seed, 3) & 65535) / 65536.0 * interval '6 hours' ELSE interval '0' END,
           interval '0') AS at,
       hashint8extended(seed, 4) & 65535 AS topic_draw,
       hashint8extended(seed, 5) & 65535 AS length_draw,
       (power((hashint8extended(seed, 6) & 65535) / 65536.0, 3)
           * (400 + 3 * greatest(:'day'::date - date '2024-01-01', 0)))::integer AS agent,
       md5(seed::text) AS id_hex, md5('commit' || seed) AS commit_hex
FROM (SELECT number, hashint8extended(number, extract(epoch FROM :'day'::date)::bigint) AS seed
      FROM generate_series(:first::bigint, :last) AS number ORDER BY number) AS numbered;

-- Topics by category, and what logs are made of. Inside the JSON text log lines are string content: quotes and control
-- characters are escaped.
CREATE TEMP TABLE word ON COMMIT DROP AS
SELECT '{buildsys build.state.change, buildsys task.state.change, buildsys tag, copr build.start, copr build.end,
         copr chroot.start, bodhi update.comment, bodhi update.request.testing, git receive, pagure issue.new,
         pagure pull-request.comment.added, discourse post.post_created, planet post.new, mailman receive,
         github check_run, fedbadges badge.award}'::text[] AS topics,
       ARRAY['checking for gcc... (cached) gcc', '\tBuildRequires: python3-devel >= 3.9',
             'error: \"undefined reference to `foo(int, char const*)''\"', 'C:\\build\\src\\main.c: No such file',
             'make[2]: Entering directory ''/builddir/build/BUILD''', '100% tests passed, 0 tests failed out of 218',
             '\\.', 'binary \u0000 byte in changelog \u0001\u001f', 'Grüße aus Nürnberg – „fertig“',
             'Патч применён, сборка продолжается', 'パッケージのビルドが完了しました', 'ship it 🚢🎉 👩‍💻',
             'Requires(rpmlib): rpmlib(CompressedFileNames) <= 3.0.4-1', '100% [==========>] 4.2 MB/s\r',
             '<a href=\"https://example.org/?a=1&b=2\">details</a>', 'NULL, \\N and ''; DROP TABLE x; -- are text'
       ] AS lines;

INSERT INTO messages (id, msg_id, i, topic, "timestamp", category, agent_name, crypto, source_name, source_version,
                      msg, headers)
SELECT batch.id,
       CASE WHEN number % 1000 <> 0
            THEN extract(year FROM at) || '-' || id_hex::uuid END,
       (number % 8 + 1)::integer,
       'org.fedoraproject.prod.' || topic.category || '.' || topic.event, at, topic.category,
       CASE WHEN agent % 3 > 0 THEN CASE agent % 50 WHEN 7 THEN 'o''neil' WHEN 11 THEN 'zoë' ELSE 'user' END || agent END,
       NULL, 'datanommer', '1.4.' || agent % 5,
       -- One in four is pretty-printed, with real tabs and newlines between the tokens.
       CASE WHEN number % 4 = 0
            THEN format(E'{\n\t"build": {\n\t\t"id": %s,\n\t\t"commit": "%s",\n\t\t"state": %s\n\t},\n\t"log": "%s"\n}\n',
                        batch.id, commit_hex, topic_draw % 5, log)
            ELSE format('{"build": {"id": %s, "commit": "%s", "state": %s}, "log": "%s"}',
                        batch.id, commit_hex, topic_draw % 5, log) END,
       CASE WHEN number % 16 <> 0
            THEN jsonb_build_object('fedora_messaging_severity', 20, 'fedora_messaging_schema', topic.category || '.v1',
                                    'sent-at', date_trunc('minute', at) || '+00:00', 'priority', agent % 3) END
FROM batch CROSS JOIN word
CROSS JOIN LATERAL (
    SELECT split_part(topics[1 + topic_draw % 16], ' ', 1) AS category,
           split_part(topics[1 + topic_draw % 16], ' ', 2) AS event) AS topic
-- Between 4 and 110 log lines; few messages are long.
CROSS JOIN LATERAL (
    SELECT string_agg(lines[1 + ((draw >> 16) & 15)] || ' ' || to_hex(draw & 4095), '\n') AS log
    FROM (SELECT hashint8extended(seed, 100 + step) AS draw
          FROM generate_series(1, 4 + (power(length_draw / 65536.0, 2.5) * 106)::integer) AS step) AS drawn) AS body;

-- 0, 1, 2 users: 0.5 a message on average; 0, 1, 2, 3 packages: 0.66.
CREATE TEMP TABLE mention ON COMMIT DROP AS
SELECT DISTINCT kind, id, at,
       CASE kind WHEN 'user' THEN CASE who % 50 WHEN 7 THEN 'o''neil' WHEN 11 THEN 'zoë' ELSE 'user' END || who
                 ELSE CASE who % 40 WHEN 3 THEN 'lib"quoted"-' WHEN 9 THEN 'rust-back\slash-' ELSE 'python-module-' END
                      || who END AS name
FROM batch
CROSS JOIN LATERAL (
    SELECT kind, step,
           (power((hashint8extended(seed, salt + step) & 65535) / 65536.0, 3)
               * (base + growth * greatest(:'day'::date - date '2024-01-01', 0)))::integer AS who
    FROM (VALUES ('user', 10, 400, 3, CASE WHEN hashint8extended(seed, 7) & 1023 < 614 THEN 0
                                           WHEN hashint8extended(seed, 7) & 1023 < 922 THEN 1 ELSE 2 END),
                 ('package', 20, 2000, 5, CASE WHEN hashint8extended(seed, 8) & 1023 < 512 THEN 0
                                               WHEN hashint8extended(seed, 8) & 1023 < 880 THEN 1
                                               WHEN hashint8extended(seed, 8) & 1023 < 1003 THEN 2 ELSE 3 END)
         ) AS population (kind, salt, base, growth, mentions)
    CROSS JOIN LATERAL generate_series(1, mentions) AS step) AS drawn;

INSERT INTO users (name)
SELECT DISTINCT name FROM mention
WHERE kind = 'user' AND NOT EXISTS (SELECT FROM users WHERE users.name = mention.name) ORDER BY name
ON CONFLICT (name) DO NOTHING; -- another day may be filled at the same time

INSERT INTO packages (name)
SELECT DISTINCT name FROM mention
WHERE kind = 'package' AND NOT EXISTS (SELECT FROM packages WHERE packages.name = mention.name) ORDER BY name
ON CONFLICT (name) DO NOTHING;

INSERT INTO users_messages (user_id, msg_id, msg_timestamp)
SELECT users.id, mention.id, at FROM mention JOIN users ON users.name = mention.name WHERE kind = 'user';

INSERT INTO packages_messages (package_id, msg_id, msg_timestamp)
SELECT packages.id, mention.id, at FROM mention JOIN packages ON packages.name = mention.name WHERE kind = 'package';

COMMIT;
