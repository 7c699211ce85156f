"""Theorem 1 for a pair of networks: layer errors, the true final error, and the ladder of bounds on it.

`ladder.bound_ladder` gives the `results`; `operators` bounds the operator norms, `units` carries errors along
the graph, `secant` holds the exact slopes, `masks` the active sets, `pair` what does not depend on images,
`errors` what is measured on them, `printed` the theorem as printed, `update_aware` what the reports of a run
add; `report` and `plot` show the result.
"""
