"""`evaluate interviews` over HTTP and `kill -9`: no finished interview is lost, nothing received is paid for again."""

import json
import random
import subprocess
import sys
import time

from interview_examples import case_of, cases_in, name_of, well

from askwell.mock_endpoint import MockEndpoint
from served import served

CASES = [case_of(str(number), opening=f"It is {'plain' if number % 2 else 'hard'}, {number}.") for number in range(24)]
IN_FLIGHT = 8


def answer(body):
    """A model for every role, who needs no question where it is plain."""
    if name_of(body) == "Scale" and "It is plain" in str(body):
        return json.dumps({"confidence": "very confident"})
    return well(body)


def held(spool):
    """The interviews that are on disk, by number; a torn last line is none."""
    if not spool.exists():
        return {}
    lines = spool.read_bytes().split(b"\n")[:-1]
    return {ordinal: value for ordinal, state, value in (line.split(b"\t", 2) for line in lines) if state == b"ok"}


def test_killed_at_any_moment_it_loses_no_interview_and_pays_for_nothing_received_twice(tmp_path):
    cases = cases_in(tmp_path, CASES)
    mock = MockEndpoint(answer, latency=0.02)
    with served(mock) as url:

        def command(output):
            model = {"base_url": url, "model": "mock", "structured": "json_schema", "concurrency": IN_FLIGHT}
            recipe = {
                "command": "evaluate interviews",
                "cases": str(cases),
                "output": str(output),
                "asker": model,
                "decision": model,
                "patient": {"kind": "facts", "endpoint": model},
                "abstention": {"rule": "scale"},
                "most": 4,
                "shuffle": False,
                "bounds": False,
            }
            path = tmp_path / f"{output.parent.name}.yaml"
            path.write_text(json.dumps(recipe))
            return [sys.executable, "-m", "askwell.cli", "evaluate", "interviews", str(path)]

        subprocess.run(command(tmp_path / "calm" / "out"), check=True, capture_output=True)
        calm = mock.ledger.paid
        output, draw = tmp_path / "killed" / "out", random.Random(1)
        before = {}
        for kill in range(2):
            until = mock.ledger.paid + calm // 3
            process = subprocess.Popen(command(output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while mock.ledger.paid < until and process.poll() is None:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.05))
            process.kill()
            process.wait()
            now = held(output / "spool.jsonl")
            assert before.items() <= now.items(), kill
            before = now
        assert 0 < len(before) < len(CASES)
        subprocess.run(command(output), check=True, capture_output=True)
    for name in ("records.jsonl", "report.json", "cases.jsonl", "unscored.jsonl", "report.md"):
        assert (output / name).read_bytes() == (tmp_path / "calm" / "out" / name).read_bytes()
    # Each body was paid by the calm run and by the killed one; again at most what was on its way at the two kills: in
    # flight, or received and not yet committed.
    again = sum(count - 2 for count in mock.ledger.paid_by_body.values())
    assert 0 <= again <= 2 * 2 * IN_FLIGHT
