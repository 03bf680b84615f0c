"""The quickstart corpus: real text, code and page images, made from the standard library's sources.

Every Python installation carries thousands of docstrings and functions, so a first run needs no
download and no licence question. The room reads those sources as files (nothing is imported, so
nothing can have side effects), and writes Parquet shards, a tar shard and a folder of page images.
It imports the standard library, pyarrow, numpy and Pillow, and nothing else of ours.
"""
