"""Worker processes on this machine, started as a fresh Python that runs one function of ours.

A fork would copy the locks of the threads that this process may have, and `multiprocessing` would run the user's main
script again.
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
# A worker is one of as many as there are cores: pools inside it would only get into each other's way.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)


def start(function: Callable[..., None], theirs: Connection, *arguments: Any, stdin: int) -> "subprocess.Popen[bytes]":
    """Run `function(descriptor, *arguments)` of an importable module in a process that finds the modules found here.

    `theirs`: its end of a pipe, whose descriptor it gets; closed here. `arguments`: with a `repr` that Python reads.
    `stdin`: as of `Popen`.
    """
    given = ", ".join(map(repr, (theirs.fileno(), *arguments)))
    program = PROGRAM.format(module=function.__module__, name=function.__name__, arguments=given)
    with theirs:
        return subprocess.Popen(
            [sys.executable, "-c", program, json.dumps([str(path) for path in sys.path])],
            stdin=stdin,
            pass_fds=[theirs.fileno()],
            env=os.environ | ONE_THREAD,
            # Ctrl-C in a terminal goes to the whole group; when to stop is for this process to say.
            process_group=0,
        )


def end(process: "subprocess.Popen[bytes]", wait_s: float) -> None:
    """Wait for it to end by itself, and kill it if it does not."""
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ending(process: "subprocess.Popen[bytes]", wait_s: float, *, remedy: str) -> str:
    """How a process ended that should not have, such as "was killed by SIGSEGV.". `remedy`: for want of memory."""
    try:
        code = process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return "does not answer."
    if code >= 0:
        return f"ended ({code})."
    hint = f" The system does that when memory runs out: {remedy}." if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}.{hint}"
