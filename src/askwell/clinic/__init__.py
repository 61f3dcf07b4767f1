"""A small world with known truth, in which everything can be tried without weights, key or network. All fiction."""
