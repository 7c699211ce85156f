"""Running the claims and showing what was found: a table, JSON, a page, the list of planted errors."""
