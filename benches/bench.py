"""What every group of measurements works with."""

import os
from dataclasses import dataclass
from pathlib import Path

import data
from clusters import Bucket, Cluster
from feeds import Feed, Tables
from measuring import Race
from peers import Peers


@dataclass(frozen=True)
class Settings:
    """From the environment; see benches/README.md."""

    rounds: int
    scale: float
    only: frozenset
    memory_gigabytes: int
    archive_days: tuple

    @staticmethod
    def read() -> "Settings":
        def asked(name: str, default: str) -> str:
            return os.environ.get(name) or default

        return Settings(
            rounds=int(asked("ROUNDS", "5")),
            scale=float(asked("SCALE", "1")),
            only=frozenset(asked("ONLY", "").split()),
            memory_gigabytes=int(asked("MEMORY", "2")),
            archive_days=tuple(sorted(int(days) for days in asked("ARCHIVE", "1 5").split())),
        )

    @property
    def few_rounds(self) -> int:
        """For what takes so long that all rounds of it would take longer than everything else."""
        return max(1, self.rounds * 3 // 5)

    @property
    def is_short(self) -> bool:
        """Short forms are for trying the harness: they measure nothing that is worth a warm cache or a long archive."""
        return self.scale < 0.1

    @property
    def published_days(self) -> int:
        """Of archives that are only listed, not filled."""
        return 100 if self.is_short else 3650

    @property
    def days(self) -> int:
        """So many days does the source hold."""
        return max(5, *self.archive_days)


@dataclass(frozen=True)
class Bench:
    """The servers, the programs, and a folder for what they write."""

    settings: Settings
    folder: Path
    pgslice: Path
    strict_s3: Path
    peers: Peers
    source: Cluster
    replica: Cluster

    def say(self, text: str):
        print(text, flush=True)

    def race(self, rounds: int = None) -> Race:
        clusters = (self.source, self.replica)
        return Race(rounds or self.settings.rounds, not self.settings.is_short, clusters, self.say)

    def feed(self, name: str, tables: Tables, bucket: Bucket = None) -> Feed:
        return Feed(self.pgslice, self.folder / name, tables, self.source.url("datanommer"), bucket)

    def bucket(self, *flags: str) -> Bucket:
        return Bucket(self.strict_s3, *flags)

    @property
    def rows_a_day(self) -> int:
        """Of `messages`."""
        return int(data.MESSAGES_A_DAY * self.settings.scale)
