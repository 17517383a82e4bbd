"""Landlock: threads that can open nothing but what lies in a slide's own folder.

A slide's file may name other files, and a reader opens whatever is named: of another patient, of the service, of the
system. What is known of such formats is judged before they are opened (`service.readers.own_folder`). What is not
known yet meets the kernel here: from its start, a thread of this pool may read a slide's folder and what Python's
libraries lie in, and may write, run and connect to nothing. Nobody can take that back, the thread least of all.

It holds for threads, not for the process: the worker goes on to reach its database, its weights and its device. It is
no wall against code that a damaged file smuggles in. Where the kernel has no Landlock (before Linux 5.13, or not
built in), the caller's own thread does the work, and only the judgement of the names holds.
"""

import ctypes
import fcntl
import os
import shutil
import stat
import sys
import sysconfig
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

THREADS: Final = 8  # as many as read for a GPU; they start when they are needed
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, of the same number on all machines
ASK_VERSION, RULE_PATH_BENEATH = 1, 1
SET_NO_NEW_PRIVS: Final = 38  # of prctl; without it only root may restrict a thread
READ_FILE, READ_DIR = 1 << 2, 1 << 3
MAKE_LINKS: Final = READ_DIR | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 12  # remove folders, files; make folders, links
RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}  # version -> how many rights to files there are, from the lowest bit on
NETWORK_VERSION: Final = 4
BIND_AND_CONNECT: Final = 3
LINKS: Final = "mitosis-links-"
IMPORTED: Final = ("numpy", "imagecodecs", "openslide", "pydicom")  # packages lie beside them, wherever that is
SYSTEM: Final = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/dev/null", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
)

T = TypeVar("T")


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


_libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _call(number: int, *arguments: Any) -> int:
    """Make a system call. Raises OSError."""
    answer: int = _libc.syscall(number, *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


@cache
def landlock_version() -> int:
    """Ask the kernel for its version of Landlock; 0 where it has none."""
    if _libc is None:
        return 0
    try:
        return _call(CREATE_RULESET, None, ctypes.c_size_t(0), ASK_VERSION)
    except OSError:
        return 0


@cache
def _libraries() -> tuple[Path, ...]:
    """List the folders of Python and its libraries, never those that merely stand on its path: data may lie there."""
    named = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = [spec.origin for each in IMPORTED if (spec := find_spec(each)) and spec.origin]
    paths = [Path(each) for each in (*named, f"{sys.base_prefix}/lib", *SYSTEM) if each]
    paths += [Path(__file__).parents[1], *(Path(each).parents[1] for each in found)]
    return tuple(dict.fromkeys(path.resolve() for path in paths if path.exists()))


def _ruleset(readable: Iterable[int | Path], scratch: Path | None) -> int:
    """Make a set of rules by which those files and folders, and the libraries, may be read. Raises OSError."""
    version = landlock_version()
    every = (1 << max(count for least, count in RIGHTS.items() if least <= version)) - 1
    attributes = _Ruleset(every, BIND_AND_CONNECT if version >= NETWORK_VERSION else 0)
    size = ctypes.sizeof(attributes) if version >= NETWORK_VERSION else 8
    rules = _call(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    try:
        for place in (*_libraries(), *readable):
            _allow(rules, place, READ_FILE | READ_DIR)
        if scratch is not None:
            _allow(rules, scratch, MAKE_LINKS)
    except BaseException:
        os.close(rules)
        raise
    return rules


def _allow(rules: int, place: int | Path, rights: int) -> None:
    opened = place if isinstance(place, int) else os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):  # what is about folders is refused for files
            rights &= READ_FILE
        _call(ADD_RULE, rules, RULE_PATH_BENEATH, ctypes.byref(_PathBeneath(rights, opened)), 0)
    finally:
        if opened != place:
            os.close(opened)


_outside: list[ThreadPoolExecutor] = []  # a thread that was begun before any that is confined
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_outside.clear)


def outside(function: Callable[..., T], *arguments: Any) -> T:
    """Have a function called by a thread that is not confined, where this one is.

    For threads that a library begins once and keeps for all its users: they would inherit the confinement to the slide
    that happened to be the first, for ever. Never for what reads a slide.
    """
    if getattr(_here, "rules", None) is None:
        return function(*arguments)
    return _outside[0].submit(function, *arguments).result()


def _begin_outside() -> None:
    """Begin that thread, unless it is there; from a thread that is not confined."""
    if not _outside and getattr(_here, "rules", None) is None:
        pool = ThreadPoolExecutor(1, "unconfined")
        pool.submit(int).result()  # a pool begins its thread when it is first used
        _outside.append(pool)


_here = threading.local()  # of a confined thread: the rules it lives by, and its scratch folder


def _restrict(rules: int, scratch: Path | None) -> None:
    if _libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _call(RESTRICT_SELF, rules, 0)
    _here.rules, _here.scratch = rules, scratch


def scratch_folder() -> Path | None:
    """Give the folder that this thread may make links in; None: wherever it likes."""
    scratch: Path | None = getattr(_here, "scratch", None)
    return scratch


class ConfinedThreads:
    """Threads that can read nothing but some files and folders, and what lies below; safe to share between threads.

    Folders are given as paths, or as descriptors that are open while this is made.
    With `links` the threads may make links in a folder of their own, which lead nowhere that they may not read.
    """

    def __init__(self, readable: Iterable[int | Path] | None, *, links: bool = False) -> None:
        self._pool: ThreadPoolExecutor | None = None
        if readable is not None and landlock_version():
            _begin_outside()
            held, scratch = _held_folder() if links else (None, None)
            try:
                self._rules = _ruleset(readable, scratch)
            except BaseException:
                _remove(held, scratch)
                raise
            self._clear = weakref.finalize(self, _clear, self._rules, held, scratch)
            self._pool = ThreadPoolExecutor(THREADS, "confined", _restrict, (self._rules, scratch))

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Have one of the threads call a function, and wait for what it gives or raises."""
        if self._pool is None or getattr(_here, "rules", None) == self._rules:
            return function(*arguments)
        return self._pool.submit(function, *arguments).result()

    def close(self) -> None:
        """End the threads, once they have done what they were asked."""
        if self._pool is not None:
            self._pool.shutdown()
            self._clear()


def _held_folder() -> tuple[int | None, Path]:
    """Make a folder for links, locked while this process lives; removes those of processes that were killed.

    Gives the descriptor that holds the lock, too; None where the file system has no locks, and nothing is removed.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{LINKS}*"):
        with suppress(OSError):
            _remove(_locked(left), left)
    while True:
        made = Path(tempfile.mkdtemp(prefix=LINKS))
        try:
            return _locked(made), made
        except (BlockingIOError, FileNotFoundError):
            continue  # another process took it for left over, before it was locked
        except OSError:
            return None, made


def _locked(folder: Path) -> int:
    """Lock a folder; gives its descriptor. Raises OSError: BlockingIOError where somebody has it locked."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(held), folder.lstat()):
            raise FileNotFoundError(folder)
    except BaseException:
        os.close(held)
        raise
    return held


def _clear(rules: int, held: int | None, scratch: Path | None) -> None:
    os.close(rules)
    _remove(held, scratch)


def _remove(held: int | None, scratch: Path | None) -> None:
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    if held is not None:
        os.close(held)
