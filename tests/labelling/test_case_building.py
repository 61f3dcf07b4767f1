"""cases build against a writer and a judge in process that say what a script has them say, and against the clinic."""

import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import pytest
from case_examples import FACTS, OPTIONS, build, choosing, ingested, log, parts_of, refusal, script, verdicts

from askwell import jsonl, recipes, runs
from askwell.cli import main
from askwell.clinic.roles import Roles
from askwell.errors import DataError, EndpointError, RecipeError
from askwell.labelling import case_sources
from askwell.labelling.case_building import Drafted
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import Faults, MockEndpoint
from askwell.records import Conversation
from served import served


@pytest.fixture
def records(tmp_path):
    return ingested(tmp_path, [log("a", outcome="Gout, by the lab.")])


def test_a_conversation_becomes_a_case(records, tmp_path):
    (case,), counts, report, mock = build(records, tmp_path / "cases")
    assert case.id == "a" and case.inquiry == "What is wrong with the toe?"
    assert case.initial_information == "Hello there. My big toe hurts since Monday.\nI am 45."
    assert sorted(case.options) == ["A", "B", "C", "D"] and sorted(case.options.values()) == sorted(OPTIONS)
    assert case.options[case.answer] == "gout"
    # What holds the answer is no fact, and neither record nor facts hold what the expert concluded.
    assert case.facts == ("My big toe hurts since Monday.", "I am 45.", "The toe is red.", "It came up overnight.")
    assert case.record == "" and report["facts left out"] == {"holds the answer": 1}
    assert mock.ledger.paid == 6 and counts["cases"] == 1 and counts["unscored"] == {}


def test_the_judge_is_not_told_which_option_is_meant_and_sees_them_in_every_order(tmp_path):
    records = ingested(tmp_path, [log(str(number)) for number in range(40)])
    bodies = []
    answer = script()
    cases, _, report, _ = build(records, tmp_path / "cases", lambda body: bodies.append(body) or answer(body))
    shown = [parts_of(body)[1][3] for body in bodies if parts_of(body)[0] == "options"]
    places = Counter(next(it["option"] for it in options if it["text"] == "gout") for options in shown)
    assert set(places) == set("ABCD") and max(places.values()) < 20
    assert {frozenset(it) for options in shown for it in options} == {frozenset(("option", "text"))}
    # Nor does the case's own place say it, which the seed draws.
    answers = Counter(case.answer for case in cases)
    assert report["answers by place"] == dict(sorted(answers.items())) and max(answers.values()) < 20
    again, *_ = build(records, tmp_path / "again", limit=10)
    other, *_ = build(records, tmp_path / "other", limit=10, seed=1)
    assert again == [case for case in cases if case in again] and len(again) == 10
    assert [case.answer for case in again] != [case.answer for case in other]


