"""One file for each vector store: what the contract in `pipeline.index.store` is there.

Each knows its own client, and none knows another.
"""
