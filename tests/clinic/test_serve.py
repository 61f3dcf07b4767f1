"""The clinic over HTTP, in a process of its own."""

import json
import signal
import subprocess
import sys

import pytest

from askwell import recipes, runs
from askwell.cli import main
from askwell.clinic import serve
from askwell.errors import RecipeError


def test_logs_are_labelled_over_http_and_the_endpoint_accounts_for_it(tmp_path):
    logs = tmp_path / "logs" / "logs.jsonl"
    assert main(["clinic", "logs", "--conversations", "20", "--output", str(logs.parent)]) == 0
    assert main(["ingest", "--source", "chat", "--input", str(logs), "--output", str(tmp_path / "visits")]) == 0
    command = ["clinic", "serve", "--port", "0", "--faults", "{error: 0.1}", "--output", str(tmp_path / "served")]
    process = subprocess.Popen([sys.executable, "-m", "askwell.cli", *command], stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        url = line.split("--endpoint.base_url ")[1].split()[0]
        where = ["--truth", "llm", "--endpoint.model", "clinic", "--endpoint.base_url", url]
        call = ["label", "--input", str(tmp_path / "visits"), *where, "--output", str(tmp_path / "turns")]
        assert main(call) == 0
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 0
    report = json.loads((tmp_path / "served" / "report.json").read_text())
    assert report["outcomes"]["ok"] == 20 == runs.counts_of(tmp_path / "turns")["conversations"]["ok"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"faults": {"trottle": 0.1}}, "unknown 'trottle'; known: bad_utf8"),
        ({"errors": {"poet": 0.1}}, "unknown 'poet'; known: compare, corrupt, enhance"),
        ({"biases": {"taste": 0.1}}, "unknown 'taste'; known: length, order"),
        ({"faults": {"error": 0.6, "throttle": 0.6}}, "sum to 1.20"),
    ],
)
def test_what_it_does_not_know_is_refused(tmp_path, fields, message):
    with pytest.raises(RecipeError, match=message):
        serve.inputs(recipes.ClinicServeRecipe(output=tmp_path, **fields))


def test_a_recipe_that_names_the_clinic_needs_no_server(tmp_path):
    logs = tmp_path / "logs" / "logs.jsonl"
    assert main(["clinic", "logs", "--conversations", "10", "--output", str(logs.parent)]) == 0
    assert main(["ingest", "--source", "chat", "--input", str(logs), "--output", str(tmp_path / "visits")]) == 0
    where = ["--truth", "llm", "--endpoint.model", "clinic", "--endpoint.base_url", "clinic:"]
    assert main(["label", "--input", str(tmp_path / "visits"), *where, "--output", str(tmp_path / "turns")]) == 0
    assert runs.counts_of(tmp_path / "turns")["conversations"] == {"ok": 10}
