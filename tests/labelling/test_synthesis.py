"""synthesize against a rewriter and a judge in process that do as they are told, and against the clinic."""

import json
import re
import sqlite3
import time
from contextlib import closing

import pytest

from askwell import attributes, recipes, runs
from askwell.cli import main
from askwell.clinic.roles import Roles
from askwell.errors import EndpointError
from askwell.labelling import synthesis
from askwell.llm import client
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import Faults, MockEndpoint
from askwell.records import QuestionSet
from children import askwell
from served import served

POSTS = [
    ("p1", "t_p1-0-c0-q0", "My ear hurts.", "which ear?", "otitis externa", []),
    ("p1", "t_p1-0-c2-q0", "My ear hurts.", "does it itch?", "otitis externa", [("which ear?", "The left one.")]),
    ("p2", "t_p2-0-c0-q0", "I cannot sleep.", "coffee?", None, []),
]


def parts_of(body):
    text = body["messages"][1]["content"]
    parts = [part for _, part in re.findall(r"<data (\w+)>\n(.*?)\n</data \1>", text, re.DOTALL)]
    task = re.search(r"^Task: (\w+)\.", text, re.MULTILINE)[1]
    attribute = re.search(r"^Attribute: (\w+)", text, re.MULTILINE)
    return parts, task, attribute and attribute[1]


def obedient(body):
    """Marks a variant with what was asked for; ranks by the marks."""
    parts, task, attribute = parts_of(body)
    if task == "rank":
        value = {letter: ("plus" in text) - ("minus" in text) for letter, text in zip("ABC", parts[1:], strict=False)}
        return json.dumps({"reason": "by the marks", "verdict": " > ".join(sorted(value, key=lambda at: -value[at]))})
    text = parts[1].rstrip("?").capitalize()
    mark = {"rewrite": "", "corrupt": f", minus {attribute}"}.get(task, f", plus {attribute}")
    return json.dumps({"question": f"{text}{mark}?"})


@pytest.fixture
def threads(tmp_path):
    with (tmp_path / "threads.jsonl").open("w") as file:
        for post, qid, text, question, outcome, history in POSTS:
            said = [{"question": asked, "patient_answer": answer} for asked, answer in history]
            line = {"qid": qid, "id_post": post, "post": text, "question": question, "final_diagnosis": outcome}
            line["conclusion"] = None if outcome else "A sleep diary showed that it was the coffee."
            file.write(json.dumps({**line, "prev_additional_contexts": said}) + "\n")
    source = ["--source", "askdocs", "--input", str(tmp_path / "threads.jsonl")]
    assert main(["ingest", *source, "--output", str(tmp_path / "threads")]) == 0
    return tmp_path / "threads"


def synthesize(threads, output, answer, *, faults=None, endpoint=None, **fields):
    mock = MockEndpoint(answer, faults=faults or Faults())
    endpoint = {"model": "mock", "concurrency": 12, **(endpoint or {})}
    recipe = recipes.SynthesizeRecipe(input=threads, output=output, endpoint=endpoint, **fields)
    with runs.start(recipe, "synthesize") as run:
        counts = synthesis.run(recipe, run, InProcess(mock.send))
        run.finish(counts)
    return counts, list(runs.records_of(output, QuestionSet, made_by="askwell synthesize")), mock


def words(record):
    return {
        (p.attribute, record.direction(p)): p.verified if p.unscored is None else p.unscored for p in record.preferences
    }


