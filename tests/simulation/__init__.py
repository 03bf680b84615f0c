"""Deterministic simulation of the real protocol code: drivers, workers and collectors that race.

The code under test is the project's own (`driver`, `records`, `sink`, `commit`, `garbage`); only
the store below it is simulated. Every call of the store is a step. Between two steps a seeded
scheduler decides who goes on, and what happens to the call: it is done, it fails before or after it
is applied, or its caller dies there. After every step the store must hold a whole dataset.
"""
