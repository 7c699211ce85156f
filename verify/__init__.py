"""Checks of the mathematics and of other implementations: naive twins, derivatives, claims, conformance."""
