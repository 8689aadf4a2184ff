"""Files appear whole or not at all: write beside, fsync, rename."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runs.errors import UserError


def write_error(path: Path, error: OSError) -> UserError:
    """The user's view of a write that the system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(
            f"The disk is full: {path} could not be written.",
            mend="Free some space and run the same command again; what was finished is kept.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(
            f"Cannot write to {path}.",
            why=f"{error.strerror}.",
            mend="Choose another folder with --output-dir, or change its permissions.",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return UserError(
            f"Cannot write to {path}.",
            why="A file stands where a folder is needed.",
            mend="Choose another folder with --output-dir.",
        )
    return UserError(f"Cannot write to {path}.", why=f"{error.strerror}.")


def make_folder(path: Path) -> Path:
    """Create ``path`` and its parents, and check that files can be made in it.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise write_error(path, error) from error
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically.

    Raises:
        UserError: the file system refused; the old file, if any, is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` (UTF-8) atomically. Raises like `write_bytes`."""
    write_bytes(path, text.encode())


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """Build a folder beside ``target`` and rename it into place when the block ends without error.

    If another process put ``target`` there meanwhile, that one is kept and ours is dropped.
    """
    make_folder(target.parent)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield building
        try:
            os.rename(building, target)
        except OSError:
            if not target.is_dir():
                raise
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
