"""Groups that publish a day, or only read it: to a folder, and to a bucket."""

import os
import shutil
import statistics
import subprocess
from pathlib import Path

import data
import peers
from bench import Bench
from clusters import Bucket
from data import Window
from feeds import DATANOMMER, MESSAGES, Tables, time_table
from measuring import Command, Contestant, Failed
from report import Section

# In the middle of the archive.
DAY = data.day(3)
MESSAGES_OF_DAY = Window.of_day("messages", "timestamp", DAY)


def pgslice_to_folder(bench: Bench, tables: Tables, day: str, jobs: int, rows: int = None) -> Contestant:
    feed = bench.feed(f"export-{jobs}", tables)

    def prepare():
        feed.forget()
        return [[feed.export(day, day, jobs)]]

    def finish():
        if rows is not None and feed.rows(day) != rows:
            raise Failed(f"{feed.rows(day)} rows instead of {rows}")
        return feed.stored_bytes(day)

    return Contestant(f"pgslice, jobs = {jobs}", prepare, finish)


class Outputs:
    """A folder for what a peer writes, emptied before each run."""

    def __init__(self, bench: Bench):
        self.folder = bench.folder / "outputs"

    def fresh(self) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        return self.folder

    def stored_bytes(self, pattern: str = "*") -> int:
        return sum(path.stat().st_size for path in self.folder.rglob(pattern) if path.is_file())


def peer(
    bench: Bench, name: str, steps, rows: int = None, pattern: str = "*", at_most_rounds: int = None
) -> Contestant:
    """A peer whose `steps(folder)` write below a folder; with `rows` the lines of its *.zst files are counted once."""
    outputs = Outputs(bench)
    uncounted = rows is not None

    def finish():
        nonlocal uncounted
        if uncounted:
            uncounted = False
            found = sum(lines_of(path) for path in sorted(outputs.folder.glob("*.zst")))
            if found != rows:
                raise Failed(f"{found} rows instead of {rows}")
        return outputs.stored_bytes(pattern)

    return Contestant(name, lambda: steps(outputs.fresh()), finish, at_most_rounds)


def lines_of(path: Path) -> int:
    text = subprocess.Popen([*peers.UNZSTD, path], stdout=subprocess.PIPE)
    counted = subprocess.run(["wc", "-l"], stdin=text.stdout, capture_output=True, check=True)
    text.stdout.close()
    text.wait()
    return int(counted.stdout)


def server_alone(bench: Bench, windows: list) -> Contestant:
    steps = [[peers.copy_to_nothing(bench.source, window.query)] for window in windows]
    return Contestant("limit: server-side COPY … TO '/dev/null'", lambda: steps, lambda: None)


def psql_zstd(bench: Bench, queries: list, rows: int) -> Contestant:
    def steps(folder: Path):
        return [
            [peers.copy_out(bench.source, query, peers.ZSTD, folder / f"{number}.copy.zst")]
            for number, query in enumerate(queries)
        ]

    return peer(bench, "psql | zstd -3", steps, rows)


def two_psql_zstd(bench: Bench, window: Window, rows: int) -> Contestant:
    def steps(folder: Path):
        halves = enumerate(window.halves())
        return [
            [
                peers.copy_out(bench.source, half.query, peers.ZSTD, folder / f"{number}.copy.zst")
                for number, half in halves
            ]
        ]

    return peer(bench, "two of psql | zstd -3, by half days", steps, rows)


