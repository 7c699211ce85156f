"""Settings and results as plain JSON values, as records hold them."""

from __future__ import annotations

from refldnq._plain import plain

__all__ = ["plain"]
