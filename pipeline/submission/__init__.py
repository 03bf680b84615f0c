"""The submission room: jobs on a cluster, as somebody outside it sees them.

`head` speaks to the cluster's Jobs API, `package` makes what is sent there. What runs on the
cluster is the same command as anywhere; nothing here knows the flow.
"""
