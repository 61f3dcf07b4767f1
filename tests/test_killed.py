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
def conversations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    data = toy_sgd.write(folder / "sgd", 1500)
    subprocess.run(
        askwell("ingest", "--source", "sgd", "--input", data, "--output", folder / "conversations"),
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.parametrize("command", ["ingest", "label"])
def test_a_killed_stage_ends_with_the_records_of_an_undisturbed_one(conversations, command, tmp_path):
    arguments = {
        "ingest": ("ingest", "--source", "sgd", "--input", conversations / "sgd", "--output"),
        "label": ("label", "--input", conversations / "conversations", "--output"),
    }[command]
    began = time.monotonic()
    subprocess.run(askwell(*arguments, tmp_path / "undisturbed"), check=True, capture_output=True)
    within = time.monotonic() - began
    run_killed(askwell(*arguments, tmp_path / "killed"), within=within, kills=4, rng=random.Random(command))
    assert (tmp_path / "killed" / "manifest.json").exists()
    for name in ("records.jsonl", "recipe.json"):
        before, after = (tmp_path / run / name for run in ("undisturbed", "killed"))
        assert before.read_text().replace("undisturbed", "killed") == after.read_text()
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    expected = {path.name for path in (tmp_path / "undisturbed").iterdir()}
    assert left == expected
