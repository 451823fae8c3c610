"""Child processes that log to a file and do not outlive this process. Start from `Child`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

T = TypeVar("T")

# Loaded at import: between fork and exec, little more than a system call is safe.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1

# Variables that child processes inherit. All others are dropped, so that the user's AWS_*, COGNITO_* or *_proxy do not
# change what the stack does.
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "RUST_BACKTRACE")


class Failed(Exception):
    """A failure that is reported to the user as a message, without a traceback."""


def _die_with(parent: int) -> Callable[[], None]:
    """A `preexec_fn` that, on Linux, has the kernel kill the child when its parent ends, even if by SIGKILL."""

    def arm() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the parent ended before the call
                os._exit(1)

    return arm


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Environment of a child: the kept variables of ours, and `extra`."""
    return {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ} | (extra or {})


class Child:
    """A running process and its log file."""

    def __init__(self, name: str, command: Sequence[str | Path], *, log: Path, cwd: Path,
                 env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            try:
                # In its own session it does not receive Ctrl-C from the terminal; the stack stops it in its order.
                self._process = subprocess.Popen(
                    [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, cwd=cwd, env=environment(env), start_new_session=True,
                    preexec_fn=_die_with(os.getpid()))  # noqa: PLW1509  (it only makes system calls)
            except OSError as error:
                raise Failed(f"{name} could not be started: {error}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """The exit code, or `None` while the process runs. Negative: ended by that signal."""
        return self._process.poll()

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def failure(self, what: str) -> Failed:
        """An exception that says what happened to this process and shows the last 20 lines of its log."""
        tail = "\n".join(f"    {line}" for line in self.lines()[-20:]) or "    (it printed nothing)"
        return Failed(f"{self.name} {what}\nThe end of its log, {self.log}:\n{tail}")

    def check(self) -> None:
        """Raises `Failed` if the process has ended."""
        code = self.ended()
        if code is not None:
            raise self.failure(f"ended unexpectedly ({describe(code)})")

    def wait_until(self, what: str, condition: Callable[[], T | None], timeout: float) -> T:
        """Polls `condition` and returns its first true value; raises `Failed` if the process ends or time runs out.

        An `OSError` counts as false: a file may not exist yet, a port may not be open yet.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                value = condition()
            except OSError:
                value = None
            if value:
                return value
            self.check()
            if time.monotonic() > deadline:
                raise self.failure(f"is not {what} after {timeout:.0f} s")
            time.sleep(0.05)

    def stop(self, timeout: float) -> int:
        """Sends SIGTERM and, if the process has not ended after `timeout` seconds, SIGKILL; returns the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                # The process is not reaped yet, so its process and group ids cannot have been reused.
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


def describe(code: int) -> str:
    """An exit code in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def run_together(commands: Sequence[Sequence[str]], *, cwd: Path) -> list[str]:
    """Runs commands at the same time and returns what each wrote to stdout; their stderr goes to ours.

    Raises `Failed` as soon as one does not exit with 0. Each command gets its own process group. If one fails or this
    call is interrupted, the groups that still run are ended.
    """
    with contextlib.ExitStack() as cleanup:
        running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        for command in commands:
            output = cleanup.enter_context(tempfile.TemporaryFile())
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, cwd=cwd, start_new_session=True,
                    preexec_fn=_die_with(os.getpid()))  # noqa: PLW1509  (it only makes system calls)
            except OSError as error:
                raise Failed(f"{command[0]} could not be started: {error}") from error
            cleanup.callback(_end_group, process)
            running.append((process, output))
        while True:
            codes = [process.poll() for process, _ in running]
            for command, code in zip(commands, codes, strict=True):
                if code:
                    raise Failed(f"{' '.join(command)} failed ({describe(code)})")
            if None not in codes:
                return [_content(output) for _, output in running]
            time.sleep(0.05)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process group, unless its leader has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
