"""Functions that child processes of the harness call, for its tests."""

import os
import subprocess
import sys
import time
from typing import Any

from pipelines.base.errors import DataError


class Service:
    """Answers, fails, hangs or dies, as asked."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def greet(self, name: str) -> dict[str, Any]:
        print("a library's progress bar")
        os.write(1, b"and a word from its C code\n")
        return {"said": f"{self.greeting} {name}", "process": os.getpid()}

    def fail(self, kind: str) -> dict[str, Any]:
        raise {"data": DataError, "value": ValueError, "missing": ModuleNotFoundError}[kind]("no\nsuch")

    def die(self) -> dict[str, Any]:
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(7)

    def hang(self) -> dict[str, Any]:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"worker {worker.pid}", file=sys.stderr, flush=True)
        time.sleep(600)
        return {}

    def environment(self, name: str) -> dict[str, Any]:
        return {"value": os.environ.get(name)}

    def close(self) -> None:
        print("closed", file=sys.stderr, flush=True)