def export(bench: Bench) -> Section:
    """One day of messages: 200,000 rows, about 400 MB as text."""
    few = bench.settings.few_rounds
    gzip = Command(("gzip", "-c"))
    window, rows, source = MESSAGES_OF_DAY, bench.rows_a_day, bench.source
    contestants = [
        pgslice_to_folder(bench, MESSAGES, DAY, 1, rows),
        pgslice_to_folder(bench, MESSAGES, DAY, 2, rows),
        psql_zstd(bench, [window.query], rows),
        two_psql_zstd(bench, window, rows),
        peer(
            bench,
            "psql | gzip",
            lambda folder: [[peers.copy_out(source, window.query, gzip, folder / "day.gz")]],
            at_most_rounds=few,
        ),
        peer(
            bench,
            "sling to csv.zst",
            lambda folder: [[peers.sling(bench.peers, source, window, folder / "day.csv.zst")]],
        ),
        peer(
            bench,
            "ADBC to Parquet, zstd -3",
            lambda folder: [[peers.adbc(bench.peers, source, window, folder / "day.parquet")]],
            at_most_rounds=few,
        ),
        peer(
            bench,
            "dlt to Parquet",
            lambda folder: [[peers.dlt(bench.peers, source, window, folder)]],
            pattern="out/**/*.parquet",
            at_most_rounds=few,
        ),
        server_alone(bench, [window]),
    ]
    results = bench.race().run(contestants)
    one, two, piped, halves, _, sling, _, _, alone = results.values()
    section = Section()
    section.add_ratio("export one day to a folder, `jobs = 2`, against `psql | zstd -3`", 0.60, two, piped)
    section.add_ratio("the same against two of them by half days", 0.80, two, halves)
    section.add_ratio("the same against server-side `COPY TO '/dev/null'`", 1.3, two, alone)
    for name, result in (("jobs = 1", one), ("jobs = 2", two)):
        what = f"client CPU seconds against psql + zstd, digests included, `{name}`"
        section.add_ratio(what, 0.85, result, piped, "client_cpu_seconds")
    section.add_ratio("export against sling", 0.20, two, sling)
    section.add_race("Export of one day of messages to a folder", results, _limit_by_cores(piped))
    return section


def _limit_by_cores(piped) -> str:
    if not piped.costs:
        return ""
    server, compression = piped.median("server_cpu_seconds"), piped.cpu_seconds_of("zstd")
    cores = os.cpu_count()
    return (
        f"Limit by cores: (server CPU {server:.2f} + zstd CPU {compression:.2f}) / {cores} cores"
        f" = {(server + compression) / cores:.2f} s, both as in `psql | zstd -3`."
    )


def tables(bench: Bench) -> Section:
    """One day of all five tables of datanommer."""
    queries = [MESSAGES_OF_DAY.query]
    for kind in ("users", "packages"):
        associations = Window.of_day(f"{kind}_messages", "msg_timestamp", DAY)
        ids = f"select {kind[:-1]}_id from {associations.table} where {associations.condition}"
        queries += [associations.query, f"select * from {kind} where id in ({ids})"]
    counts = " + ".join(f"(select count(*) from ({query}) counted)" for query in queries)
    rows = int(bench.source.sql("datanommer", f"select {counts}"))
    contestants = [
        pgslice_to_folder(bench, DATANOMMER, DAY, 1, rows),
        pgslice_to_folder(bench, DATANOMMER, DAY, 2, rows),
        psql_zstd(bench, queries, rows),
    ]
    results = bench.race().run(contestants)
    section = Section()
    section.add_race("Export of one day of all five tables to a folder", results, "psql reads them one after another.")
    return section


def narrow(bench: Bench) -> Section:
    """5,000,000 rows of 37 bytes."""
    rows = data.fill_narrow(bench.source, bench.settings.scale)
    window = Window.of_day("narrow", "at", data.day(1))
    contestants = [
        pgslice_to_folder(bench, time_table("narrow", "at"), data.day(1), 1, rows),
        pgslice_to_folder(bench, time_table("narrow", "at"), data.day(1), 2, rows),
        psql_zstd(bench, [window.query], rows),
        two_psql_zstd(bench, window, rows),
        server_alone(bench, [window]),
    ]
    results = bench.race().run(contestants)
    one, two, piped, *_ = results.values()
    section = Section()
    section.add_ratio("narrow rows against `psql | zstd -3`, `jobs = 2`", 0.70, two, piped)
    section.add_statement("the same, `jobs = 1`", _ratio_text(one, piped))
    section.add_race(f"Export of {rows:,} narrow rows", results, _limit_by_cores(piped))
    bench.source.sql("datanommer", "drop table narrow")
    return section


