"""Groups about what archives of many days cost, and a catchup that finds nothing new."""

import data
from bench import Bench
from counting import CountingProxy
from exporting import OnBucket
from feeds import DATANOMMER
from forging import Forge
from measuring import Contestant, Failed, Result, measure, run, summary
from report import Section

FOREIGN_OBJECTS = 100_000
KEPT_DAYS = 15
DAY = data.day(1)


def history(bench: Bench) -> Section:
    """An export of one day of all tables behind archives of different sizes, in a bucket."""
    place = OnBucket(bench)
    forge = Forge(bench)
    published = bench.settings.published_days
    # By name: published days, and foreign objects.
    archives = {
        "0 published days": (0, 0),
        "1 published day": (1, 0),
        f"{published:,} published days": (published, 0),
        f"the same, and {FOREIGN_OBJECTS:,} foreign objects": (published, FOREIGN_OBJECTS),
    }
    heads = {days: forge.head(days) for days, _ in archives.values()}
    feed = bench.feed("history", DATANOMMER)

    def export(days: int, foreign: int, jobs: int) -> list:
        feed.bucket = place.fresh("--foreign-objects", str(foreign))
        # Of the newest day, which an export may look at.
        feed.bucket.put(("feed/" + key, content) for key, content in forge.objects(min(days, 1)))
        feed.bucket.put([("feed/feed.json", heads[days])])
        return [[feed.export(DAY, DAY, jobs, "--json")]]

    def requests(days: int, foreign: int) -> int:
        # Of one connection: how two share the parts of a table, and so their requests, differs from run to run.
        run(export(days, foreign, 1))
        return feed.report("export")["requests"]

    contestants = [
        Contestant(name, lambda archive=archive: export(*archive, 2), place.stop) for name, archive in archives.items()
    ]
    try:
        results = bench.race().run(contestants)
        without, *others = (requests(*archive) for archive in archives.values())
    finally:
        place.stop()
    none, _, many, among_foreign = results.values()
    section = Section()
    what = "export of one day to S3: time with {} against none"
    section.add_ratio(what.format(f"{published:,} published days"), 1.10, many, none)
    section.add_ratio(what.format(f"these and {FOREIGN_OBJECTS:,} foreign objects"), 1.10, among_foreign, none)
    what = f"the same, `jobs = 1`: requests with 1 and {published:,} published days, and among foreign objects"
    section.add_same(what, others)
    note = f"A feed without days is asked {without} times: there are no columns of an earlier day to compare with."
    section.add_race("Export of one day of all tables to S3, behind an archive", results, note)
    return section


def prune(bench: Bench) -> Section:
    """An archive of 3,650 days of five tables in a bucket, pruned down to 15."""
    forge = Forge(bench)
    published = bench.settings.published_days
    feed = bench.feed("prune", DATANOMMER, bench.bucket())
    try:
        feed.bucket.put(("feed/" + key, content) for key, content in forge.objects(published))
        feed.bucket.put([("feed/feed.json", forge.head(published))])
        # What a run lets go of, the next one deletes.
        letting_go, deleting = (measure([[feed.prune(KEPT_DAYS)]]) for _ in range(2))
        deleted = feed.report("prune")["deleted_objects"]
    finally:
        feed.bucket.stop()
    expected = (published - KEPT_DAYS) * (5 + 2)
    if deleted != expected:
        raise Failed(f"{deleted} objects were deleted instead of {expected}")
    results = {
        "lets days go": Result("pgslice prune: lets days go", [letting_go]),
        "deletes": Result("the next one: deletes their objects", [deleting]),
    }
    for result in results.values():
        bench.say(f"   {result.name:<44} {summary(result)}")
    section = Section()
    each = deleting.seconds / deleted * 1000
    told = f"{deleting.seconds:.2f} s for {deleted:,} objects: {each:.2f} ms per object"
    section.add_statement(f"prune of {published:,} days × 5 tables down to {KEPT_DAYS}", told)
    section.add_race(f"Prune of {published:,} days of five tables down to {KEPT_DAYS}, on S3", results)
    return section


def idle(bench: Bench) -> Section:
    """A catchup that finds nothing new, from a bucket."""
    record = bench.folder / "requests"
    bucket = bench.bucket("--record", str(record))
    database = "idle"
    bench.replica.create_database(database)
    proxy = CountingProxy(bench.folder / "counted", bench.replica.folder)
    try:
        feed = bench.feed("idle", DATANOMMER, bucket)
        run([[feed.export(DAY, DAY, 2)]])
        first = [[feed.catchup(bench.replica.url(database), "--create")]]
        run(first)
        again = bench.replica.url(database, proxy.folder)
        # The first that finds nothing new may still note something.
        run([[feed.catchup(again)]])
        record.write_text("")
        proxy.round_trips = 0
        run([[feed.catchup(again)]])
        asked, round_trips = record.read_text().splitlines(), proxy.round_trips
        contestant = Contestant(
            "pgslice catchup, nothing new", lambda: [[feed.catchup(bench.replica.url(database))]], lambda: None
        )
        results = bench.race().run([contestant])
    finally:
        proxy.stop()
        bucket.stop()
        bench.replica.drop_database(database)
    section = Section()
    requests = "; ".join(asked)
    section.add_judged(
        "catchup with nothing to do: requests", "one conditional GET", requests, _is_one_conditional(asked)
    )
    section.add_judged("the same: SQL round trips", "≤ 5", str(round_trips), round_trips <= 5)
    section.add_race("Catchup with nothing to do, from S3", results)
    return section


def _is_one_conditional(asked: list) -> bool:
    """A line of the record is `OPERATION key status`; 304 answers nothing but a conditional GET."""
    return len(asked) == 1 and asked[0].endswith(" 304")
