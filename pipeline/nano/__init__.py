"""nano: a small checkpoint that is shipped, and the pairs from which it has learnt.

`pairs` are built from what is said twice on any Debian machine with Python: of packages (`debian`,
in four languages), of programs (`manuals`), of code (`functions`), and on pages (`pages`); a
`teacher` says how close two questions are. `nightjar train` makes the checkpoint of them, by the
specs in `configs/nano`, and `benchmarks/nano.py` says how good it is. `shipped` is what came of it.
"""
