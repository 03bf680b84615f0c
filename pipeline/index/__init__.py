"""After the commit: vector stores are filled from a snapshot, searched, and evaluated.

Knows neither Ray nor torch, and of a store's client only in that store's own file. What it works on
is a committed dataset; who embeds queries, and where many workers come from, is for `jobs` to say.
"""
