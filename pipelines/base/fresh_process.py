"""Start worker processes on this machine, each a fresh Python that runs one importable function.

A fork would copy locks that other threads of this process hold, and `multiprocessing` would run the user's main script
again.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["end", "ending", "start"]

PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import {name} as f; f({arguments})"
# There are about as many workers as cores, so thread pools inside each would compete for the same cores.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)


def start(function: Callable[..., None], theirs: Connection, *arguments: Any, stdin: int) -> "subprocess.Popen[bytes]":
    """Start a process that runs `function(descriptor, *arguments)`, with the module search path of this process.

    `theirs`: the worker's end of a pipe; the worker gets its descriptor, and it is closed here. `arguments`: values
    whose `repr` is Python code, such as numbers and strings. `stdin`: as for `subprocess.Popen`.
    """
    given = ", ".join(map(repr, (theirs.fileno(), *arguments)))
    # The search path is passed as an argument and set before the import: the worker then finds what a script has added.
    program = PROGRAM.format(module=function.__module__, name=function.__name__, arguments=given)
    with theirs:
        return subprocess.Popen(
            [sys.executable, "-c", program, json.dumps([str(path) for path in sys.path])],
            stdin=stdin,
            pass_fds=[theirs.fileno()],
            env=os.environ | ONE_THREAD,
            # A terminal sends Ctrl-C to the whole process group. In a group of their own, workers end when the parent
            # says so, after it has saved its state.
            process_group=0,
        )


def end(process: "subprocess.Popen[bytes]", wait_s: float) -> None:
    """Wait up to `wait_s` seconds for a process to end, then kill it."""
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ending(process: "subprocess.Popen[bytes]", wait_s: float, *, remedy: str) -> str:
    """Describe how a process ended unexpectedly, such as "was killed by SIGSEGV.".

    `remedy`: what to do if memory has run out; said after a SIGKILL. Waits up to `wait_s` seconds for the end.
    """
    try:
        code = process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return "does not answer."
    if code >= 0:
        return f"ended ({code})."
    hint = f" The system does that when memory runs out: {remedy}." if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}.{hint}"
