"""The jobs: the command line, and one short module for each thing it can do.

Only here may everything be imported; nothing imports jobs.
"""
