"""Training of policies, one algorithm a file."""
