"""Faults injected into miniGPT on purpose, and into a baseline without it."""
