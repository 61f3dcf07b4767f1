"""Public formats and people's own logs, read into conversations."""
