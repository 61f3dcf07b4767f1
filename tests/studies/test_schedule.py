"""Stages side by side: in an order in which each finds what it reads, stopped and gone on with as one."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_examples import chain

import toy_sgd
from askwell import recipes, runs
from askwell.errors import StageError
from askwell.sources import ingest
from askwell.studies import schedule
from askwell.studies.schedule import Step


@pytest.fixture
def data(tmp_path):
    for seed, name in enumerate(("train", "dev")):
        toy_sgd.write(tmp_path / "sgd" / name, 8, seed=seed)
    return tmp_path / "sgd"


def test_steps_wait_for_what_they_read_and_those_apart_run_side_by_side(data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = tmp_path / "out"
    told = []
    steps = chain(root, data, "train", "dev")
    schedule.carry_out(steps, workers=2, root=root, done=lambda step, seconds: told.append(step.output.name))
    assert all(runs.finished(step.output) for step in steps)
    assert told.index("train-conversations") < told.index("train-turns")
    assert told.index("dev-conversations") < told.index("dev-turns")
    begun = [record.message for record in caplog.records if "(threads:" in record.message]
    # Both ingests are begun before either label.
    assert [message.partition(":")[0].partition("-")[2] for message in begun[:2]] == ["conversations"] * 2
    schedule.carry_out(steps, workers=2, root=root, done=lambda step, seconds: told.append("again"))
    assert "again" not in told


def test_a_failure_is_one_line_that_names_the_stage_and_leaves_what_is_finished(data, tmp_path):
    root = tmp_path / "out"
    for file in (data / "dev").glob("dialogues_*.json"):
        file.write_text("{")
    with pytest.raises(StageError, match=r"^ingest for .*dev-conversations: .*dialogues_.*\(exit code 2\)$"):
        schedule.carry_out(chain(root, data, "train", "dev"), workers=1 + 1, root=root)
    assert not runs.finished(root / "dev-conversations")
    assert not (root / "dev-turns").exists()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from schedule_examples import chain
from askwell.studies import schedule
root, data = Path(sys.argv[1]), Path(sys.argv[2])
steps = chain(root, data, "train", "dev")
schedule.carry_out([step for step in steps if step.command == "ingest"], workers=2, root=root)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel to end children with their parent")
def test_no_child_outlives_a_killed_study(data, tmp_path):
    root = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    here = os.path.dirname(__file__)  # noqa: PTH120
    study = subprocess.Popen([sys.executable, "-c", KILLED, str(root), str(data), here], env=environment)
    while not (children := of_parent(study.pid)):
        time.sleep(0.01)
    study.send_signal(signal.SIGKILL)
    study.wait()
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    schedule.carry_out(chain(root, data, "train", "dev"), workers=2, root=root)
    assert runs.finished(root / "train-turns")


def of_parent(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.sets(st.integers(0, n - 1)), min_size=n, max_size=n)))
def test_what_most_waits_for_goes_first(edges):
    """Step i reads some of those before it; whoever is read has a longer chain behind it than its reader."""
    needs = {i: {j for j in read if j < i} for i, read in enumerate(edges)}
    urgency = schedule.chains(needs)
    assert all(urgency[read] > urgency[reader] for reader, reads in needs.items() for read in reads)


def test_who_alone_has_the_longest_chain_behind_it_takes_two_places():
    urgency = {"base": 3, "reader": 1, "grader": 2, "other base": 3}

    def places(beside, room=4, workers=4):
        return schedule.places_of("base", set(beside), urgency, room=room, workers=workers)

    assert places(["reader", "grader"]) == 2
    assert places(["reader", "other base"]) == 1  # as long a chain behind another
    assert places(["reader", "grader"], room=1) == 1
    assert places(["reader", "grader"], workers=3) == 1  # others would have one place between them
    assert places(["reader"]) == 1  # half of the cores already


def test_a_checkpoint_inside_a_run_is_an_output_that_is_read(tmp_path):
    base = recipes.TrainRecipe(input=tmp_path / "turns", output=tmp_path / "base")
    tuned = recipes.TrainRecipe(
        input=tmp_path / "turns", output=tmp_path / "sft", model=str(tmp_path / "base" / "checkpoint")
    )
    steps = [Step("train", ingest, recipe, "") for recipe in (base, tuned)]
    assert schedule.needed(steps[1], steps) == {tmp_path / "base"}
    assert schedule.needed(steps[0], steps) == set()
    assert json.dumps(runs.resolved(tuned, "train"))