def test_a_fact_stands_verbatim_or_by_the_judge_and_what_stands_nowhere_is_left_out(records, tmp_path):
    found = [
        *FACTS[:4],
        {"message": 2, "quote": "My left knee hurts.", "fact": "My left knee hurts."},
        {"message": 4, "quote": "Is it red?", "fact": "It is red."},
        {"message": 5, "quote": "Yes.", "fact": "Yes."},
        {"message": 5, "quote": "Yes", "fact": "The toe is blue."},
        {"message": 3, "quote": "I am 45", "fact": "i am 45"},
        {"message": 99, "quote": "I am 45", "fact": "I am 46."},
        {"message": 2, "quote": "big toe hurts", "fact": "big toe hurts"},
    ]
    asked = []

    def support(parts):
        asked.extend(it["says"] for it in parts[2])
        rows = [
            {"fact": it["fact"], "reason": "r", "supported": "blue" not in it["says"]}
            for it in parts[2]
            if it["says"] != "big toe hurts"
        ]
        return {"verdicts": rows}

    (case,), _, report, _ = build(records, tmp_path / "cases", script(facts={"facts": found}, support=support))
    assert case.facts == ("My big toe hurts since Monday.", "I am 45.", "The toe is red.", "It came up overnight.")
    # Whole sentences of the person need no judge; a part of one may mean something else.
    assert asked == ["The toe is red.", "The toe is blue.", "big toe hurts"]
    assert report["facts left out"] == {
        "not in a message of the person": 2,
        "not judged": 1,
        "not supported by the record": 1,
        "quote is not in the message": 1,
        "says nothing by itself": 1,
        "told before": 1,
    }


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            {"inquiry": {"reason": "r", "inquiry": "What is it?", "answer": "hurts since Monday"}},
            "given away by the first",
        ),
        ({"inquiry": {"reason": "r", "inquiry": "Is it the gout?", "answer": "gout"}}, "given away by the inquiry"),
        ({"inquiry": {"reason": "r", "inquiry": " ", "answer": "gout"}}, "no inquiry"),
        ({"facts": {"facts": FACTS[:2]}}, "nothing to ask"),
        ({"facts": {"facts": [*FACTS[:2], FACTS[4]]}}, "nothing to ask"),  # the rest holds the answer
        ({"choose": lambda parts: choosing(parts, "arthritis")}, "facts point elsewhere"),
        ({"options": lambda parts: verdicts(parts, right=())}, "answer not supported"),
        ({"options": lambda parts: verdicts(parts, right=("gout", "revised 2", "a sprain"))}, "a second right answer"),
        ({"options": lambda parts: verdicts(parts, plausible=False)}, "implausible"),
        ({"facts": "I cannot say."}, "unreadable"),
        ({"options": lambda parts: {"verdicts": verdicts(parts)["verdicts"][:3]}}, "off_menu"),
        ({"options": lambda parts: {"verdicts": verdicts(parts)["verdicts"] * 2}}, "off_menu"),
        ({"distractors": {"reason": "r", "options": ["a sprain"]}}, "unreadable"),
    ],
)
def test_what_gives_no_case_is_kept_with_its_reason(records, tmp_path, said, reason):
    assert refusal(records, tmp_path / "cases", script(**said)).startswith(reason)


@pytest.mark.parametrize(
    "option",
    ["Gout!", "the gout", "All of these", "", "gout (the gout)"],
    ids=["alike", "article", "all", "empty", "bracket"],
)
def test_options_that_words_alone_refuse_are_written_anew_before_anyone_judges(records, tmp_path, option):
    wrong = {"reason": "r", "options": [option, "arthritis", "an infection"]}
    (case,), _, report, _ = build(records, tmp_path / "cases", script(distractors=wrong))
    assert sorted(case.options.values()) == ["an infection", "arthritis", "gout", "revised 2"]
    assert report["revised"] == 1 and sum(report["faults found"].values()) == 1
    first, second = jsonl.read(tmp_path / "cases" / "drafts.jsonl", Drafted)
    assert first.options[1] == option and len(first.faults) == 1 and not second.faults


def test_only_what_is_at_fault_is_written_anew_and_then_judged_again(records, tmp_path):
    def options(parts):
        return verdicts(parts, right=("gout", "a sprain"))

    def revise(parts):
        assert [it["option"] for it in parts[4]] == [2] and parts[4][0]["fault"] == "r"
        return {"reason": "r", "options": [{"option": n, "text": f"changed {n}"} for n in (1, 2, 3)]}

    (case,), _, report, mock = build(records, tmp_path / "cases", script(options=options, revise=revise))
    assert sorted(case.options.values()) == ["an infection", "arthritis", "changed 2", "gout"]
    assert report["faults found"] == {"a second right answer": 1} and mock.ledger.paid == 8
    assert (
        refusal(records, tmp_path / "none" / "cases", script(options=options), revisions=0) == "a second right answer"
    )


def test_an_inquiry_may_name_the_answer_beside_another_option(records, tmp_path):
    inquiry = {"reason": "r", "inquiry": "Is it gout or arthritis?", "answer": "gout"}
    (case,), *_ = build(records, tmp_path / "cases", script(inquiry=inquiry))
    assert case.inquiry == "Is it gout or arthritis?"


def test_a_revised_answer_must_not_be_given_away_either(records, tmp_path):
    def options(parts):
        return verdicts(parts, right=("45",))

    revise = {"reason": "r", "options": [{"option": 1, "text": "45"}]}
    assert (
        refusal(records, tmp_path / "cases", script(options=options, revise=revise)) == "given away by the first words"
    )


