"""Faults of the world outside: an object store that fails, seen through a proxy in front of it."""
