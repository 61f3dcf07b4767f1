"""Replies of a model to many contexts, as token ids: each context is read once, for all that is said to it."""
