"""The stages room: the flow, one file for each word of it.

    plan -> source -> prepare -> route -> embed -> sink

`plan` cuts the input into units of work, `source` reads a unit, `prepare` makes its items ready on
a CPU, `route` chooses the actor pools, `embed` runs the network, `sink` writes a unit's files.
They are plain callables over Arrow tables and do not know each other: `flow` joins them, in one
process or as one Ray Data execution. Nothing here knows a vector store.
"""
