"""Importing this does the slow imports, for the server that the commands are forked from."""

from benchmarks.faults.harness import preload

preload()
