"""Files that are replaced in one go or not at all, by any number of writers."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pyinterp.errors import explain


def replace_file(where: str, path: Path, content: bytes) -> None:
    """Write beside ``path`` and move into its place: a failure leaves an older file as it is.

    Raises:
        OSError: It can't be written.
    """
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, target)
    except OSError as error:
        fix = "Choose a file in a folder that exists and has room."
        raise OSError(explain(where, f"to write {path}", error, fix)) from error
    finally:
        draft.unlink(missing_ok=True)
