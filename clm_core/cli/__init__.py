"""The command line, `clm`."""
