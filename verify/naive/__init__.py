"""Slow twins of every fast path, in loops and with NumPy alone, to be read against the definitions."""
