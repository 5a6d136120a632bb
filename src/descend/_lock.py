"""One process to a run directory: a lock that the operating system drops when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import IO

from .errors import StorageError

# The system's locks hold between processes; between two descents of one process this set does.
_held: set[str] = set()
_ATTEMPTS = 100


class Lock:
    """The lock of one run directory, from construction until `release`.

    A file left behind by a killed process is no obstacle: the lock on it went with the process.

    Raises:
        StorageError: another descent holds it (the message names its process), or the file cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        self._key = str(self.path.resolve())
        self._file = self._acquired()
        _held.add(self._key)

    def _acquired(self) -> IO[bytes]:
        for _ in range(_ATTEMPTS):
            if self._key in _held:
                raise StorageError(f"{self.path.parent}: another descent of this process is writing to it")
            try:
                file = self.path.open("r+b" if self.path.exists() else "x+b")
            except (FileExistsError, FileNotFoundError):
                continue  # the holder made or removed it between our two looks
            except OSError as error:
                raise StorageError(f"{self.path}: cannot be opened: {error.strerror}") from error
            try:
                taken = _take(file)
            except StorageError:
                file.close()
                raise
            if not taken:
                owner = _described(file)
                file.close()
                raise StorageError(
                    f"{self.path.parent}: in use by another process{owner}; wait until it ends, or give "
                    "another directory"
                )
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    _sign(file)
                    return file
            file.close()  # its holder removed the file while we waited for it
        raise StorageError(f"{self.path}: cannot be held: it keeps appearing and disappearing; try again")

    def release(self) -> None:
        """Removes the file and lets go; again is harmless."""
        if self._key not in _held:
            return
        _held.discard(self._key)
        if os.name == "nt":
            self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._file.close()


def _sign(file: IO[bytes]) -> None:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):  # a full disk does not make the lock less held
        file.truncate(0)
        file.seek(0)
        file.write(json.dumps(owner).encode())
        file.flush()


def _described(file: IO[bytes]) -> str:
    try:
        owner = json.loads(file.read() or b"{}")
        return f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[bytes]) -> bool:
        try:
            file.seek(1 << 30)  # beyond the text, which stays readable for others
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(file: IO[bytes]) -> bool:
        # lockf, not flock: a forked child (a DataLoader's worker) must not keep the lock of a killed parent.
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise StorageError(f"{file.name}: cannot be locked: {error.strerror}") from error
            return False
        return True
