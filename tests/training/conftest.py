"""For tests of training."""

import os

import pytest

# TRL warns of what it calls experimental, and warnings are errors here; `rollouts.train` says so to it as well.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A base model of the toy dialogues; nobody writes to it."""
    from training_examples import ingested, recipe

    from askwell import runs
    from askwell.training import sft

    folder = tmp_path_factory.mktemp("base")
    wanted = recipe(ingested(folder / "ingest"), folder / "base", loss="all", epochs=1)
    runs.carry_out(sft, wanted, "train")
    return wanted.output


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Question sets in two attributes, some of them held out."""
    from preference_examples import HELD_OUT, SETS
    from training_examples import finished_run

    return finished_run(tmp_path_factory.mktemp("sets") / "sets", "synthesize", [*SETS, *HELD_OUT])
