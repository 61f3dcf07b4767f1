"""The clinic's endpoint: with no errors its labels are the truth, with errors they are as wrong as was said."""

import json

import pytest

from askwell import recipes, runs
from askwell.cli import main
from askwell.clinic.roles import Roles
from askwell.grading.judge import Judge
from askwell.labelling import extraction
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import MockEndpoint
from askwell.recipes import Endpoint
from askwell.records import Reply, Turn


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    """120 visits, with the truth of their acts."""
    folder = tmp_path_factory.mktemp("visits")
    logs = ["clinic", "logs", "--conversations", "120", "--skill", "mixed", "--output", str(folder / "logs")]
    assert main(logs) == 0
    logs = ["--source", "chat", "--input", str(folder / "logs" / "logs.jsonl"), "--output", str(folder / "visits")]
    assert main(["ingest", *logs]) == 0
    assert main(["label", "--input", str(folder / "visits"), "--output", str(folder / "truth")]) == 0
    return folder


def turns(path):
    return {turn.id: turn for turn in runs.records_of(path, Turn, made_by="askwell label")}


def labelled(visits, output, roles, **fields):
    endpoint = {"model": "clinic", "max_tokens": 4000}
    recipe = recipes.LabelRecipe(input=visits / "visits", output=output, truth="llm", endpoint=endpoint, **fields)
    with runs.start(recipe, "label") as run:
        run.finish(extraction.run(recipe, run, InProcess(MockEndpoint(roles.answer).send)))
    return turns(output)


def f1(found, truth, roles):
    """Of facts at the turns that both have, and the share of equal decisions."""
    both = found.keys() & truth.keys()
    hits = said = wanted = 0
    for name in both:
        facts = {roles.finding_of(fact) for fact in found[name].target.facts}
        expected = set(truth[name].target.facts)
        hits, said, wanted = hits + len(facts & expected), said + len(facts), wanted + len(expected)
    agree = sum(found[name].target.decision == truth[name].target.decision for name in both)
    return 2 * hits / (said + wanted), agree / len(both), len(both) / len(truth)


@pytest.mark.parametrize("way", ["dialogue", "turn"])
def test_a_perfect_endpoint_extracts_the_truth(world, visits, tmp_path, way):
    roles = Roles(world)
    found = labelled(visits, tmp_path / "turns", roles, extraction=way)
    score, decisions, share = f1(found, turns(visits / "truth"), roles)
    assert score == 1.0
    # A question that stays unanswered is no fact: then the extractor's stop comes before the expert's.
    assert decisions > 0.97 and share > 0.97


def test_an_endpoint_that_errs_is_reported_as_it_is(world, visits, tmp_path):
    roles = Roles(world, errors={"extract_dialogue": 0.1})
    score, _, _ = f1(labelled(visits, tmp_path / "turns", roles), turns(visits / "truth"), roles)
    assert 0.9 < score < 1.0


def test_the_judge_gives_the_expert_full_marks_and_a_mistake_none(world, visits, tmp_path):
    roles = Roles(world)
    found = labelled(visits, tmp_path / "turns", roles)
    asks = [turn for turn in found.values() if turn.target.decision == "continue"][:100]
    judge = Judge(
        Endpoint(model="clinic"),
        tmp_path / "answers.sqlite",
        run="r",
        stop_marker="<stop />",
        transport=InProcess(MockEndpoint(roles.answer).send),
    )
    try:
        expert = judge.graded(asks, [Reply(turn_id=turn.id, sample=0, text=turn.expert_reply) for turn in asks])
        idle = judge.graded(
            asks, [Reply(turn_id=t.id, sample=0, text="Did you watch the game last night?") for t in asks]
        )
    finally:
        judge.close()
    direct = sum(grade.content_score == 1.0 for grade in expert)
    assert direct > 0.9 * len(asks)
    assert {grade.content_score for grade in idle} == {0.0}


def test_mistakes_are_about_the_same_requests_every_time(world):
    one, other = (Roles(world, errors={"grade": 0.5}) for _ in range(2))
    bodies = [
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": f"<data a>\n{i}\n</data a>"}]}
        for i in range(20)
    ]
    parts = [[json.dumps(body)] for body in bodies]
    mistakes = [one.wrong("grade", part) is not None for part in parts]
    assert mistakes == [other.wrong("grade", part) is not None for part in parts] and 3 < sum(mistakes) < 17


def test_a_conversation_that_grew_is_read_anew(world):
    roles = Roles(world)
    cough, fever = (world.findings[world.place[name]].yes[0] for name in ("cough", "fever"))
    lines = [json.dumps({"speaker": "person", "says": text}) for text in (cough, fever)]
    assert [roles.told(lines[0]), roles.told("\n".join(lines)), roles.told(lines[0])] == [
        {"cough"},
        {"cough", "fever"},
        {"cough"},
    ]


def test_an_unknown_prompt_is_answered_in_plain_words(world):
    body = {"messages": [{"role": "system", "content": "You are a poet."}, {"role": "user", "content": "Write."}]}
    assert "do not know this one" in Roles(world).answer(body)
