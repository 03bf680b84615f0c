"""The shards room: how each input format is planned and read, one file per format.

Every format offers the same two functions. `inspect` looks at a shard without its payload: how
many rows, which runs of them can be opened alone, how many go to each adapter, of which type the
ids and kept columns are. `read` opens one segment and yields its rows as Arrow tables of
`pipeline.schema.source_schema`. Nothing here knows torch or Ray.
"""

from pipeline.shards import images, jsonl, parquet, webdataset

READERS = {
    "parquet": parquet.read,
    "webdataset": webdataset.read,
    "images": images.read,
    "jsonl": jsonl.read,
}
INSPECTORS = {
    "parquet": parquet.inspect,
    "webdataset": webdataset.inspect,
    "jsonl": jsonl.inspect,
}
"""By shard; a folder of images is inspected as a whole, by `images.inspect`."""
SUFFIXES = {
    "parquet": parquet.SUFFIXES,
    "webdataset": webdataset.SUFFIXES,
    "images": images.SUFFIXES,
    "jsonl": jsonl.SUFFIXES,
}
"""What counts as a shard when the source names a directory."""
