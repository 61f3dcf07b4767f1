"""Stages killed at random moments and started again end with the records of an undisturbed run."""

import random
import time

import pytest

import toy_sgd
from askwell import cli
from children import askwell


def run_killed(words, *, within, kills, rng):
    """Start the command `kills` times and kill it at a random moment, then let it finish."""
    for _ in range(kills):
        process = askwell(*words)
        process.join(rng.uniform(0, within))
        process.kill()
        process.join()
        if (words[-1] / "manifest.json").exists():
            return  # it was faster than the knife, or was killed between its manifest and its end
    process = askwell(*words)
    process.join()
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What the stages read: raw dialogues, and conversations of either kind."""
    folder = tmp_path_factory.mktemp("killed")
    toy_sgd.write(folder / "sgd", 600)
    logs = folder / "logs"
    for words in (
        ("ingest", "--source", "sgd", "--input", folder / "sgd", "--output", folder / "conversations"),
        ("clinic", "logs", "--conversations", "120", "--output", logs),
        ("ingest", "--source", "chat", "--input", logs / "logs.jsonl", "--output", folder / "visits"),
    ):
        assert cli.main(list(map(str, words))) == 0
    return folder


STAGES = {
    "ingest": "ingest --source sgd --input {given}/sgd",
    "label": "label --input {given}/conversations",
    "label by endpoint": (
        "label --truth llm --input {given}/visits --endpoint.base_url clinic: --endpoint.model clinic"
    ),
    "clinic logs": "clinic logs --conversations 300",
    "grader": "grader --input {given}/conversations",
    "interviews": "evaluate interviews --policy clinic:myopic --limit 15",
    "interviews by endpoints": (
        "evaluate interviews --limit 12 --most 5 --asker.base_url clinic: --asker.model clinic "
        "--decision.base_url clinic: --decision.model clinic --abstention.rule scale "
        "--patient.kind facts --patient.endpoint.base_url clinic: --patient.endpoint.model clinic"
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_with_the_records_of_an_undisturbed_one(given, stage, tmp_path):
    words = [word.format(given=given) for word in STAGES[stage].split()] + ["--output"]
    began = time.monotonic()
    undisturbed = askwell(*words, tmp_path / "undisturbed")
    undisturbed.join()
    within = time.monotonic() - began
    # The answers of an endpoint are stored beside the run, for all runs there: each has a folder of its own.
    killed = tmp_path / "apart" / "killed"
    run_killed([*words, killed], within=within, kills=4 if within < 3 else 2, rng=random.Random(stage))
    assert (killed / "manifest.json").exists()
    for name in ("records.jsonl", "logs.jsonl", "report.json", "cases.jsonl", "unscored.jsonl"):
        assert (killed / name).exists() == (tmp_path / "undisturbed" / name).exists()
        if (killed / name).exists():
            assert (killed / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    left = {path.name for path in killed.iterdir()}
    assert left == {path.name for path in (tmp_path / "undisturbed").iterdir()}