def test_every_question_becomes_thirteen_wordings_and_eighteen_preferences(threads, tmp_path):
    counts, sets, mock = synthesize(threads, tmp_path / "sets", obedient)
    assert mock.ledger.paid == 3 * 19 and counts["confirmed"] == counts["preferences"] == 3 * 18
    first, later, _ = sets
    assert [candidate.text for candidate in first.candidates[:4]] == [
        "which ear?",
        "Which ear?",
        "Which ear, plus clarity?",
        "Which ear, minus clarity?",
    ]
    assert [candidate.origin for candidate in first.candidates] == [
        "human",
        "rewritten",
        *["enhanced", "corrupted"] * 6,
    ]
    assert words(first) == {(name, way): True for name in attributes.ALFA for way in ("E-C", "E-O", "O-C")}
    assert all(preference.kept for preference in first.preferences)
    # Later turns keep their history, in the record and before the models' eyes.
    assert [message.content for message in later.context] == ["My ear hurts.", "which ear?", "The left one."]
    report = json.loads((tmp_path / "sets" / "report.json").read_text())
    cell = report["kept"]["clarity"]["E-O"]
    assert (cell["value"], cell["scored"], cell["unscored"], report["with history"]) == (1.0, 3, 0, 1)
    samples = {split: 18 * sum(record.split == split for record in sets) for split in ("train", "dev", "test")}
    assert cell["kept"]["value"] == 1.0 and report["samples"]["all"] == samples and sum(samples.values()) == 54
    assert report["drift"]["focus"]["E-O"]["value"] == 2.0  # ", plus focus" has two words
    prompts = report["prompts"]
    assert prompts["requests"] == 57 and prompts["repeated"] > 0.9 > prompts["repeated behind the first part"] > 0
    assert "| clarity | 100.0" in (tmp_path / "sets" / "report.md").read_text()


def test_all_calls_share_their_first_part_and_the_task_comes_last(threads, tmp_path):
    bodies = []
    synthesize(threads, tmp_path / "sets", lambda body: bodies.append(body) or obedient(body))
    assert len({body["messages"][0]["content"] for body in bodies}) == 1
    users = [body["messages"][1]["content"] for body in bodies if "The left one." in body["messages"][1]["content"]]
    start = users[0].split("The left one.")[0]
    assert len(users) == 19 and all(text.startswith(start) for text in users)
    varied = [text for text in users if "Task: enhance" in text or "Task: corrupt" in text]
    assert len({text.split("Task: ")[0] for text in varied}) == 1 and len(varied) == 12


def test_a_judge_has_to_give_its_reason_first(threads, tmp_path):
    bodies = []
    synthesize(threads, tmp_path / "sets", lambda body: bodies.append(body) or obedient(body), attributes=("focus",))
    schemas = [body["response_format"]["json_schema"]["schema"] for body in bodies if parts_of(body)[1] == "rank"]
    assert [list(schema["properties"]) for schema in schemas] == [["reason", "verdict"]] * 3


def test_a_variant_that_went_the_other_way_is_caught_and_a_tie_is_no_verdict(threads, tmp_path):
    def contrary(body):
        _, task, attribute = parts_of(body)
        if task in ("enhance", "corrupt") and attribute == "focus":
            return obedient(body).replace("plus", "MARK").replace("minus", "plus").replace("MARK", "minus")
        if task == "rank" and attribute == "clarity":
            return json.dumps({"reason": "no difference", "verdict": "A = B = C"})
        return obedient(body)

    counts, sets, _ = synthesize(threads, tmp_path / "sets", contrary)
    assert {words(sets[0])["focus", way] for way in ("E-C", "E-O", "O-C")} == {False}
    assert {words(sets[0])["clarity", way] for way in ("E-C", "E-O", "O-C")} == {"tie"}
    assert counts["contradicted"] == 9 and counts["unscored"] == {"tie": 9} and counts["confirmed"] == 36
    kept = {preference.attribute for preference in sets[0].preferences if preference.kept}
    assert kept == {*attributes.ALFA} - {"focus", "clarity"}
    assert len(sets[0].preferences) == 18  # unfiltered data are all there
    report = json.loads((tmp_path / "sets" / "report.json").read_text())
    tied, pooled = report["kept"]["clarity"]["E-O"], report["kept"]["all"]["E-O"]
    assert (tied["value"], tied["kept"]["value"]) == (None, 0.0)  # as in the paper, of all pairs
    assert (pooled["value"], pooled["kept"]["value"]) == (4 / 5, 4 / 6)
    assert sum(report["samples"]["all"].values()) == 36 and sum(report["samples"]["clarity"].values()) == 0


