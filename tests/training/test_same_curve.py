"""Every method of training has one curve: killed at random moments and resumed, or shared by two processes.

A killed run is a child that SIGKILL meets at a random touch of its run directory: between steps, in the middle of a
checkpoint, while another is removed, before the manifest.
"""

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import cast

import pytest
from preference_examples import HELD_OUT, SETS
from training_examples import finished_run, labelled, metrics, recipe

from askwell import cli, runs
from askwell.errors import RecipeError
from askwell.training import each, reward, sft

KILLS = 2
TOUCHES = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"})
ROLLOUTS = {"turns": 4, "group": 3, "max_new_tokens": 8, "updates": 2, "iterations": 2}
# Methods that differ from one of these in the loss alone are left out.
METHODS = {
    "sft": {"model": "scratch", "epochs": 2},
    "dpo": {"method": "dpo"},
    "dpo lora": {"method": "dpo", "dpo": {"precompute": False}, "lora": {"rank": 2}},
    "reward lora": {"method": "reward", "lora": {"rank": 2}},
    "each": {"method": "dpo", "each": "attribute"},
    "grpo": {"method": "grpo", "rollouts": ROLLOUTS},
    "grpo lora": {"method": "grpo", "rollouts": {**ROLLOUTS, "kl": 0.1}, "lora": {"rank": 2}},
    "ppo": {"method": "ppo", "rollouts": ROLLOUTS, "ppo": {"kl": 0.05, "kl_target": 0.5, "kl_rate": 0.5}},
    "ppo lora": {"method": "ppo", "rollouts": ROLLOUTS, "lora": {"rank": 2}},
}

TOGETHER = """
import sys
from accelerate import PartialState
from askwell import cli

# The processes meet once for all trainings.
PartialState.destroy_process_group = lambda self, group=None: None
sys.exit(any(cli.main(["train", recipe]) for recipe in sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Turns, question sets, a policy, and a reward model."""
    folder = tmp_path_factory.mktemp("given")
    labelled(folder / "turns", 9)
    finished_run(folder / "sets", "synthesize", [*SETS, *HELD_OUT])
    runs.carry_out(sft, recipe(folder / "turns", folder / "policy", epochs=2), "train")
    fields = {"method": "reward", "model": str(folder / "policy"), "preferences": {"attributes": ("clarity",)}}
    runs.carry_out(reward, recipe(folder / "sets", folder / "worth", epochs=2, **fields), "train")
    return folder


def wanted(given, name, output):
    fields = {"model": str(given / "policy"), "epochs": 0.7, "micro_batch": 1, **METHODS[name]}
    if "rollouts" in fields:
        fields["rollouts"] = {**fields["rollouts"], "reward": {"models": {"paths": [given / "worth"]}}}
    source = "sets" if fields.get("method") in ("dpo", "reward") else "turns"
    return recipe(given / source, output, **fields)


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    """Of a method the folder of an undisturbed training, and how often it touched that folder."""
    found, counting = {}, []
    sys.addaudithook(lambda event, arguments: touched(event, arguments, counting[-1]) if counting else None)

    def made(name):
        if name not in found:
            run = wanted(given, name, tmp_path_factory.mktemp("whole") / "run")
            touches = []
            counting.append((str(run.output), lambda: touches.append(1)))
            try:
                train(run)
            finally:
                counting.clear()
            found[name] = run.output, len(touches)
        return found[name]

    return made


def touched(event, arguments, watch):
    """Call what `watch` names where an event changes or opens something in the folder that it names."""
    folder, call = watch
    if event in TOUCHES and str(arguments[0]).startswith(folder):
        call()


def train(run):
    return runs.carry_out(cast(runs.Stage, importlib.import_module(cli.stage_of("train", run))), run, "train")


def killed(run, touch):
    """Train in a child that is killed at this touch of its folder; whether it was."""
    left = iter(range(touch))

    def count():
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        # Threads of pytest's do nothing that the child would wait for.
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            sys.addaudithook(lambda event, arguments: touched(event, arguments, (str(run.output), count)))
            train(run)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def left_in(folder):
    """All that a run leaves and that another one should leave, too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "metrics.jsonl":
            found[name] = metrics(path.parent)
        elif path.name == "manifest.json":
            found[name] = json.loads(path.read_text())["counts"]
        elif path.is_file() and path.name not in ("recipe.json", "provenance.json"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", METHODS)
def test_a_killed_training_leaves_what_an_undisturbed_one_leaves(given, whole, tmp_path, name):
    undisturbed, touches = whole(name)
    draw = random.Random(name)
    run = wanted(given, name, tmp_path / "run")
    deaths = sum(killed(run, draw.randrange(touches)) for _ in range(KILLS))
    assert deaths
    if not runs.finished(run.output):
        train(run)
    found, expected = left_in(run.output), left_in(undisturbed)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_torn_checkpoint_and_a_torn_line_are_not_resumed_from(given, whole, tmp_path):
    """A file that was written in part: what no touch of a folder shows."""
    undisturbed, touches = whole("sft")
    run = wanted(given, "sft", tmp_path / "run")
    assert killed(run, touches * 3 // 4)
    saved = sorted((run.output / "attempt").glob("checkpoint-*"))
    assert saved
    torn = run.output / "attempt" / "checkpoint-99"
    shutil.copytree(saved[-1], torn)
    (torn / "complete").unlink(missing_ok=True)
    (torn / "optimizer.pt").write_bytes(b"PK")
    with (run.output / "metrics.jsonl").open("a") as file:
        file.write('{"step": ')
    train(run)
    assert left_in(run.output) == left_in(undisturbed)


def test_two_processes_have_the_curve_of_one(given, whole, tmp_path):
    names = ["sft", "dpo", "reward lora", "grpo lora", "ppo"]
    recipes = []
    for name in names:
        run = wanted(given, name, tmp_path / name)
        recipes.append(tmp_path / f"{name}.json")
        recipes[-1].write_text(json.dumps(runs.resolved(run, "train")))
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    launch += ["--num_processes", "2", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script), *map(str, recipes)], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in names:
        one, two = whole(name)[0], tmp_path / name
        assert runs.counts_of(two) == {**runs.counts_of(one), "processes": 2}, name
        for line, other in zip(metrics(one), metrics(two), strict=True):
            assert line.keys() == other.keys()
            # TRL's trainer takes these two as means of micro-batches, which are not of one size.
            means = {"entropy", "kl"} if name == "grpo lora" else set()
            for figure in line.keys() - means:
                assert line[figure] == pytest.approx(other[figure], rel=1e-3, abs=1e-4), (name, figure)


def test_each_attribute_is_trained_by_one_process(given, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = wanted(given, "each", tmp_path / "run")
    with pytest.raises(RecipeError, match="trains in one process, not 2; train each attribute by itself with"):
        runs.carry_out(each, run, "train")
    assert not run.output.exists()
