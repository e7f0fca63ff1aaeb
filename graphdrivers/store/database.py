"""The SQLite file that the ledger is in: opened, brought up to date, and written one step at a time.

In WAL mode readers take no lock and are never waited for. Where the file system
cannot share memory between processes (network file systems) a rollback journal
takes its place: correct, but a reader may then wait for a writer.

Source: sqlite.org, ``wal.html`` and ``pragma.html``.
"""

import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from graphdrivers import errors
from graphdrivers.linux import filesystems
from graphdrivers.store import room
from graphdrivers.store.schema import MIGRATIONS, VERSION

FILE = "ledger.sqlite"

BUSY_TIMEOUT = 60.0
"""Seconds to wait for another process's write; each takes milliseconds."""

_PAUSE = 0.005

_WITHOUT_WAL = frozenset({"nfs", "cifs", "smb", "smb2", "9p", "ceph", "gpfs", "lustre", "fuse"})

Row = tuple[Any, ...]
Step = sqlite3.Connection
"""The ledger while a step is made (see `Database.write`)."""


def is_text(name: str) -> bool:
    """Say whether the ledger can hold a text: what is no UTF-8 is the name of nothing in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


Values = Sequence[object] | Mapping[str, object]


class Database:
    """Connections to one ledger, one for each thread; open for as long as the store is.

    What reads or writes may raise StoreCorrupt (it is damaged, or a step would contradict it), and OSError where the
    disk or the user's rights refuse it.
    """

    def __init__(self, folder: str) -> None:
        """Open the ledger in ``folder`` (which exists), making or migrating it.

        Raises:
            StoreVersion: a newer release wrote it.
            StoreCorrupt: it is no ledger, or damaged.
            LockTimeout: another process wrote for a minute.
        """
        self.path = os.path.join(folder, FILE)
        room.begin(folder)
        self._wal = filesystems.fs_type(folder) not in _WITHOUT_WAL
        self._local = threading.local()
        self._all: list[tuple[threading.Thread, sqlite3.Connection]] = []
        self._inherited: list[object] = []
        self.after_fork: Callable[[], object] = bool
        """Called in a process that was forked from one that opened the ledger, before it first uses it."""
        self._pid = os.getpid()
        self._guard = threading.Lock()
        try:
            with self._told():
                self._migrate()
        except BaseException:
            self.close()
            raise

    @property
    def journal(self) -> str:
        """The journal mode in use: ``wal``, or ``delete`` where that is not possible."""
        return str(self.read("PRAGMA journal_mode")[0][0])

    def read(self, query: str, values: Values = ()) -> list[Row]:
        """Run one query; the rows are of one moment."""
        with self._told():
            return self._connection().execute(query, values).fetchall()

    def one(self, query: str, values: Values = ()) -> Row | None:
        """Run a query that gives at most one row."""
        with self._told():
            found: Row | None = self._connection().execute(query, values).fetchone()
            return found

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all that this thread reads in the block be of one moment. Not reentrant; no `write` in it."""
        connection = self._connection()
        with self._told():
            try:
                connection.execute("BEGIN")
                yield
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")

    @contextlib.contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Make one step: all of the block, or (on an error) nothing of it. Not reentrant.

        Args:
            durable: it survives a power cut once the block has ended. Without,
                it survives the death of this process, and a power cut takes it
                back as a whole, together with all that came after it.

        Raises:
            LockTimeout: another process wrote for a minute.
        """
        connection = self._connection()
        with self._told():
            if getattr(self._local, "durable", None) is not durable:
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._local.durable = durable
            try:
                connection.execute("BEGIN IMMEDIATE")  # in here: Ctrl-C while it waits is told when it has begun
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # it may not have begun; a full disk makes SQLite roll back by itself
                    connection.execute("ROLLBACK")
                raise

    def take_back(self, work: Callable[[Step], object]) -> None:
        """Make a step that only takes away; on a full disk with the room kept aside, which the first try gives up.

        Without this, what a failure leaves would stay for as long as this process lives.

        Raises:
            OSError: ``ENOSPC``, that room is too little.
            LockTimeout: see `write`.
        """
        for is_last in (False, True):
            try:
                with self.write() as step:
                    work(step)
            except OSError as error:
                if is_last or error.errno != errno.ENOSPC:
                    raise
            else:
                return

    def is_sound(self) -> list[str]:
        """Let SQLite check the file; give what it complains of."""
        with self._told():
            problems = [str(row[0]) for row in self.read("PRAGMA quick_check")]
            broken = sorted({(row[0], row[3]) for row in self.read("PRAGMA foreign_key_check")})
            dangling = [line for table, number in broken for line in self._dangling(table, number)]
        return [*(line for line in problems if line != "ok"), *dangling]

    def _dangling(self, table: str, number: int) -> Iterator[str]:
        """Name each row of a table that refers to one that is missing, by a foreign key of it."""
        name = self.read(f"PRAGMA table_info({table})")[0][1]
        keys = {row[0]: row[2:5] for row in self.read(f"PRAGMA foreign_key_list({table})")}
        parent, column, other = keys[number]
        query = f"SELECT {name}, {column} FROM {table} WHERE {column} NOT IN (SELECT {other} FROM {parent})"  # noqa: S608 - from the schema
        for key, value in self.read(query):
            yield f"{column} of {key!r:.200} in {table} is {value!r:.200}, which is missing in {parent}"

    def close(self) -> None:
        """Close the connections of all threads. Idempotent."""
        with self._guard:
            if self._pid == os.getpid():
                for _thread, connection in self._all:
                    connection.close()
                self._all.clear()
                room.set_aside(os.path.dirname(self.path))  # it may have been given up while the disk was full
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self._forget_parents()
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect()
        return found

    def _connect(self) -> sqlite3.Connection:
        # Any thread may close it at the end; each is used by one.
        opened = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        with self._guard:
            for thread, connection in self._all:
                if not thread.is_alive():
                    connection.close()
            self._all = [(thread, connection) for thread, connection in self._all if thread.is_alive()]
            self._all.append((threading.current_thread(), opened))
        self._choose_journal(opened)
        opened.execute("PRAGMA foreign_keys=ON")
        return opened

    def _choose_journal(self, opened: sqlite3.Connection) -> None:
        """Set the journal mode. SQLite does not wait by itself for others that open a new ledger at the same time."""
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                opened.execute(f"PRAGMA journal_mode={'WAL' if self._wal else 'DELETE'}")
            except sqlite3.OperationalError as error:
                if not _name(error).startswith(_BUSY) or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def _forget_parents(self) -> None:
        """After fork(2): keep away from the connections of the parent, which must not be used or closed here.

        Source: sqlite.org, ``howtocorrupt.html``, heading *Carrying an open database connection across a fork()*.
        """
        self._inherited.append((self._local, self._all))
        self._local, self._all, self._guard, self._pid = threading.local(), [], threading.Lock(), os.getpid()
        self.after_fork()

    def _migrate(self) -> None:
        if not os.path.lexists(self.path):
            # One that somebody else has made must not be opened: closing it would drop the locks of our other threads.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if self._version() < VERSION:
            with self.write(durable=True) as step:
                for number in range(self._version(), VERSION):  # asked again: another process may have been faster
                    for statement in MIGRATIONS[number].split(";\n"):
                        step.execute(statement)
                    step.execute(f"PRAGMA user_version={number + 1}")
        if (version := self._version()) > VERSION:
            raise errors.StoreVersion(self.path, f"it has version {version}; this release knows {VERSION}")

    def _version(self) -> int:
        row = self._connection().execute("PRAGMA user_version").fetchone()
        return int(row[0])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell SQLite's errors in our own words."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if _name(error).startswith(_FULL):
                room.give_up(os.path.dirname(self.path))  # the next try succeeds
            raise _translated(self.path, error) from error


_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")

_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
"""What SQLite calls a full disk."""

_ERRNO = {
    "SQLITE_IOERR_SHMSIZE": errno.ENOSPC,
    "SQLITE_FULL": errno.ENOSPC,
    "SQLITE_READONLY": errno.EROFS,
    "SQLITE_CANTOPEN": errno.EACCES,
    "SQLITE_PERM": errno.EACCES,
    "SQLITE_AUTH": errno.EACCES,
    "SQLITE_IOERR": errno.EIO,
    "SQLITE_NOMEM": errno.ENOMEM,
}


def _name(error: sqlite3.DatabaseError) -> str:
    """Give SQLite's own name of an error; empty where the Python module found it."""
    return getattr(error, "sqlite_errorname", "") or ""


def _is_read_only(path: str) -> bool:
    """Say whether the file system is; the ledger itself is not opened for that, as closing it would drop its locks."""
    try:
        return bool(os.statvfs(os.path.dirname(path)).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _translated(path: str, error: sqlite3.DatabaseError) -> Exception:
    name = _name(error)
    if name.startswith(_BUSY):
        return errors.LockTimeout(path, f"other processes wrote to it for {BUSY_TIMEOUT:g} s")
    for beginning, number in _ERRNO.items():
        if name.startswith(beginning):
            cause = errno.EROFS if number == errno.EACCES and _is_read_only(path) else number
            return OSError(cause, f"{os.strerror(cause)} ({name})", path)
    if isinstance(error, sqlite3.IntegrityError):
        return errors.StoreCorrupt(path, f"the ledger would contradict itself: {error}")
    return errors.StoreCorrupt(path, f"the ledger is damaged: {error}")
