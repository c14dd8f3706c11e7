"""The tables that are read: datanommer's days, a narrow one, a wide one, and one day that is large."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from clusters import ROOT, Cluster

MESSAGES_A_DAY = 200_000
NARROW_ROWS = 5_000_000
# About 700 messages are 1 MB.
MESSAGES_A_WIDE_ROW = 700


def day(number: int) -> str:
    """The days of the data are numbered from 1."""
    assert 1 <= number <= 31
    return f"2024-05-{number:02}"


def after(text: str) -> str:
    return day(int(text[-2:]) + 1)


@dataclass(frozen=True)
class Window:
    """The rows of a table from one time on, before another."""

    table: str
    column: str
    start: str
    end: str

    @staticmethod
    def of_day(table: str, column: str, text: str) -> "Window":
        return Window(table, column, text, after(text))

    @property
    def condition(self) -> str:
        return f"\"{self.column}\" >= '{self.start}' and \"{self.column}\" < '{self.end}'"

    @property
    def query(self) -> str:
        return f"select * from {self.table} where {self.condition}"

    def halves(self) -> tuple:
        noon = f"{self.start} 12:00"
        return (Window(self.table, self.column, self.start, noon), Window(self.table, self.column, noon, self.end))


def fill_days(source: Cluster, scale: float, days: int):
    """The database `datanommer` with so many days, two of them made at a time."""
    source.create_database("datanommer")
    source.script("datanommer", ROOT / "demo/datanommer.sql")
    with ThreadPoolExecutor(2) as executor:
        fillings = [
            executor.submit(
                source.script,
                "datanommer",
                ROOT / "demo/fill.sql",
                day=day(number),
                rows=int(MESSAGES_A_DAY * scale),
            )
            for number in range(1, days + 1)
        ]
        for filling in fillings:
            filling.result()
    source.sql("datanommer", "vacuum analyze", "checkpoint")


def fill_narrow(source: Cluster, scale: float) -> int:
    """The table `narrow`, one day of rows of 37 bytes; returns how many."""
    rows = int(NARROW_ROWS * scale)
    source.sql(
        "datanommer",
        'create table narrow (id bigint, "at" timestamp not null, value smallint)',
        f"""insert into narrow select n, timestamp '{day(1)}' + (n - 1) * interval '1 day' / {rows}, n % 100
            from generate_series(1, {rows}) n""",
        "alter table narrow add primary key (id)",
        'create index on narrow ("at")',
        "vacuum analyze narrow",
        "checkpoint",
    )
    return rows


def fill_wide(source: Cluster) -> int:
    """The table `wide`, one day of rows of 1 MB of log lines; returns how many."""
    source.sql(
        "datanommer",
        'create table wide (id int primary key, "at" timestamp not null, body text not null)',
        f"""insert into wide
            select row_number() over (), timestamp '{day(1)}' + row_number() over () * interval '1 min',
                string_agg(msg, e'\\n')
            from messages where "timestamp" < '{day(2)}' group by id / {MESSAGES_A_WIDE_ROW}""",
        "vacuum analyze wide",
        "checkpoint",
    )
    return int(source.sql("datanommer", "select count(*) from wide"))


def fill_large(source: Cluster, scale: float, gigabytes: int):
    """The table `large`: one day of messages that is about so large as text."""
    rows = int(MESSAGES_A_DAY * 2.5 * gigabytes * scale)
    source.sql("datanommer", "create table large (like messages)")
    made = 0
    while made < rows:
        # The hour and the minute of a message stay, and its day becomes the first.
        made += int(
            source.sql(
                "datanommer",
                f"""with added as (
                        insert into large
                        select {made} + row_number() over (), msg_id, i, topic,
                            timestamp '{day(1)}' + "timestamp"::time, certificate, signature, category, agent_name,
                            crypto, source_name, source_version, msg, headers
                        from messages limit {rows - made} returning 1)
                    select count(*) from added""",
            )
        )
    source.sql("datanommer", 'create index on large ("timestamp")', "vacuum analyze large", "checkpoint")
