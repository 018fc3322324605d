"""One message for a run of several ranks: the first that fails prints it, the others end without one.

Ranks ask the store by which they met, at torchrun's agent: it outlives every rank, and needs no rank to have joined.
"""

import os
from datetime import timedelta

__all__ = ["has_failed", "is_first_to_fail"]

STORE_TIMEOUT = timedelta(seconds=5)

_answer: bool | None = None


def has_failed() -> bool:
    """Return whether this process, a rank that torchrun started, has asked `is_first_to_fail`."""
    return _answer is not None


def is_first_to_fail() -> bool:
    """Return whether this process is the first of its run to fail, and so the one that prints why.

    A rank asks before it leaves the others, who fail by its leaving and ask later; after that the answer stays. True
    without torchrun.
    """
    global _answer
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    if _answer is None:
        _answer = True  # a signal may come while it asks
        _answer = _ask_store()
    return _answer


def _ask_store() -> bool:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, not in __all__

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # The same store serves a run that torchrun has started again.
    key = f"fourfold/failed/{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    try:
        return TCPStore(address, port, is_master=False, timeout=STORE_TIMEOUT, wait_for_workers=False).add(key, 1) == 1
    except RuntimeError:
        # The agent is gone. Two messages are better than none.
        return True
