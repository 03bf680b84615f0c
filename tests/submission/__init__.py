"""What may be sent to a cluster, and where."""
