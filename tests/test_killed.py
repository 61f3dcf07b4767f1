"""Stages killed at random moments and started again end with the records of an undisturbed run."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import toy_sgd


def askwell(*arguments):
    return [sys.executable, "-m", "askwell.cli", *map(str, arguments)]


def run_killed(command, *, within, kills, rng):
    """Start the command `kills` times and kill it at a random moment, then let it finish."""
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0, within))
            break  # it was faster than the knife
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    else:
        # A kill may come after the manifest and before the process ends: then there is nothing left to do.
        if not (Path(command[-1]) / "manifest.json").exists():
            subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What the stages read: raw dialogues, and conversations of either kind."""
    folder = tmp_path_factory.mktemp("killed")
    toy_sgd.write(folder / "sgd", 1500)
    logs = folder / "logs"
    for arguments in (
        ("ingest", "--source", "sgd", "--input", folder / "sgd", "--output", folder / "conversations"),
        ("clinic", "logs", "--conversations", "300", "--output", logs),
        ("ingest", "--source", "chat", "--input", logs / "logs.jsonl", "--output", folder / "visits"),
    ):
        subprocess.run(askwell(*arguments), check=True, capture_output=True)
    return folder


STAGES = {
    "ingest": "ingest --source sgd --input {given}/sgd",
    "label": "label --input {given}/conversations",
    "label by endpoint": (
        "label --truth llm --input {given}/visits --endpoint.base_url clinic: --endpoint.model clinic"
    ),
    "clinic logs": "clinic logs --conversations 500",
    "grader": "grader --input {given}/conversations",
    "interviews": "evaluate interviews --policy clinic:myopic --limit 60",
    "interviews by endpoints": (
        "evaluate interviews --limit 24 --most 6 --asker.base_url clinic: --asker.model clinic "
        "--decision.base_url clinic: --decision.model clinic --abstention.rule scale "
        "--patient.kind facts --patient.endpoint.base_url clinic: --patient.endpoint.model clinic"
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_with_the_records_of_an_undisturbed_one(given, stage, tmp_path):
    arguments = [word.format(given=given) for word in STAGES[stage].split()] + ["--output"]
    began = time.monotonic()
    subprocess.run(askwell(*arguments, tmp_path / "undisturbed"), check=True, capture_output=True)
    within = time.monotonic() - began
    # The answers of an endpoint are stored beside the run, for all runs there: each has a folder of its own.
    killed = tmp_path / "apart" / "killed"
    run_killed(askwell(*arguments, killed), within=within, kills=4 if within < 3 else 2, rng=random.Random(stage))
    assert (killed / "manifest.json").exists()
    for name in ("records.jsonl", "logs.jsonl", "report.json", "cases.jsonl", "unscored.jsonl"):
        assert (killed / name).exists() == (tmp_path / "undisturbed" / name).exists()
        if (killed / name).exists():
            assert (killed / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    left = {path.name for path in killed.iterdir()}
    assert left == {path.name for path in (tmp_path / "undisturbed").iterdir()}
