"""What the local stack borrows from this machine: free ports, and a private folder that no killed run leaves behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import final

from processes import Failed

_PREFIX = "cognito-authz-local-"


@final
class Port:
    """Reserves a loopback port for Envoy while the block runs; port 0 chooses a free one.

    Envoy binds with SO_REUSEPORT, so it can bind the port that we hold. We do not listen, so Envoy gets every
    connection.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self._socket = socket.socket()

    def __enter__(self) -> Port:
        try:
            with socket.socket() as probe:  # without SO_REUSEPORT: fails if another Envoy has the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", self.number))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind(("127.0.0.1", self.number))
        except OSError as error:
            self._socket.close()
            raise Failed(f"cannot bind port {self.number}: {error.strerror}") from error
        self.number = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()  # sharing works on Linux only; elsewhere the port is free until Envoy binds it
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_directory() -> Path:
    """Creates a private temporary folder. Its path must be short: a Unix socket's path has at most 108 bytes."""
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base if len(os.fsencode(base)) <= 60 else "/tmp"))


def hold(directory: Path) -> int:
    """Marks the folder as in use until this process ends, and returns the descriptor of the lock.

    The file gets the name that `sweep` looks for only after it is locked, so no other run can remove the folder.
    """
    lock = os.open(directory / "lock.new", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (directory / "lock.new").rename(directory / "lock")
    return lock


def sweep() -> None:
    """Removes the folders of killed runs: those whose lock is free. Folders with kept logs have no lock."""
    for base in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for lock in base.glob(f"{_PREFIX}*/lock"):
            try:
                handle = os.open(lock, os.O_RDWR)
            except OSError:
                continue  # another user's
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            except BlockingIOError:
                pass  # in use
            finally:
                os.close(handle)
