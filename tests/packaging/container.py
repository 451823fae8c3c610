"""Runs a program as a container engine does, with its own read-only file system and an unprivileged user. Needs root.

    python container.py DIRECTORY UID:GID PROGRAM [ARGUMENT]...

The program sees DIRECTORY as `/` and cannot write to it. It is process 1 of its own PID namespace, has an empty
environment and only its own group, and has no capability and cannot gain one. It shares the caller's network. SIGTERM
is forwarded, and the exit code is the program's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

_CLONE_NEWNS, _CLONE_NEWPID = 0x00020000, 0x20000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38

_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str | None, target: str, flags: int) -> None:
    encoded = None if source is None else os.fsencode(source)
    check(_libc.mount(encoded, os.fsencode(target), None, ctypes.c_ulong(flags), None), f"mount {target}")


def become(root: str, user: int, group: int, command: list[str]) -> None:
    """Replaces this process with the program. Does not return."""
    os.chroot(root)
    os.chdir("/")
    number = 0
    while _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:  # until the kernel knows no further capability
        number += 1
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "end with the parent")
    os.execve(command[0], command, {})


def main() -> int:
    root, owner, *command = sys.argv[1:]
    user, group = map(int, owner.split(":"))
    check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID), "namespaces")
    mount(None, "/", _MS_REC | _MS_PRIVATE)
    mount(root, root, _MS_BIND)
    mount(None, root, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    # SIGTERM stays blocked until the child exists, so that it can be forwarded.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        try:
            become(root, user, group, command)
        except OSError as error:
            print(f"container.py: {error}", file=sys.stderr)
        os._exit(127)

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGTERM, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
