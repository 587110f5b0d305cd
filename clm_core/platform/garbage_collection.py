"""Garbage collection of processes that spend their start on imports."""

import atexit
import ctypes
import gc
import threading

YOUNG_OBJECTS = 100_000
"""Number of new objects after which the collector runs; 700 by default, too few for imports of 100,000s."""


YOUNG_OBJECTS_OF_A_COMMAND = 400_000
"""The same number for a command line: a list that makes 200,000 objects ends without a collection."""
STARTED_SECONDS = 15.0
"""Time after which the start of a server is over."""


def collect_garbage_rarely(young_objects: int = YOUNG_OBJECTS) -> None:
    """Collect cyclic garbage rarely in this process, and none at its end: belongs before the slow imports.

    Modules live until the end of a process. By default the collector examines their objects dozens of times
    during the imports of MLflow and Prefect, which takes a seventh of the time of the imports, and again at
    the end of the process: a second where both are loaded.
    """
    gc.set_threshold(young_objects)
    atexit.register(gc.freeze)


def return_memory_after_start(seconds: float = STARTED_SECONDS) -> None:
    """Collect the garbage of the start of a server once, and return unused memory to the system.

    The garbage collector rarely runs at rest, and glibc keeps freed memory between blocks in use.

    Args:
        seconds: time until the start is over; meanwhile a thread waits.
    """
    waiting = threading.Timer(seconds, return_memory)
    waiting.daemon = True
    waiting.start()


def return_memory() -> None:
    """Collect garbage, and return unused memory to the system; the latter by glibc alone."""
    gc.collect()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