def test_failures_are_unscored_by_reason_and_leave_the_rest_as_it_is(threads, tmp_path):
    def lame(body):
        parts, task, attribute = parts_of(body)
        if task == "enhance" and attribute == "accuracy":
            return "I cannot say."
        if task == "enhance" and attribute == "relevance":
            return json.dumps({"question": "Here is the rewritten question: which ear?"})
        if task == "corrupt" and attribute == "clarity":
            return json.dumps({"question": parts[1]})
        if task == "rank" and attribute == "focus":
            return json.dumps({"reason": "r", "verdict": "B > A > Z"})
        return obedient(body)

    counts, sets, _ = synthesize(threads, tmp_path / "sets", lame, endpoint={"max_unscored": 0.5})
    found = words(sets[0])
    assert {found["focus", way] for way in ("E-C", "E-O", "O-C")} == {"judge: off_menu"}
    assert ("accuracy", "E-C") not in found and found["accuracy", "O-C"] is True
    assert found["relevance", "E-C"] == found["relevance", "E-O"] == "preamble" and found["relevance", "O-C"] is True
    assert found["clarity", "O-C"] == "same wording" and found["clarity", "E-C"] is True
    (faulty,) = [candidate for candidate in sets[0].candidates if candidate.fault]
    assert (faulty.attribute, faulty.fault) == ("relevance", "preamble")
    expected = {"judge: off_menu": 9, "preamble": 6, "rewriter: unreadable": 6, "same wording": 3}
    assert counts["unscored"] == expected and counts["preferences"] == 54


def test_too_many_failures_stop_the_stage(threads, tmp_path):
    def silent(body):
        return "I cannot say." if parts_of(body)[1] == "corrupt" else obedient(body)

    with pytest.raises(EndpointError, match="18 of 36 variants have no usable answer"):
        synthesize(threads, tmp_path / "sets", silent)
    assert not (tmp_path / "sets" / "manifest.json").exists()


def test_the_error_says_whose_answers_failed_how_to_go_on_and_where_they_stand(threads, tmp_path):
    def mute(body):
        return "I cannot say." if parts_of(body)[1] == "rank" else obedient(body)

    judge = {"model": "judge", "max_unscored": 0.1}
    with pytest.raises(EndpointError, match=r"18 of 18 verdicts .* above --judge\.max_unscored 10%.*in spool\.jsonl"):
        synthesize(threads, tmp_path / "sets", mute, judge=judge)
    assert (tmp_path / "sets" / "spool.jsonl").read_text().count("I cannot say.") == 18


def test_a_repeated_run_asks_again_for_what_an_endpoint_did_not_answer(threads, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "backoff", lambda *_, **__: 0.0)
    lost = Faults(always=lambda body: "error" if parts_of(body)[1] == "corrupt" else None)
    with pytest.raises(EndpointError, match="18 of 36 variants have no usable answer"):
        synthesize(threads, tmp_path / "sets", obedient, faults=lost)
    counts, _, mock = synthesize(threads, tmp_path / "sets", obedient)
    assert counts["confirmed"] == counts["preferences"] == 54
    assert mock.ledger.paid == 3 * (6 + 6)  # what was not answered, and the verdicts on it


