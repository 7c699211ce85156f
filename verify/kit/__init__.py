"""The conformance kit: which step of another implementation is wrong, and why."""
