"""For tests of training."""

import os

# TRL warns of what it calls experimental, and warnings are errors here; `rollouts.train` says so to it as well.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
