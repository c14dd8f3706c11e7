"""Throwaway servers: PostgreSQL clusters and an S3 server. They end with this process, however it ends."""

import datetime
import hashlib
import hmac
import http.client
import os
import secrets
import subprocess
import urllib.parse
from pathlib import Path

from measuring import Command, Failed

ROOT = Path(__file__).resolve().parent.parent
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

# Beside what scripts/throwaway-cluster sets. Nothing runs at a time of its own choosing while something is measured.
SETTINGS = {
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "maintenance_work_mem": "256MB",
}
THROWAWAY_SETTINGS = "fsync, full_page_writes and synchronous_commit off"


class _Server:
    """A process that says one line when it is ready, and ends when its input does."""

    def __init__(self, arguments: list, environment: dict):
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
            # Ctrl-C is for us; the server ends when its input does.
            start_new_session=True,
        )
        self.answer = self.process.stdout.readline().strip()
        if not self.answer:
            self.process.wait()
            raise Failed(f"{arguments[0]} did not start")

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def _ticks(process: int, *places: int) -> int:
    """Fields of a process's `stat`, counted behind the name, which is in parentheses, added up."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[place]) for place in places)


class Cluster:
    """A PostgreSQL server with its socket in `folder`."""

    def __init__(self, folder: Path):
        extra = folder.with_suffix(".conf")
        extra.mkdir()
        (extra / "postgresql.conf").write_text("".join(f"{name} = '{value}'\n" for name, value in SETTINGS.items()))
        self.folder = folder
        self._server = _Server([str(ROOT / "scripts/throwaway-cluster"), str(folder), "", str(extra)], {})
        self.postmaster = int((folder / "data/postmaster.pid").read_text().splitlines()[0])
        self.version = int(self.sql("postgres", "show server_version_num")) // 10000

    def stop(self):
        self._server.stop()

    def url(self, database: str, folder: Path = None) -> str:
        return f"postgresql:///{database}?host={folder or self.folder}&user=postgres"

    def sql(self, database: str, *statements: str) -> str:
        """Runs statements as psql does, each in a transaction of its own; answers are lines of fields and `|`."""
        arguments = self.psql(database).arguments + tuple(part for text in statements for part in ("-c", text))
        return self._output(arguments)

    def script(self, database: str, path: Path, **variables):
        settings = tuple(part for name, value in variables.items() for part in ("-v", f"{name}={value}"))
        self._output(self.psql(database).arguments + settings + ("-f", str(path)))

    def psql(self, database: str, *statements: str) -> Command:
        texts = tuple(part for text in statements for part in ("-c", text))
        return Command(("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url(database)) + texts)

    @staticmethod
    def _output(arguments: tuple) -> str:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def create_database(self, name: str, template: str = "template0"):
        self.drop_database(name)
        # Copied as files, without a word in the log: so it always was before release 15.
        by_files = " strategy file_copy" if self.version >= 15 else ""
        self.sql("postgres", f"create database {name} template {template}{by_files}", "checkpoint")

    def drop_database(self, name: str):
        self.sql("postgres", f"drop database if exists {name} with (force)")

    def cpu_seconds(self) -> float:
        """CPU of the server's processes that have ended: those of sessions."""
        # cutime and cstime
        return _ticks(self.postmaster, 13, 14) / CLOCK_TICKS


class Bucket:
    """The bucket "bench" of a strict S3 server of its own, in memory."""

    REGION = "eu-central-1"

    def __init__(self, program: Path, *flags: str):
        secret = secrets.token_hex(20)
        arguments = [str(program), "--bucket", "bench", "--region", self.REGION, "--until-stdin-closes"]
        # aws sends its checksums in trailers.
        arguments += ["--accept-trailers", *flags]
        keys = {"STRICT_S3_ACCESS_KEY": "bench", "STRICT_S3_SECRET_KEY": secret}
        self._server = _Server(arguments, keys)
        self.endpoint = self._server.answer.removeprefix("listening on ")
        self.environment = {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": self.REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def store_lines(self) -> str:
        """For the section [store] of a configuration."""
        return f'endpoint = "{self.endpoint}"\nregion = "{self.REGION}"\npath-style = true\n'

    def cpu_seconds(self) -> float:
        # utime and stime
        return _ticks(self._server.process.pid, 11, 12) / CLOCK_TICKS

    def put(self, objects):
        """Writes objects, pairs of key and content."""
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"))
        for key, content in objects:
            connection.request("PUT", f"/bench/{key}", content, self._signed_headers(key, content))
            answer = connection.getresponse()
            said = answer.read().decode(errors="replace")
            if answer.status != 200:
                raise Failed(f"the S3 server did not take {key}: {answer.status} {said}")
        connection.close()

    def _signed_headers(self, key: str, content: bytes) -> dict:
        """Of a PUT. Source: "Authenticating Requests (AWS Signature Version 4)" of the S3 API."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/{self.REGION}/s3/aws4_request"
        digest = hashlib.sha256(content).hexdigest()
        host = self.endpoint.removeprefix("http://")
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        path = urllib.parse.quote(f"/bench/{key}")
        request = f"PUT\n{path}\n\n{lines}\n{names}\n{digest}"
        signed = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signing_key = ("AWS4" + self.environment["AWS_SECRET_ACCESS_KEY"]).encode()
        for part in scope.split("/"):
            signing_key = hmac.digest(signing_key, part.encode(), "sha256")
        signature = hmac.digest(signing_key, signed.encode(), "sha256").hex()
        credential = f"Credential=bench/{scope}, SignedHeaders={names}, Signature={signature}"
        return {**headers, "authorization": f"AWS4-HMAC-SHA256 {credential}"}

    def stop(self):
        self._server.stop()
