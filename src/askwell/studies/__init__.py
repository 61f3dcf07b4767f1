"""Readable scripts that chain stages into a paper's table."""
