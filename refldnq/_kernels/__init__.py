"""Numba kernels, private: each compiles when it is first called, none at import of `refldnq`."""
