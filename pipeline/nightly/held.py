"""Held: what cannot be read tonight is as it was, and is looked at again tomorrow.

The spec says to pass over a shard that is damaged. Where the last snapshot holds its rows, they
stay, as they are, with the etag that the shard had then, so that no etag of a damaged object is
ever taken for one that was read. A shard that is not listed any more is gone, and not held.
"""

from collections.abc import Collection

import pyarrow as pa

from pipeline.errors import SpecError
from pipeline.log import LogEntry
from pipeline.manifest import Manifest, Shard
from pipeline.schema import difference


def held_shards(
    unread: Collection[str], base: Manifest, newest: LogEntry | None, schema: pa.Schema
) -> list[Shard]:
    """The shards of a snapshot that are listed tonight, and cannot be read.

    Args:
        unread: keys of shards that cannot be read.
        base: of the snapshot.
        newest: its entry; None for none.
        schema: of the rows tonight.

    Raises:
        SpecError: their rows have other columns.
    """
    held = [shard for shard in base.shards if shard.key in unread]
    differs = None if newest is None else difference(schema, newest.row_schema)
    if held and differs is not None:
        raise SpecError(
            f"source.on_bad_file: skip, but the rows of {held[0].uri}, which cannot be read, have "
            f"other columns than the source has now ({differs}); mend the shard, or take it away"
        )
    return held
