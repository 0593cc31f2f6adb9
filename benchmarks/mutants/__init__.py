"""Mutation testing: small deliberate bugs, and how many of them the tests notice."""
