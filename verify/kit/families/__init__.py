"""Families of cases: one module an operation, each with `cases()`; modules with an underscore are shared."""
