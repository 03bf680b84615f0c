"""Measurements beside peers, in one run: the same checkpoint, threads and inputs for everyone.

A number of seconds says little on a shared machine, so what is kept are ratios: the programs take
turns, each turn gives one ratio, and the median of those is reported. Where two programs compute
vectors, the script compares the vectors first: a ratio between programs that compute different
things means nothing. Every peer has what it has in the wild, its own package and its best setting.
"""

import os

# Before torch is loaded, for every program alike and for Ray's workers. OpenMP's threads spin while
# they wait for one another: where a neighbour holds a core, the same work was seen to take four
# times the CPU seconds. Passive threads sleep, and CPU seconds mean work again.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
