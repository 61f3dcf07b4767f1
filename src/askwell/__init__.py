"""askwell trains and evaluates language models that ask good questions and know when to stop."""

__version__ = "0.1.0"
