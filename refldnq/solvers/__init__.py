"""Solvers of the discrete problem (10), one a file, all of one signature; see `refldnq.solvers.base`."""