def test_without_the_last_check_what_the_facts_leave_open_is_kept(records, tmp_path):
    answer = script(choose=lambda parts: choosing(parts, "arthritis"))
    (case,), *_ = build(records, tmp_path / "cases", answer, answerable=False)
    assert case.options[case.answer] == "gout"


def test_who_chooses_by_the_facts_sees_neither_conclusion_nor_outcome(records, tmp_path):
    bodies = []
    answer = script()
    build(records, tmp_path / "cases", lambda body: bodies.append(body) or answer(body))
    texts = {parts_of(body)[0]: body["messages"][1]["content"] for body in bodies}
    assert all("by the lab" in texts[task] and "This is gout" in texts[task] for task in ("inquiry", "options"))
    assert "lab" not in texts["choose"] and texts["choose"].count("gout") == 1  # as an option


def test_a_first_sentence_leaves_the_rest_to_be_asked_for(records, tmp_path):
    (case,), *_ = build(records, tmp_path / "cases", script(facts={"facts": FACTS[:2]}), opening="sentence")
    assert case.initial_information == "Hello there. My big toe hurts since Monday."
    assert case.facts == ("My big toe hurts since Monday.", "I am 45.")


def test_a_thread_is_one_record_with_all_its_questions(tmp_path):
    def question(qid, text, answer, history=()):
        earlier = [{"question": asked, "patient_answer": said} for asked, said in history]
        line = {"qid": qid, "id_post": "p1", "thread_id": qid[:6], "post": "My ear hurts.", "question": text}
        return {**line, "patient_answer": answer, "prev_additional_contexts": earlier, "final_diagnosis": "otitis"}

    lines = [
        question("t_p1-0-c0-q0", "Which ear?", "The left one."),
        question("t_p1-0-c0-q1", "Since when?", None),
        question("t_p1-0-c2-q0", "Does it itch?", "A lot.", [("Which ear?", "The left one.")]),
        question("t_p2-0-c0-q0", "Any fever?", "None at all."),
    ]
    records = ingested(tmp_path, lines, source="askdocs")
    first, second = case_sources.conversations(
        recipes.CasesBuildRecipe(input=records, output=tmp_path / "o", endpoint={"model": "m"}, split="all")
    )
    assert [(m.role[0], m.content) for m in second.messages] == [
        ("u", "My ear hurts."),
        ("a", "Any fever?"),
        ("u", "None at all."),
    ]
    said = [m.content for m in first.messages]
    assert said[0] == "My ear hurts." and len(said) == len(set(said)) == 6
    assert said.index("The left one.") == said.index("Which ear?") + 1
    assert first.outcome == "otitis" and first.group == second.group and first.id != second.id


def test_bounds_tell_options_that_give_the_answer_away(tmp_path):
    records = ingested(tmp_path, [log(str(number)) for number in range(20)])
    answer = {"reason": "r", "inquiry": "What is wrong with the toe?", "answer": "gout that came with the meat"}
    right = script(
        inquiry=answer,
        options=lambda parts: verdicts(parts, right=(answer["answer"],)),
        choose=lambda parts: choosing(parts, answer["answer"]),
    )
    cases, _, report, _ = build(records, tmp_path / "cases", right)
    bounds = report["bounds"]
    assert bounds["the longest option"]["value"] == 1.0 and bounds["chance"]["value"] == 0.25
    assert report["words of the answer over those of the wrong options"]["value"] == pytest.approx(6 - 5 / 3)
    letter, times = Counter(case.answer for case in cases).most_common(1)[0]
    assert bounds[f"always {letter}, the commonest answer"]["value"] == times / 20
    assert "| the longest option | 1.00 [1.00, 1.00] |" in (tmp_path / "cases" / "report.md").read_text()


def test_too_many_records_without_a_usable_answer_stop_the_stage(records, tmp_path):
    with pytest.raises(EndpointError, match="1 of 1 records have no usable answer"):
        build(records, tmp_path / "cases", script(facts="I cannot say."), endpoint={"max_unscored": 0.05})


