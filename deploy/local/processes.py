"""Child processes that log to a file and cannot outlive us.

Knows nothing of what it runs. Start from `Child`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Loaded here, because between fork and exec a child may do next to nothing.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1

# What a child gets of our environment. A list of what to keep, so that nobody's AWS_*, COGNITO_* or
# *_proxy changes what the stack does.
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "RUST_BACKTRACE")


class Failed(Exception):
    """Something that the user is told in one message, without a traceback."""


def _die_with(parent: int) -> Callable[[], None]:
    """For `preexec_fn`. Linux: the kernel ends the child when its parent ends, even by SIGKILL."""

    def arm() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it ended before we asked
                os._exit(1)

    return arm


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    return {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ} | (extra or {})


class Child:
    """A running process: its name, its log, and its end."""

    def __init__(self, name: str, command: Sequence[str | Path], *, log: Path, cwd: Path,
                 env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with open(log, "ab") as output:
            try:
                # A session of its own: Ctrl-C in the terminal reaches us only, and we end it in order.
                self._process = subprocess.Popen(
                    [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, cwd=cwd, env=environment(env), start_new_session=True,
                    preexec_fn=_die_with(os.getpid()))
            except OSError as error:
                raise Failed(f"{name} could not be started: {error}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """The exit code, if it has ended."""
        return self._process.poll()

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def failure(self, what: str) -> Failed:
        """What happened to which process, with the end of its log."""
        tail = "\n".join(f"    {line}" for line in self.lines()[-20:]) or "    (it printed nothing)"
        return Failed(f"{self.name} {what}\nThe end of its log, {self.log}:\n{tail}")

    def check(self) -> None:
        """Raises if it has ended."""
        code = self.ended()
        if code is not None:
            raise self.failure(f"ended unexpectedly ({describe(code)})")

    def wait_until(self, what: str, condition: Callable[[], T | None], timeout: float) -> T:
        """The first true value of `condition`; raises if the process ends or the time is up.

        An `OSError` is no value: a file that is not written, a port that is not open yet.
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
        """Asks it to end, insists after `timeout`, and returns the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                # Not reaped yet, so the id is still its own, and so is the group's.
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


def describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def run_in_foreground(command: Sequence[str], **options: object) -> str:
    """Runs a command to its end, its messages going where ours go; returns what it wrote to stdout.

    A group of its own, so that whatever interrupts us ends it with all of its own children.
    """
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                   start_new_session=True, preexec_fn=_die_with(os.getpid()),
                                   **options)  # type: ignore[call-overload]
    except OSError as error:
        raise Failed(f"{command[0]} could not be started: {error}") from error
    try:
        output: str = process.communicate()[0]
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)} failed ({describe(process.returncode)})")
    return output
