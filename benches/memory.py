"""The group that holds the peak memory of pgslice against its limits, for days of different sizes."""

from dataclasses import dataclass

import data
from bench import Bench
from clusters import ROOT
from feeds import MESSAGES, Tables, time_table
from measuring import MIB, measure
from report import Section, Table

LIMITS = {"export to a folder, jobs = 1": 64, "export to S3, jobs = 2": 160, "catchup": 96}


@dataclass(frozen=True)
class Sized:
    """A day, and the statements that make the table that takes it."""

    name: str
    tables: Tables
    schema: tuple


def memory(bench: Bench) -> Section:
    """Peak resident set, one run each: it does not vary as time does."""
    gigabytes = bench.settings.memory_gigabytes
    data.fill_large(bench.source, bench.settings.scale, gigabytes)
    columns = bench.source.sql(
        "datanommer",
        """select string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum)
           from pg_attribute where attrelid = 'large'::regclass and attnum > 0""",
    )
    large = (f'create table large ({columns}, primary key (id, "timestamp"))', 'create index on large ("timestamp")')
    sizes = [Sized("0.4 GB", MESSAGES, ()), Sized(f"{gigabytes} GB", time_table("large", "timestamp"), large)]
    peaks = {sized.name: _peaks(bench, sized) for sized in sizes}
    bench.source.sql("datanommer", "drop table large")

    section = Section()
    for what, limit in LIMITS.items():
        for name, found in peaks.items():
            section.add_limit(f"peak RSS: {what}, a day of {name}", limit, "MiB", found[what] / MIB)
    lines = [(what, *(f"{found[what] / MIB:.0f}" for found in peaks.values())) for what in LIMITS]
    head = ("peak MiB", *(f"a day of {name} of text" for name in peaks))
    section.tables.append(Table("Memory", head, lines, "zstd's level is 3; one run each."))
    section.raw["Memory"] = peaks
    return section


def _peaks(bench: Bench, sized: Sized) -> dict:
    """Peak bytes by what was run."""
    day = data.day(1)
    feed = bench.feed("memory", sized.tables)
    to_folder = measure([[feed.export(day, day, 1)]])
    bucket = bench.bucket()
    try:
        to_bucket = measure([[bench.feed("memory-bucket", sized.tables, bucket).export(day, day, 2)]])
    finally:
        bucket.stop()
    bench.replica.create_database("memory")
    bench.replica.script("memory", ROOT / "demo/datanommer.sql")
    bench.replica.sql("memory", *sized.schema)
    catchup = measure([[feed.catchup(bench.replica.url("memory"))]])
    bench.replica.drop_database("memory")
    feed.forget()
    peaks = dict(zip(LIMITS, (cost.peak_bytes for cost in (to_folder, to_bucket, catchup))))
    bench.say(f"   a day of {sized.name}: " + ", ".join(f"{what} {peak / MIB:.0f} MiB" for what, peak in peaks.items()))
    return peaks