def test_a_question_that_cannot_be_rewritten_is_unscored_as_a_whole(threads, tmp_path):
    def lame(body):
        parts, task, _ = parts_of(body)
        return "I cannot say." if task == "rewrite" and parts[1] == "coffee?" else obedient(body)

    counts, sets, _ = synthesize(threads, tmp_path / "sets", lame, endpoint={"max_unscored": 0.5})
    assert counts["questions"] == {"ok": 2, "unreadable": 1} and len(sets) == 2
    (line,) = (tmp_path / "sets" / "unscored.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "t_p2-0-c0-q0"


def test_the_outcome_is_shown_to_the_enhancing_rewriter_on_request_alone(threads, tmp_path):
    def seen(output, **fields):
        bodies = []

        def leaky(body):
            bodies.append(body)
            _, task, attribute = parts_of(body)
            if task == "enhance_knowing" and attribute == "focus" and parts_of(body)[0][2] == "otitis externa":
                return json.dumps({"question": "Is it otitis externa, plus focus?"})
            if task.startswith("enhance") and attribute == "clarity" and "coffee" in body["messages"][1]["content"]:
                return json.dumps({"question": "Would a sleep diary help, plus clarity?"})
            return obedient(body)

        _, sets, _ = synthesize(threads, output, leaky, **fields)
        told = {parts_of(body)[1] for body in bodies if "otitis" in body["messages"][1]["content"]}
        return told, sets[0], words(sets[2])["clarity", "E-C"]

    assert seen(tmp_path / "blind")[::2] == (set(), True)
    told, record, concluded = seen(tmp_path / "knowing", outcome=True)
    assert concluded == "gives the outcome away"
    assert told == {"enhance_knowing"}
    assert words(record)["focus", "E-C"] == "gives the outcome away" and words(record)["focus", "O-C"] is True


def test_profiles_stand_before_all_that_was_said(threads, tmp_path):
    (tmp_path / "profiles.jsonl").write_text('{"group": "p1", "profile": "Sings in a choir."}\n')
    fields = {"attributes": ("personal_interest",), "profiles": tmp_path / "profiles.jsonl"}
    _, sets, _ = synthesize(threads, tmp_path / "sets", obedient, **fields)
    assert (sets[0].context[0].role, sets[0].context[0].content) == ("system", "Sings in a choir.")
    assert sets[2].context[0].role == "user" and len(sets[0].preferences) == 3


@pytest.mark.parametrize(
    ("groups", "says"), [(["p1", "p1"], "group 'p1' has two profiles"), (["P1"], "no profile is of a group of")]
)
def test_profiles_that_cannot_be_meant_are_refused(threads, tmp_path, capsys, groups, says):
    lines = [json.dumps({"group": group, "profile": "Sings."}) for group in groups]
    (tmp_path / "profiles.jsonl").write_text("\n".join(lines) + "\n")
    flags = ["--endpoint.model", "m", "--profiles", str(tmp_path / "profiles.jsonl"), "--dry-run"]
    assert main(["synthesize", "--input", str(threads), "--output", str(tmp_path / "sets"), *flags]) == 2
    assert says in capsys.readouterr().err


def test_rewriter_and_judge_may_be_different_endpoints(threads, tmp_path):
    rewriter, judge = MockEndpoint(obedient), MockEndpoint(obedient)
    with served(rewriter) as here, served(judge) as there:
        flags = ["--endpoint.base_url", here, "--endpoint.model", "mock"]
        flags += ["--judge.base_url", there, "--judge.model", "mock", "--judge.temperature", "0"]
        assert main(["synthesize", "--input", str(threads), "--output", str(tmp_path / "sets"), *flags]) == 0
    assert (rewriter.ledger.paid, judge.ledger.paid) == (3 * 13, 3 * 6)
    counts = runs.counts_of(tmp_path / "sets")
    assert counts["confirmed"] == 54 and counts["judge"]["calls"] == 18


def test_a_budget_ends_the_run_and_a_larger_one_goes_on_where_it_was_cut(threads, tmp_path):
    mock = MockEndpoint(obedient)
    with served(mock) as url:
        call = ["synthesize", "--input", str(threads), "--output", str(tmp_path / "sets"), "--endpoint.base_url", url]
        call += ["--endpoint.model", "mock", "--endpoint.concurrency", "2", "--endpoint.budget.calls"]
        assert main([*call, "30"]) == 2
        assert mock.ledger.paid <= 30 and not (tmp_path / "sets" / "records.jsonl").exists()
        assert main([*call, "100"]) == 0
    assert mock.ledger.paid == 57 and runs.counts_of(tmp_path / "sets")["confirmed"] == 54


def test_a_dry_run_counts_calls_and_writes_nothing(threads, tmp_path, capsys):
    call = ["synthesize", "--input", str(threads), "--output", str(tmp_path / "sets"), "--endpoint.model", "m"]
    assert main([*call, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert (
        "\ncalls: 57" in told
        and "rewrite: calls: 3" in told
        and "vary: calls: 36" in told
        and "rank: calls: 18" in told
    )
    assert not (tmp_path / "sets").exists() and not (tmp_path / "answers.sqlite").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--attributes", "clarity,clearness"], "attribute 'clearness': no file"),
        (["--attributes", "clarity,clarity"], "'clarity' stands twice"),
        (["--attributes", "[]"], "name one or more"),
        (["--endpoint.base_url", "https://api.example.com/v1"], "--redact true"),
        (["--endpoint.base_url", "clinic:", "--endpoint.extra_body", "{errors: {sing: 1}}"], "roles: extract_dialogue"),
        (["--input", "nowhere"], "no such directory"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(threads, tmp_path, capsys, flags, says):
    call = [
        "synthesize",
        "--input",
        str(threads),
        "--output",
        str(tmp_path / "sets"),
        "--endpoint.model",
        "clinic",
        *flags,
    ]
    assert main(call) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.splitlines()) == 1 and not (tmp_path / "sets").exists()


@pytest.fixture(scope="module")
def forum(tmp_path_factory):
    """Questions of the clinic's forum."""
    folder = tmp_path_factory.mktemp("forum")
    assert main(["clinic", "threads", "--posts", "12", "--output", str(folder / "forum")]) == 0
    source = ["--source", "askdocs", "--input", str(folder / "forum" / "threads.jsonl")]
    assert main(["ingest", *source, "--output", str(folder / "threads")]) == 0
    return folder / "threads"


def test_in_the_clinic_a_perfect_pair_confirms_and_mistakes_are_caught(forum, world, tmp_path):
    counts, _, _ = synthesize(forum, tmp_path / "perfect" / "sets", Roles(world).answer, limit=8)
    assert counts["contradicted"] == 0 and counts["confirmed"] > 80
    # What is answered is stored beside a run, for all runs there: the one that errs stands elsewhere.
    roles = Roles(world, errors={"enhance": 0.1, "corrupt": 0.1})
    counts, sets, _ = synthesize(forum, tmp_path / "erring" / "sets", roles.answer, limit=40)
    report = json.loads((tmp_path / "erring" / "sets" / "report.json").read_text())
    # A tenth of the corrupted go the other way, and where the original is good already that is a tie.
    assert 0 < counts["contradicted"] < 0.2 * counts["confirmed"]
    ruled = report["kept"]["all"]["E-C"]
    assert 0.9 < ruled["value"] < 1.0 and ruled["reasons"]["tie"] > 0.1 * ruled["scored"]
    assert report["prompts"]["repeated"] > 0.85
    assert {record.split for record in sets} >= {"train"}


def test_a_killed_run_ends_with_the_same_files_and_pays_for_nothing_twice(forum, world, tmp_path):
    roles = Roles(world)
    mock, undisturbed = MockEndpoint(roles.answer, latency=0.004), MockEndpoint(roles.answer)

    def command(url, output):
        flags = ["--limit", "8", "--endpoint.base_url", url, "--endpoint.model", "m", "--endpoint.concurrency", "8"]
        call = ["synthesize", "--input", forum, "--output", output, *flags]
        return list(map(str, call))

    with served(mock) as url, served(undisturbed) as plain:
        assert main(command(plain, tmp_path / "plain" / "sets")) == 0
        for paid in (30, 80):
            process = askwell(*command(url, tmp_path / "cut" / "sets"))
            while mock.ledger.paid < paid:
                assert process.is_alive()
                time.sleep(0.005)
            process.kill()
            process.join()
        assert mock.ledger.paid < undisturbed.ledger.paid
        assert main(command(url, tmp_path / "cut" / "sets")) == 0
    for name in ("records.jsonl", "verdicts.jsonl", "unscored.jsonl", "report.json"):
        assert (tmp_path / "cut" / "sets" / name).read_bytes() == (tmp_path / "plain" / "sets" / name).read_bytes()
    # Paid again is at most what was claimed and not settled when it was killed: its answers had not arrived.
    with closing(sqlite3.connect(tmp_path / "cut" / "answers.sqlite")) as store:
        ((lost,),) = store.execute("select count(*) from calls where state = 'sent'").fetchall()
    found = mock.ledger.summary()
    assert sum(count - 1 for count in found["paid_again"].values()) <= lost
    assert found["bodies"] == undisturbed.ledger.paid > lost
