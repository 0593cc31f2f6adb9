"""Lets the code of miniGPT meet in this process what it would meet on Windows; libraries go on as they are."""

import builtins
import functools
import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

MODULES = set("crypt curses fcntl grp nis posix pty pwd readline resource spwd syslog termios tty".split())
OS = set(
    """
    O_CLOEXEC O_DIRECTORY O_DSYNC O_NOFOLLOW O_NONBLOCK O_SYNC O_TMPFILE WEXITSTATUS WIFEXITED chown chroot
    copy_file_range ctermid eventfd fchdir fchmod fchown fork forkpty fstatvfs getegid geteuid getgid getgroups
    getloadavg getpgid getpgrp getpriority getrandom getsid getuid killpg lchown lockf memfd_create mkfifo mknod nice
    openpty pathconf pidfd_open pipe2 posix_fadvise posix_fallocate posix_spawn pread pwrite register_at_fork
    sched_getaffinity sched_setaffinity sched_yield sendfile setgid setgroups setpgid setpriority setsid setuid statvfs
    sync sysconf ttyname uname wait wait3 wait4 waitid
    """.split()
)
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}  # those that Windows has


class Without(ModuleType):
    """A module with some names missing and some replaced."""

    def __init__(self, module: ModuleType, missing: set[str], **replaced: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(replaced)
        self._module = module
        self._missing = missing

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._module, name)


def is_own(name: str) -> bool:
    """Whether a module is miniGPT's."""
    return name == "__main__" or name.split(".")[0] in ("minigpt", "hydra_plugins")


def use_windows() -> None:
    """From now on, for miniGPT's own modules, which are imported again: no Unix modules, functions and signals.

    A folder cannot be opened, a file that is open cannot be replaced or deleted, the file system has no hard links, and
    standard output is a pipe with a code page of Western Europe.
    """
    assert isinstance(sys.stdout, TextIOWrapper)
    sys.stdout.reconfigure(encoding="cp1252")
    for name in [name for name in sys.modules if is_own(name) and name != "__main__"]:
        del sys.modules[name]
    other_signals = {name for name in dir(signal) if name.startswith("SIG") and name not in {*SIGNALS, "SIG_DFL"}}
    fakes = {
        "os": Without(os, OS, name="nt", open=open_no_folder, link=refuse_link),
        "sys": Without(sys, set(), platform="win32"),
        "signal": Without(signal, {*other_signals, "alarm", "pause", "pthread_kill", "setitimer", "sigwait"}),
    }
    original = builtins.__import__

    def import_as_on_windows(name: str, globals: Any = None, *arguments: Any, **options: Any) -> ModuleType:
        if is_own((globals or {}).get("__name__", "")):
            if name in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
            if name in fakes:
                return fakes[name]
        return original(name, globals, *arguments, **options)

    builtins.__import__ = import_as_on_windows
    for function in ("replace", "rename", "unlink", "remove"):
        setattr(os, function, refuse_open_files(getattr(os, function)))


def open_no_folder(path: Any, *arguments: Any, **options: Any) -> int:
    """`os.open`, which opens no folder on Windows."""
    if Path(path).is_dir():
        raise PermissionError(13, "Permission denied", str(path))
    return os.open(path, *arguments, **options)


def refuse_link(*arguments: Any, **options: Any) -> None:
    """`os.link` on a file system without hard links, such as exFAT."""
    raise OSError(1, "Incorrect function")


def refuse_open_files(function: Callable[..., None]) -> Callable[..., None]:
    """`function` of paths, which refuses a path that this process has open or mapped when miniGPT calls it."""

    @functools.wraps(function)
    def checked(*paths: Any, **options: Any) -> None:
        caller: FrameType | None = sys._getframe(1)
        while caller is not None and caller.f_globals["__name__"].startswith("pathlib"):
            caller = caller.f_back
        if caller is not None and is_own(caller.f_globals["__name__"]):
            for path in paths:
                if os.path.realpath(path) in open_files():
                    raise PermissionError(32, "The process cannot access the file because it is in use", str(path))
        function(*paths, **options)

    return checked


def open_files() -> set[str]:
    """The files that this process has open or mapped."""
    descriptors = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    lines = Path("/proc/self/maps").read_text().splitlines()
    return descriptors | {line.split(maxsplit=5)[5] for line in lines if line.count(" ") > 5 and "/" in line}
