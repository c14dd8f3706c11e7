"""Groups that load published days into a replica."""

from pathlib import Path

import data
import peers
from bench import Bench
from clusters import ROOT
from feeds import DATANOMMER, Feed
from measuring import Command, Contestant, Failed, Pipeline, run
from report import Section

# What a foreign key points to comes first.
ORDER = ("users", "packages", "messages", "users_messages", "packages_messages")
TIME_COLUMNS = {"messages": "timestamp", "users_messages": "msg_timestamp", "packages_messages": "msg_timestamp"}
DAY = data.day(1)
EMPTY = "empty"
LZ4 = {"PGOPTIONS": "-c default_toast_compression=lz4"}


def published(bench: Bench, name: str, last: str) -> Feed:
    """A folder with all days of all tables from the first to `last`."""
    feed = bench.feed(name, DATANOMMER)
    run([[feed.export(DAY, last, 2)]])
    return feed


def make_empty(bench: Bench):
    """The database of that name: datanommer's tables with all indexes and keys, and no rows."""
    bench.replica.create_database(EMPTY)
    bench.replica.script(EMPTY, ROOT / "demo/datanommer.sql")


def by_psql(bench: Bench, feed: Feed, database: str, day: str, copy=peers.copy_in, only=ORDER) -> list:
    """`zstd -dc | psql \\copy` of a published day, part by part."""
    slices = {slice["table"]: slice for slice in feed.slices(day)}
    return [
        [copy(bench.replica, database, slices[table], feed.part(part))]
        for table in ORDER
        if table in only
        for part in slices[table]["parts"]
    ]


class Databases:
    """A fresh database for each run, made from a template, and the rows that it must hold after."""

    def __init__(self, bench: Bench, template: str, messages: int):
        self.bench = bench
        self.template = template
        self.messages = messages
        self.name = "loaded"

    def contestant(self, name: str, steps, at_most_rounds: int = None) -> Contestant:
        def prepare() -> list:
            self.bench.replica.create_database(self.name, self.template)
            return steps(self.name)

        return Contestant(name, prepare, self.finish, at_most_rounds)

    def finish(self):
        found = int(self.bench.replica.sql(self.name, "select count(*) from messages"))
        self.bench.replica.drop_database(self.name)
        if found != self.messages:
            raise Failed(f"{found} messages instead of {self.messages}")

    def catchup(self, feed: Feed, name: str = "pgslice catchup") -> Contestant:
        return self.contestant(name, lambda database: [[feed.catchup(self.bench.replica.url(database))]])


def with_lz4(steps: list) -> list:
    """The same steps, with every psql in a session whose values are compressed by lz4."""

    def changed(command: Command) -> Command:
        return Command(command.arguments, LZ4) if command.arguments[0] == "psql" else command

    return [[Pipeline(tuple(map(changed, line.commands)), line.source, line.target) for line in step] for step in steps]


def dump(bench: Bench, database: str, path: Path, *flags: str) -> Path:
    url = bench.replica.url(database)
    arguments = (
        "pg_dump",
        "--format=custom",
        "--compress=1",
        "--exclude-schema=pgslice",
        "-d",
        url,
        f"--file={path}",
        *flags,
    )
    run([[Pipeline((Command(arguments),))]])
    return path


def restore(bench: Bench, database: str, path: Path, jobs: int) -> list:
    arguments = ("pg_restore", "--exit-on-error", f"--jobs={jobs}", "-d", bench.replica.url(database), str(path))
    return [[Pipeline((Command(arguments),))]]


def load(bench: Bench) -> Section:
    """One day of all tables into indexed, empty tables."""
    make_empty(bench)
    feed = published(bench, "one-day", DAY)
    bench.replica.create_database("held", EMPTY)
    run(by_psql(bench, feed, "held", DAY))
    rows = dump(bench, "held", bench.folder / "rows.dump", "--data-only")
    bench.replica.drop_database("held")
    databases = Databases(bench, EMPTY, bench.rows_a_day)
    few = bench.settings.few_rounds
    contestants = [
        databases.catchup(feed),
        databases.contestant("zstd -dc | psql \\copy", lambda name: by_psql(bench, feed, name, DAY)),
        databases.contestant(
            "the same, default_toast_compression = lz4", lambda name: with_lz4(by_psql(bench, feed, name, DAY)), few
        ),
        databases.contestant("pg_restore of the same rows", lambda name: restore(bench, name, rows, 1), few),
    ]
    results = bench.race().run(contestants, warm=False)
    ours, piped, piped_lz4, restored = results.values()
    section = Section()
    what = "catchup of one day, all tables, into indexed tables, against `zstd -dc | psql \\copy` of the same"
    section.add_ratio(what, 0.85, ours, piped)
    for name, result in (("psql with lz4 TOAST", piped_lz4), ("`pg_restore`", restored)):
        if ours.costs and result.costs:
            section.add_statement(f"the same against {name}", f"{ours.median() / result.median():.2f}")
    note = (
        "Each run loads into a fresh copy of an empty database with datanommer's tables, keys, foreign keys and"
        " indexes. psql and pg_restore load the same five tables; pgslice verifies them too, and writes its ledger."
    )
    section.add_race("Loading one day of all five tables", results, note)
    rows.unlink()
    feed.forget()
    return section


