"""A corpus of a hundred million rows, planned, recorded and committed on two cores.

Everything that is ours is real: the planner, the flow on Ray, records, manifest, log, the reading
of a snapshot. What a worker does to rows is not: see `simulation.work`.
"""