def _ratio_text(result, against) -> str:
    return f"{result.median() / against.median():.2f}" if result.costs and against.costs else "failed"


def wide(bench: Bench) -> Section:
    """Rows of 1 MB."""
    rows = data.fill_wide(bench.source)
    window = Window.of_day("wide", "at", data.day(1))
    contestants = [
        pgslice_to_folder(bench, time_table("wide", "at"), data.day(1), 1, rows),
        pgslice_to_folder(bench, time_table("wide", "at"), data.day(1), 2, rows),
        psql_zstd(bench, [window.query], rows),
        server_alone(bench, [window]),
    ]
    results = bench.race().run(contestants)
    _, two, piped, _ = results.values()
    section = Section()
    section.add_statement("rows of 1 MB against `psql | zstd -3`, `jobs = 2`", _ratio_text(two, piped))
    section.add_race(f"Export of {rows:,} rows of 1 MB", results)
    bench.source.sql("datanommer", "drop table wide")
    return section


class OnBucket:
    """A fresh bucket for each run of a contestant."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.bucket = None

    def fresh(self, *flags: str) -> Bucket:
        self.stop()
        self.bucket = self.bench.bucket(*flags)
        return self.bucket

    def stop(self):
        if self.bucket is not None:
            self.bucket.stop()
            self.bucket = None


def pgslice_to_bucket(bench: Bench, place: OnBucket, tables: Tables, day: str, jobs: int) -> Contestant:
    def prepare():
        return [[bench.feed(f"bucket-{jobs}", tables, place.fresh()).export(day, day, jobs)]]

    return Contestant(f"pgslice, jobs = {jobs}", prepare, place.stop)


def bucket(bench: Bench) -> Section:
    """One day of messages to the S3 server of the tests, which is a process of its own."""
    place = OnBucket(bench)

    def piped() -> list:
        return [[peers.copy_to_bucket(bench.peers, bench.source, MESSAGES_OF_DAY.query, place.fresh())]]

    store_cpu = []

    def finish():
        store_cpu.append(place.bucket.cpu_seconds())
        place.stop()

    with_two = pgslice_to_bucket(bench, place, MESSAGES, DAY, 2)
    contestants = [
        pgslice_to_bucket(bench, place, MESSAGES, DAY, 1),
        Contestant(with_two.name, with_two.prepare, finish),
        Contestant("psql | zstd -3 | aws s3 cp -", piped, place.stop),
    ]
    try:
        results = bench.race().run(contestants)
    finally:
        place.stop()
    _, two, peer_result = results.values()
    section = Section()
    what = "export one day to S3, `jobs = 2`, against `psql | zstd | aws s3 cp -` to the same server"
    section.add_ratio(what, 0.35, two, peer_result)
    note = _limit_with_store(two, statistics.median(store_cpu), peer_result) if two.costs and peer_result.costs else ""
    section.add_race("Export of one day of messages to S3", results, note)
    return section


def _limit_with_store(ours, store_cpu_seconds: float, piped) -> str:
    """What two servers and a client need who share the cores."""
    client, server = ours.median("client_cpu_seconds"), ours.median("server_cpu_seconds")
    cores = os.cpu_count()
    limit = (client + server + store_cpu_seconds) / cores
    return (
        f"Limit by cores: (client {client:.2f} + PostgreSQL {server:.2f} + S3 server {store_cpu_seconds:.2f} s of CPU)"
        f" / {cores} cores = {limit:.2f} s, {limit / piped.median():.2f} of the pipeline with aws; all as in"
        " `pgslice, jobs = 2`."
    )
