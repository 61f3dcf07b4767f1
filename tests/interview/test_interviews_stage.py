"""The stage over endpoints: figures worked out by hand, nothing lost, nothing paid for twice, nothing scored unread."""

import json
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
from interview_examples import FACTS, case_of, cases_in, evaluated, name_of, recipe_of, well

from askwell import runs, weights
from askwell.errors import DataError, RecipeError
from askwell.evaluation import interviews as stage
from askwell.interview.cases import shuffled
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import Faults, MockEndpoint
from askwell.records import Case
from local_examples import babbler

CASES = [case_of(str(number), group=str(number // 2), answer="B" if number < 6 else "A") for number in range(8)]


def test_a_run_worked_out_by_hand(tmp_path):
    """The model is sure after two answers and then says B; before that it says A."""
    episodes, report, counts = evaluated(tmp_path, CASES)
    found = report["figures"]
    assert len(episodes) == 8 and report["groups"] == 4
    assert found["accuracy"]["value"] == 6 / 8 and found["questions"]["value"] == 2
    assert [point["value"] for point in found["curve"]] == [0.25, 0.25, 0.75, 0.75, 0.75, 0.75]
    assert found["timeouts"]["value"] == 0 and found["facts"]["value"] == 1
    assert found["collected"]["value"] == pytest.approx(2 / 3)
    assert found["late"]["value"] == 0 and found["late"]["scored"] == 6
    assert report["distribution"] == {"0": 0, "1": 0, "2": 8} and report["ends"] == {"stopped": 8}
    assert report["content blind"]["always B, the commonest answer"]["value"] == 0.75
    assert report["content blind"]["the longest option"]["value"] == 0  # "arthritis", which is C
    assert [(cut["threshold"], cut["accuracy"], cut["questions"]) for cut in report["thresholds"]["abstention"]] == [
        (2.0, 0.25, 0.0),
        (3.0, 0.25, 1.0),
        (4.0, 0.75, 2.0),
    ]
    # Everything known is one exchange, after which this model still says A.
    assert report["everything known"]["value"] == 0.25
    assert report["stops"] is None and "reference asker" not in (tmp_path / "run" / "report.html").read_text()
    asked = {role: used["calls"] for role, used in report["usage"].items()}
    assert asked == {"abstain_scale": 24, "ask": 16, "decide": 24, "patient_facts": 16, "in all": 80}
    assert counts["interviews"] == 8


def test_usage_is_what_the_endpoint_billed(tmp_path):
    mock = MockEndpoint(well)
    price = {"prices": {"prompt": 2.0, "completion": 8.0}}
    cases = [case_of(str(number), opening=f"It is number {number}.") for number in range(5)]
    _, report, _ = evaluated(tmp_path, cases, mock=mock, bounds=False, endpoint=price)
    total, ledger = report["usage"]["in all"], mock.ledger
    # Equal calls (a patient is asked the same of equal facts) are made once: what is made is no more than what is used.
    assert total["calls"] >= ledger.paid == 5 * (3 + 3 + 2) + 2
    assert total["cost"] == pytest.approx((2 * total["prompt_tokens"] + 8 * total["completion_tokens"]) / 1e6)


def test_thresholds_are_read_off_one_run_as_if_each_had_been_run(tmp_path):
    """A rule that never ends an interview: every threshold's figures are those of a run with that threshold."""
    _, report, _ = evaluated(tmp_path, CASES, name="never", abstention={"rule": "scale", "threshold": 6}, most=3)
    for cut in report["thresholds"]["abstention"]:
        rule = {"rule": "scale", "threshold": cut["threshold"]}
        _, other, _ = evaluated(tmp_path, CASES, name=f"at {cut['threshold']}", abstention=rule, most=3)
        found = other["figures"]
        assert (found["accuracy"]["value"], found["questions"]["value"]) == (cut["accuracy"], cut["questions"])


def test_what_a_decision_maker_garbles_is_unscored_and_not_wrong(tmp_path):
    def garbled(body):
        return "No idea." if name_of(body) == "Opinion" and "number 3" in str(body) else well(body)

    cases = [case_of(str(number), opening=f"It is number {number}.") for number in range(5)]
    episodes, report, _ = evaluated(tmp_path, cases, garbled, bounds=False)
    accuracy = report["figures"]["accuracy"]
    assert (accuracy["value"], accuracy["scored"], accuracy["unscored"]) == (1.0, 4, 1)
    assert episodes[3].decision is None and report["unread"] == {"choices": 3}
    assert "unread" not in episodes[2].model_dump(exclude_defaults=True)


def test_an_interview_that_cannot_be_held_is_kept_with_its_reason(tmp_path, monkeypatch):
    bad = Faults(always=lambda body: "garbled" if "number 3" in str(body) and name_of(body) == "" else None)
    cases = [case_of(str(number), opening=f"It is number {number}.") for number in range(5)]
    mock = MockEndpoint(well, context=None, faults=bad, garble="")
    episodes, report, _ = evaluated(tmp_path, cases, mock=mock, bounds=False)
    assert [episode.end for episode in episodes].count("no question") == 1

    monkeypatch.setattr("askwell.llm.client.backoff", lambda *_, **__: 0)
    broken = Faults(always=lambda body: "error" if "number 3" in str(body) else None)
    mock = MockEndpoint(well, faults=broken)
    episodes, report, counts = evaluated(tmp_path, cases, mock=mock, name="errors/run", bounds=False)
    assert len(episodes) == 4 and report["unscored"] == {"server": 1} and counts["unscored"] == {"server": 1}
    (line,) = (tmp_path / "errors/run/unscored.jsonl").read_text().splitlines()
    assert json.loads(line)["case_id"] == "3"
    assert report["figures"]["accuracy"]["unscored"] == 1


class Cut(Exception):
    """The run ends here."""


@pytest.mark.parametrize("at", [3, 40, 75])
def test_a_run_that_was_cut_pays_for_nothing_twice_and_ends_the_same(tmp_path, at):
    cases = [case_of(str(number), opening=f"It is number {number}.") for number in range(8)]
    evaluated(tmp_path, cases, name="whole/run")
    mock = MockEndpoint(well)
    calls = 0

    def until(body):
        nonlocal calls
        calls += 1
        if calls == at:
            raise Cut
        return well(body)

    cut = MockEndpoint(until)
    with pytest.raises(Cut):
        evaluated(tmp_path, cases, name="cut/run", mock=cut)
    with closing(sqlite3.connect(tmp_path / "cut/answers.sqlite")) as store:
        received = store.execute("select count(*) from answers").fetchone()[0]
    evaluated(tmp_path, cases, name="cut/run", mock=mock)
    for name in ("records.jsonl", "report.json", "cases.jsonl", "unscored.jsonl"):
        assert (tmp_path / "cut/run" / name).read_bytes() == (tmp_path / "whole/run" / name).read_bytes()
    # What was in flight at the cut was never received, and that alone is asked again.
    again = cut.ledger.paid_by_body & mock.ledger.paid_by_body
    assert again.total() == cut.ledger.paid - received
    assert set(mock.ledger.paid_by_body.values()) == {1}


def test_options_are_shuffled_by_case_and_the_answer_goes_with_its_text():
    cases = [case_of(str(number)) for number in range(300)]
    places = Counter()
    for case in cases:
        other = shuffled(case, 0)
        assert list(other.options) == list(case.options) and set(other.options.values()) == set(case.options.values())
        assert other.options[other.answer] == case.options[case.answer]
        assert shuffled(case, 0) == other
        places[other.answer] += 1
    assert all(70 < places[name] < 130 for name in "ABC")
    named = shuffled(case_of(options={"gout": "Gout", "flu": "Flu", "x1": "Other"}, answer="flu"), 3)
    assert named.options == {"gout": "Gout", "flu": "Flu", "x1": "Other"} and named.answer == "flu"


def test_the_cases_of_a_run_stand_beside_it_as_they_were_shown(tmp_path):
    evaluated(tmp_path, CASES, shuffle=True, bounds=False, seed=5)
    shown = [Case.model_validate_json(line) for line in (tmp_path / "run" / "cases.jsonl").read_text().splitlines()]
    assert shown == [shuffled(case, 5) for case in CASES] != CASES


def test_an_asker_as_released_asks_nothing_on_the_scale(tmp_path):
    _, report, _ = evaluated(tmp_path, CASES, abstention={"rule": "scale", "compat": "as_released"}, bounds=False)
    assert report["figures"]["questions"]["value"] == 0


def test_the_page_shows_what_was_said_and_runs_none_of_it(tmp_path):
    trick = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    cases = [case_of(f"{trick}{number}", opening=trick, facts=(trick, *FACTS)) for number in range(3)]
    evaluated(tmp_path, cases, lambda body: trick if name_of(body) == "" else well(body), most=2)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")
    assert page.count("<details>") == 3 and "believes" in page and "everything known" in page
    assert "<script" not in (tmp_path / "run" / "report.md").read_text().replace("\\<", "")


def test_one_reply_that_asks_or_answers_needs_no_asker(tmp_path):
    def model(body):
        if name_of(body) != "Implicit":
            return well(body)
        asked = "fever" in str(body["messages"][-1])
        return json.dumps({"action": "answer" if asked else "ask", "question": "" if asked else "Any fever?"})

    rule = {"rule": "implicit"}
    episodes, report, _ = evaluated(tmp_path, CASES[:2], model, asker=None, abstention=rule, bounds=False)
    assert [e.question for e in episodes[0].exchanges] == ["Any fever?"] and "ask" not in report["usage"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"asker": None}, "who asks\\?"),
        ({"policy": "random"}, "who asks\\?"),
        ({"decision": None}, "somebody must decide"),
        ({"abstention": {"rule": "scale", "samples": 3}}, "temperature above 0"),
        ({"abstention": {"rule": "binary", "threshold": 0.5}}, "threshold goes with rule"),
        ({"abstention": {"rule": "fixed", "rationale": True}}, "asks no model"),
        ({"patient": {"kind": "facts"}}, "needs an endpoint"),
        ({"patient": {"kind": "clinic"}}, "knows the clinic's cases alone"),
        ({"cases": "300"}, "--limit 300"),
        ({"policy": "clinic:reference", "asker": None}, "the clinic's own patients"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_a_line(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(output=tmp_path / "run", **{"cases": tmp_path, **fields})


def test_cases_of_people_go_to_another_machine_only_where_it_is_named(tmp_path):
    cases = cases_in(tmp_path, CASES)
    away = {"base_url": "https://models.example/v1"}
    with pytest.raises(RecipeError, match="not on this machine"):
        stage.inputs(recipe_of(cases, tmp_path / "run", endpoint=away))
    stage.inputs(recipe_of(cases, tmp_path / "run", endpoint={**away, "consent": "models.example"}))


def test_a_plan_counts_the_most_calls_and_no_run_makes_more(tmp_path):
    cases = cases_in(tmp_path, CASES)
    recipe = recipe_of(cases, tmp_path / "run", abstention={"rule": "scale", "threshold": 6}, most=3, bounds=False)
    planned = stage.plan(recipe)
    assert planned["calls at most"] == 8 * (3 * 2 + 4 * 2)
    _, report, _ = evaluated(tmp_path, CASES, abstention={"rule": "scale", "threshold": 6}, most=3, bounds=False)
    assert report["usage"]["in all"]["calls"] == planned["calls at most"]


def test_random_speakers_need_nobody_and_are_the_same_every_time(tmp_path):
    cases = [case_of(str(number)) for number in range(100)]
    fields = {"policy": "random", "asker": None, "decision": None, "abstention": None, "patient": {"kind": "random"}}
    first = evaluated(tmp_path, cases, name="one", **fields)
    assert first[:2] == evaluated(tmp_path, cases, name="other", **fields)[:2]
    assert 0.2 < first[1]["figures"]["accuracy"]["value"] < 0.47 and first[1]["usage"] == {}


def test_the_clinic_plays_every_role_and_asking_beats_not_asking(tmp_path, world):
    from askwell.clinic.roles import Roles

    mock = MockEndpoint(Roles(world).answer)
    for kind in ("facts", "instruct"):
        fields = {"limit": 16, "most": 8, "patient": {"kind": kind, "endpoint": {"model": "mock"}}}
        recipe = recipe_of("clinic", tmp_path / kind, **fields)
        with runs.start(recipe, "evaluate interviews") as run:
            run.finish(stage.run(recipe, run, {"mock": InProcess(mock.send)}))
        report = stage.load(tmp_path / kind)
        found = report["figures"]
        assert found["accuracy"]["value"] > found["curve"][0]["value"] + 0.1
        assert found["accuracy"]["value"] > report["bounds"]["random patient"]["accuracy"]["value"]
        assert found["unanswered"]["value"] < 0.1 and found["facts"]["value"] > 0.9
        assert "invented world" in (tmp_path / kind / "report.md").read_text()


def test_a_folder_that_holds_no_cases_is_refused(tmp_path):
    with pytest.raises(DataError, match="askwell cases read"):
        stage.inputs(recipe_of(tmp_path / "nothing", tmp_path / "run"))


def test_a_checkpoint_asks_in_this_process_and_another_model_decides(tmp_path):
    weights.save(babbler(), tmp_path / "checkpoint")
    cases = [case_of(str(number), opening=f"It is number {number}.") for number in range(3)]
    fields = {"asker": None, "policy": str(tmp_path / "checkpoint"), "max_new_tokens": 8, "most": 2, "bounds": False}
    episodes, report, _ = evaluated(tmp_path, cases, abstention={"rule": "fixed"}, **fields)
    assert [len(episode.exchanges) for episode in episodes] == [2, 2, 2]
    assert report["usage"]["ask"]["calls"] == 6 and report["usage"]["ask"]["completion_tokens"] > 0