def test_another_model_may_judge(records, tmp_path):
    answer = script()
    writer, judge = MockEndpoint(answer), MockEndpoint(answer)
    with served(writer) as here, served(judge) as there:
        flags = ["--endpoint.base_url", here, "--endpoint.model", "w", "--judge.base_url", there, "--judge.model", "j"]
        call = ["cases", "build", "--input", str(records), "--split", "all", "--output", str(tmp_path / "cases")]
        assert main([*call, *flags]) == 0
    assert (writer.ledger.paid, judge.ledger.paid) == (3, 3)


def test_a_dry_run_counts_the_most_calls_and_writes_nothing(records, tmp_path, capsys):
    call = ["cases", "build", "--input", str(records), "--split", "all", "--output", str(tmp_path / "cases")]
    assert main([*call, "--endpoint.model", "m", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "\nrecords: 1\n" in told and "\ncalls at most: 8\n" in told and "\noptions: calls: 2\n" in told
    assert not (tmp_path / "cases").exists() and not (tmp_path / "answers.sqlite").exists()


def test_what_was_not_redacted_stays_here_and_what_was_says_so(records, tmp_path):
    away = {"base_url": "https://models.example/v1"}
    with pytest.raises(RecipeError, match="not on this machine"):
        build(records, tmp_path / "cases", endpoint=away)
    with pytest.raises(RecipeError, match="not on this machine"):
        build(records, tmp_path / "cases", judge={"model": "j", **away})
    (tmp_path / "other").mkdir()
    redacted = ingested(tmp_path / "other", [log("a", outcome="Gout, by the lab.")], "--redact", "true")
    (case,), *_ = build(redacted, tmp_path / "other" / "cases", endpoint=away)
    assert case.redacted
    asker = {"model": "m", **away}
    recipe = recipes.EvaluateInterviewsRecipe(
        cases=str(tmp_path / "other" / "cases"), output=tmp_path / "run", asker=asker, decision=asker
    )
    from askwell.evaluation import interviews

    interviews.inputs(recipe)


def test_only_people_of_the_test_split_unless_all_are_wanted(tmp_path, capsys):
    records = ingested(tmp_path, [log(str(number)) for number in range(40)])
    cases, *_ = build(records, tmp_path / "cases", split="test")
    assert {case.split for case in cases} == {"test"} and 0 < len(cases) < 40
    few, *_ = build(records, tmp_path / "few", split="all", limit=5)
    more, *_ = build(records, tmp_path / "more", split="all", limit=9)
    assert len(few) == 5 and {case.id for case in few} < {case.id for case in more}
    call = ["cases", "build", "--input", str(records / "nowhere"), "--output", "o", "--endpoint.model", "m"]
    assert main(call) == 2 and "no such directory" in capsys.readouterr().err


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    """Visits to the clinic, with the true condition as their outcome."""
    folder = tmp_path_factory.mktemp("visits")
    assert main(["clinic", "logs", "--conversations", "60", "--output", str(folder / "logs")]) == 0
    source = ["--source", "chat", "--input", str(folder / "logs" / "logs.jsonl")]
    assert main(["ingest", *source, "--output", str(folder / "records")]) == 0
    return folder / "records"


def right(case):
    """Whether the option that is meant to be right is the one true condition. Read off the outcome by the caller."""
    return case.options[case.answer]


def test_in_the_clinic_the_whole_chain_holds_and_everything_known_decides(visits, world, tmp_path):
    from askwell.evaluation import interviews

    truth = {r.id: r.outcome for r in jsonl.read(visits / "records.jsonl", Conversation)}
    cases, counts, _, _ = build(visits, tmp_path / "cases", Roles(world).answer)
    assert len(cases) > 45 and all(right(case) == truth[case.id] for case in cases)
    assert counts["cases"] + sum(counts["unscored"].values()) == counts["records"] == 60
    mock = MockEndpoint(Roles(world).answer)
    model = {"model": "mock"}
    recipe = recipes.EvaluateInterviewsRecipe(
        cases=str(tmp_path / "cases"),
        output=tmp_path / "interviews",
        asker=model,
        decision=model,
        patient={"kind": "facts", "endpoint": model},
        abstention={"rule": "fixed"},
        most=3,
        limit=30,
    )
    with runs.start(recipe, "evaluate interviews", inputs=interviews.inputs(recipe)) as run:
        run.finish(interviews.run(recipe, run, {"mock": InProcess(mock.send)}))
    report = interviews.load(run.path)
    assert report["everything known"]["value"] == 1.0
    found = report["figures"]
    assert found["accuracy"]["value"] > found["curve"][0]["value"]
    assert found["facts"]["value"] > 0.2


def test_in_the_clinic_verification_finds_what_an_erring_writer_gets_wrong(visits, world, tmp_path):
    truth = {r.id: r.outcome for r in jsonl.read(visits / "records.jsonl", Conversation)}
    errors = {"inquiry": 0.3, "distractors": 0.3, "facts": 0.3}
    cases, _, report, _ = build(visits, tmp_path / "cases", Roles(world, errors=errors).answer)
    first = {}
    for draft in jsonl.read(tmp_path / "cases" / "drafts.jsonl", Drafted):
        first.setdefault(draft.id, draft)

    def wrong(answer, options, name):
        return truth[name] not in answer or sum(truth[name] in option for option in options) > 1

    before = sum(wrong(draft.options[0], draft.options, name) for name, draft in first.items())
    after = sum(wrong(right(case), case.options.values(), case.id) for case in cases)
    assert before > 0.25 * len(first) and after == 0 and len(cases) > 30
    assert report["revised"] > 10 and report["facts left out"]["not supported by the record"] > 5


def test_the_clinic_judges_wrongly_as_often_as_it_is_told(visits, world, tmp_path):
    errors = {"options": 1.0}
    with pytest.raises(DataError, match="answer not supported|a second right answer"):
        build(visits, tmp_path / "cases", Roles(world, errors=errors).answer, limit=8)


def test_a_killed_run_ends_with_the_same_files_and_pays_for_nothing_twice(visits, world, tmp_path):
    roles = Roles(world, errors={"distractors": 0.3})
    mock, undisturbed = MockEndpoint(roles.answer, latency=0.004), MockEndpoint(roles.answer)

    def command(url, output):
        flags = ["--limit", "12", "--endpoint.base_url", url, "--endpoint.model", "m", "--endpoint.concurrency", "8"]
        call = ["cases", "build", "--input", visits, "--split", "all", "--output", output, *flags]
        return [sys.executable, "-m", "askwell.cli", *map(str, call)]

    with served(mock) as url, served(undisturbed) as plain:
        subprocess.run(command(plain, tmp_path / "plain" / "cases"), check=True, capture_output=True)
        process = subprocess.Popen(command(url, tmp_path / "cut" / "cases"), stderr=subprocess.DEVNULL)
        while mock.ledger.paid < 25:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert mock.ledger.paid < undisturbed.ledger.paid
        subprocess.run(command(url, tmp_path / "cut" / "cases"), check=True, capture_output=True)
    for name in ("records.jsonl", "drafts.jsonl", "unscored.jsonl", "report.json", "review.csv"):
        assert (tmp_path / "cut" / "cases" / name).read_bytes() == (tmp_path / "plain" / "cases" / name).read_bytes()
    with closing(sqlite3.connect(tmp_path / "cut" / "answers.sqlite")) as store:
        ((lost,),) = store.execute("select count(*) from calls where state = 'sent'").fetchall()
    found = mock.ledger.summary()
    assert sum(count - 1 for count in found["paid_again"].values()) <= lost
    assert found["bodies"] == undisturbed.ledger.paid > lost


def test_faults_of_the_endpoint_change_nothing(visits, world, tmp_path, monkeypatch):
    monkeypatch.setattr("askwell.llm.client.backoff", lambda *_, **__: 0)
    calm, *_ = build(visits, tmp_path / "calm" / "cases", Roles(world).answer, limit=12)
    rough = MockEndpoint(Roles(world).answer, faults=Faults(error=0.2, throttle=0.1))
    assert build(visits, tmp_path / "rough" / "cases", mock=rough, limit=12)[0] == calm
