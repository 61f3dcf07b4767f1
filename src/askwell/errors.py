"""The errors that a user can mend. The command line prints one of them as a single line and exits with 2.

AskwellError
├── RecipeError    a recipe or a flag is wrong: unknown key, wrong type, a rule between fields
├── RunError       a run directory cannot be used: it exists, is in use, is unfinished
├── StageError     a stage of a study failed; its own words are in the message
├── DataError      input cannot be read: a missing file, a malformed line, too many bad records
└── EndpointError  a language model's endpoint refuses every call, is out of reach, or its answers cannot be stored

A message names the value, the rule and the fix. A package of an extra that is not installed is told as one of them
(`cli.main`). Anything else is a bug and keeps its traceback.
"""


class AskwellError(Exception):
    """Base of every error that a user can mend."""


class RecipeError(AskwellError):
    """A recipe or a flag is wrong."""


class RunError(AskwellError):
    """A run directory cannot be used."""


class DataError(AskwellError):
    """Input cannot be read, or too much of it is bad."""


class StageError(AskwellError):
    """A stage of a study failed."""


class EndpointError(AskwellError):
    """An endpoint refuses every call, is out of reach, or its answers cannot be stored."""
