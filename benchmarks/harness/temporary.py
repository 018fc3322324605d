"""Temporary folders that vanish whatever becomes of the process that made them, also when it is killed (SIGKILL)."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.base.errors import UsageError

__all__ = ["short_parent", "temporary_folder"]

MAX_PARENT_CHARACTERS = 32
"""Linux allows 107 characters for the path of a socket; the folders and names below need the rest."""

# Tries again and again at the end of its input, because other processes may live, and write, a moment longer.
KEEPER = """
import pathlib, shutil, sys, tempfile, time
folder = pathlib.Path(tempfile.mkdtemp(prefix="fourfold-", dir=sys.argv[1] or None))
print(folder, flush=True)
sys.stdin.read()
deadline_s = time.monotonic() + 60
while folder.exists() and time.monotonic() < deadline_s:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        time.sleep(0.2)
"""


def short_parent() -> Path:
    """Return the system's folder for temporary files, or /tmp where its path is too long for sockets below it.

    The workers of a DataLoader would wait without end for a socket that cannot be made.
    """
    found = Path(tempfile.gettempdir())
    return Path("/tmp") if len(str(found)) > MAX_PARENT_CHARACTERS and Path("/tmp").is_dir() else found


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder in `parent` (default: the system's folder for such), gone after the block.

    A process of its own removes it once this one has closed its input, which also a kill does. Raises UsageError.
    """
    if parent is not None and not parent.is_dir():
        raise UsageError(f"{parent}: not a folder. Give one for data that is removed again.")
    # -I and -S: it starts in a moment, and nothing in PYTHONPATH or site-packages can keep it from starting.
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", KEEPER, str(parent or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C and signals to the whole group are for the others
        text=True,
    )
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    # At the end of this block its input is closed, upon which it removes the folder; the block waits for that.
    with keeper:
        name = keeper.stdout.readline().rstrip("\n")
        if not name:
            reason = keeper.stderr.read().strip().splitlines()[-1:]
            raise UsageError(
                f"{parent or 'the folder for temporary files'}: cannot be written to ({' '.join(reason)})."
            )
        yield Path(name)
