"""Counts what a program asks of a PostgreSQL server: a proxy between two sockets."""

import socket
import threading
from pathlib import Path

READY_FOR_QUERY = ord("Z")
LENGTH_BYTES = 4


class CountingProxy:
    """Listens in `folder` as the server in `server` does. Each answered wait of a client is a round trip: the server
    ends it by ReadyForQuery. That of the start of a session is not counted."""

    def __init__(self, folder: Path, server: Path):
        folder.mkdir()
        self.folder = folder
        self.server = server
        self.round_trips = 0
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self.server / ".s.PGSQL.5432"))
            threading.Thread(target=_forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _answer(self, server: socket.socket, client: socket.socket):
        has_begun = False
        pending = b""
        while received := _receive(server):
            pending += received
            while len(pending) > LENGTH_BYTES:
                end = 1 + int.from_bytes(pending[1 : 1 + LENGTH_BYTES], "big")
                if len(pending) < end:
                    break
                if pending[0] == READY_FOR_QUERY:
                    # Before the client can go on, and end.
                    with self._lock:
                        self.round_trips += has_begun
                    has_begun = True
                pending = pending[end:]
            _send(client, received)
        _end(client)


def _forward(client: socket.socket, server: socket.socket):
    while received := _receive(client):
        _send(server, received)
    _end(server)


def _receive(peer: socket.socket) -> bytes:
    """Nothing when the other side is gone."""
    try:
        return peer.recv(1 << 16)
    except OSError:
        return b""


def _send(peer: socket.socket, content: bytes):
    try:
        peer.sendall(content)
    except OSError:
        # The end shows at the next reading.
        pass


def _end(peer: socket.socket):
    try:
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        # It was gone already.
        pass
