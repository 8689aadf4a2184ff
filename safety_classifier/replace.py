"""A folder takes the place of another in one step, when it is whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runs import atomic


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Build beside ``folder`` and take its place when the block ends without error.

    Raises:
        UserError: the disk refused; what was there before is untouched.
    """
    mark = secrets.token_hex(4)
    staging = folder.with_name(f".{folder.name}.new.{mark}")
    with atomic.folder(staging) as building:
        yield building
        building.chmod(0o755)  # a temporary folder is closed to other users, a server's among them
    retired = folder.with_name(f".{folder.name}.old.{mark}")
    try:
        _exchange(folder, staging, retired)
    except OSError as error:
        raise atomic.write_error(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(retired, ignore_errors=True)


def _exchange(folder: Path, staging: Path, retired: Path) -> None:
    """Put ``staging`` at ``folder``; what stood there goes to ``retired``, and comes back if that fails."""
    if folder.is_dir():
        os.rename(folder, retired)
    try:
        os.rename(staging, folder)
    except OSError:
        if retired.is_dir():
            os.rename(retired, folder)
        raise
