"""Command lines of processes in this interpreter."""

import sys

MODULE = (sys.executable, "-P", "-m")
"""Beginning of the command line of a module.

`-P` leaves the folder of the command out of the search path: a file named like a library, as `h2.py`, cannot
shadow the library in a server.
"""
