"""Command lines and environment of processes in this interpreter."""

import sys

MODULE = (sys.executable, "-P", "-m")
"""Beginning of the command line of a module.

`-P` leaves the folder of the command out of the search path: a file named like a library, as `h2.py`, cannot
shadow the library in a server.
"""
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Environment of commands, servers and runs, read when numpy is imported: matrices are small here, and
threads of OpenBLAS would wait for one another."""
