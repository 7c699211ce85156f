"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`; what is written there takes the name `path` when the block ends.

    If the block raises, the temporary file is removed and an older file of that name stays as it was.

    Parameters
    ----------
    path : str or Path
        The final name, in a folder that exists.

    Yields
    ------
    Path
        The name to write to.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to.

    Notes
    -----
    A process that is killed outright leaves its ``.NAME.*.part``; nothing reads it, and no later call removes
    it. Whether the writer lives cannot be told for certain: it may be in another container or on another
    machine that shares the folder, where neither locks nor process numbers reach, or it may be suspended.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder) / "note.txt") as temporary:
    ...         _ = temporary.write_text("done")
    ...     (Path(folder) / "note.txt").read_text()
    'done'
    """
    final = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # The content must be on the disk before the name is: a rename may overtake it.
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