def days(bench: Bench) -> Section:
    """Five days, one after another."""
    make_empty(bench)
    last = data.day(5)
    feed = published(bench, "five-days", last)

    def piped(name: str) -> list:
        return [
            step
            for number in range(1, 6)
            for table in ORDER
            for step in by_psql(
                bench,
                feed,
                name,
                data.day(number),
                # Users and packages of one day may be there from another.
                peers.copy_in if table in TIME_COLUMNS else peers.copy_in_new,
                (table,),
            )
        ]

    databases = Databases(bench, EMPTY, 5 * bench.rows_a_day)
    contestants = [databases.catchup(feed), databases.contestant("zstd -dc | psql \\copy", piped)]
    results = bench.race(bench.settings.few_rounds).run(contestants, warm=False)
    ours, by_hand = results.values()
    section = Section()
    section.add_ratio("catchup of five days against the same five times", 0.85, ours, by_hand)
    note = "psql loads users and packages by a temporary table and `on conflict do nothing`."
    section.add_race("Loading five days", results, note)
    feed.forget()
    return section


def revised(bench: Bench) -> Section:
    """A day that is published again, one row in a hundred changed, into a replica that holds it."""
    make_empty(bench)
    feed = published(bench, "revised", DAY)
    window = data.Window.of_day("messages", "timestamp", DAY)
    following, by_hand = "following", "by_hand"
    for database in (following, by_hand):
        bench.replica.create_database(database, EMPTY)
    run([[feed.catchup(bench.replica.url(following))]])
    run(by_psql(bench, feed, by_hand, DAY))
    revision = 1

    def publish_again():
        nonlocal revision
        revision += 1
        change = f"update messages set source_version = 'revision {revision}'"
        bench.source.sql("datanommer", f"{change} where {window.condition} and id % 100 = {revision % 100}")
        run([[feed.export(DAY, DAY, 2)]])
        bench.replica.sql("postgres", "checkpoint")

    def delete_and_load() -> list:
        windows = [data.Window.of_day(table, column, DAY) for table, column in TIME_COLUMNS.items()]
        deletes = [f"delete from {of.table} where {of.condition}" for of in windows]
        delete = [Pipeline((bench.replica.psql(by_hand, *deletes),))]
        return [delete] + by_psql(bench, feed, by_hand, DAY, only=TIME_COLUMNS)

    def finish(database: str):
        changed = f"select count(*) from messages where source_version = 'revision {revision}'"
        expected = bench.source.sql("datanommer", changed)
        found = bench.replica.sql(database, changed)
        if found != expected:
            raise Failed(f"{found} changed rows instead of {expected}")
        bench.replica.sql(database, "vacuum")

    databases = Databases(bench, EMPTY, bench.rows_a_day)
    contestants = [
        Contestant(
            "pgslice catchup of the revision",
            lambda: [[feed.catchup(bench.replica.url(following))]],
            lambda: finish(following),
        ),
        Contestant("delete, zstd -dc | psql \\copy", delete_and_load, lambda: finish(by_hand)),
        databases.catchup(feed, "pgslice catchup into empty tables"),
    ]
    results = bench.race().run(contestants, publish_again, warm=False)
    ours, anew, fresh = results.values()
    section = Section()
    what = "catchup of a revised day that changed 1 % of its rows, against loading it anew"
    section.add_ratio(f"{what} (pgslice, into empty tables)", 0.60, ours, fresh)
    section.add_ratio(f"{what} (delete, `zstd -dc | psql \\copy`)", 0.60, ours, anew)
    section.add_race("A revised day, 1 % of its messages changed", results)
    for database in (following, by_hand):
        bench.replica.drop_database(database)
    feed.forget()
    return section


def archive(bench: Bench) -> Section:
    """Topping off one day, against restoring the full dump that holds it."""
    make_empty(bench)
    section = Section()
    for held in bench.settings.archive_days:
        _archive_of(bench, section, held)
    return section


def _archive_of(bench: Bench, section: Section, held: int):
    last = data.day(held)
    feed = published(bench, "archive", last)
    days_held = f"{held} day{'s' if held > 1 else ''}"
    days_before = "days_before"
    bench.replica.create_database(days_before, EMPTY)
    if held > 1:
        run([[feed.catchup(bench.replica.url(days_before), "--to", data.day(held - 1))]])
    bench.replica.create_database("held", days_before)
    run([[feed.catchup(bench.replica.url("held"))]])
    path = dump(bench, "held", bench.folder / "full.dump")
    bench.replica.drop_database("held")

    messages = held * bench.rows_a_day
    topped, anew = Databases(bench, days_before, messages), Databases(bench, "template0", messages)
    contestants = [
        topped.catchup(feed, "pgslice catchup of the last day"),
        anew.contestant("pg_restore -j 2 of the full dump", lambda name: restore(bench, name, path, 2)),
    ]
    # A full restore takes long, and is only stated.
    results = bench.race(rounds=1).run(contestants, warm=False)
    ours, full = results.values()
    if ours.costs and full.costs:
        told = f"{ours.median():.2f} s against {full.median():.2f} s: {ours.median() / full.median():.2f}"
        section.add_statement(f"topping off one day against restoring the full dump, archive of {days_held}", told)
    title = f"An archive of {days_held}: the last day, or all of it anew"
    size = path.stat().st_size / 1e6
    note = f"The dump (`pg_dump -Fc -Z1`, {size:.0f} MB) brings tables, indexes and keys into an empty database."
    section.add_race(title, results, note)
    bench.replica.drop_database(days_before)
    path.unlink()
    feed.forget()
