"""Importing this does the slow imports, for the server that the doors are forked from."""

from benchmarks.faults.trial import preload

preload()
