"""The nightly room: what has changed since the last snapshot, and what is to be done about it.

`signs` says when two rows are the same, `changes` compares many of them, `night` makes of that what
is carried, deleted, linked and embedded. Nothing here knows torch, a model or a vector store.
"""
