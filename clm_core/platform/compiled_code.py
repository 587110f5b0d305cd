"""Machine code of numba's cache on disk, loaded before a fork so that no fork loads it by itself."""

import sys
from collections.abc import Iterator
from functools import cache
from typing import Any


@cache
def load_compiled_once(package: str) -> int:
    """`load_compiled` once in a process; not in its forks, where a look at all modules takes 20 MB."""
    return load_compiled(package)


def load_compiled(package: str) -> int:
    """Load the code of a package's imported modules that earlier processes compiled; nothing is compiled.

    Returns:
        Number of functions loaded, one for each combination of types of arguments.
    """
    count = 0
    for function in _functions(package):
        codegen = function.targetctx.codegen()
        # numba has no public list of what its cache holds
        cache: Any = function._cache
        # the index of an older source, or without a file, is empty
        for key in cache._cache_file._load_index():
            types = key[0]
            # another processor, or another state of the source, has another key
            if key == cache._index_key(types, codegen):
                function.compile(types)
                count += 1
    return count


def _functions(package: str) -> Iterator[Any]:
    """Functions of the modules with a cache on disk, each once."""
    from numba.core.caching import FunctionCache
    from numba.core.dispatcher import Dispatcher

    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == package]
    values: Iterator[Any] = (value for module in modules for value in vars(module).values())
    functions: dict[int, Any] = {id(value): value for value in values if isinstance(value, Dispatcher)}
    yield from (each for each in functions.values() if isinstance(each._cache, FunctionCache))
