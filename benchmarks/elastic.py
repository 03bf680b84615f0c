"""How soon pools are at work, and what a second node brings, with pretended GPUs.

Devices are not there: an actor that was given one sleeps while it loads the model and while it
embeds a unit (`benchmarks/pretended/`), so a machine of two cores has as many of them as a rack, and
what is measured is the time that is ours and Ray's.

- From the moment a job is submitted to a cluster through its Jobs API until each of 1 to 8 actors
  has its first unit, beside the time one actor takes to load.
- The same job on one node and on two, of a device each.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.elastic_cluster import pretended_cluster, submitted
from benchmarks.record import Comparison, write_result
from benchmarks.setting import ADAPTER, TASK, Options, checkpoint, options_of, parser, scratch
from benchmarks.timing import Timing, Timings

_UNIT_ROWS = 4
_LOAD, _UNIT = 60.0, 2.0
"""Seconds to load a model of 7.5 GB at 1 Gbit/s, and of a unit of 1,024 texts on a fast GPU."""
