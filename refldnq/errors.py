"""What a damaged or foreign file raises."""

from __future__ import annotations


class FormatError(ValueError):
    """A file is not what it should be; the message names the file and the field."""
