"""Take turns with other processes by locking a file; the lock ends with its process, however that ends."""

import contextlib
import errno
import fcntl
import time
from collections.abc import Generator
from pathlib import Path

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems answer that cannot lock, as some network file systems."""

TAKEN = (errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def locked(path: Path, patience_s: float) -> Generator[bool]:
    """Hold the lock on a file, which is created; yield whether the file system has locks at all.

    Raises:
        TimeoutError: another process held it all the time.
        OSError: the file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in NO_LOCKS:
                    yield False
                    return
                if error.errno not in TAKEN:
                    raise
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"another process holds {path}") from None
                time.sleep(0.05)
            else:
                break
        yield True
