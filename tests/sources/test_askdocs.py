"""Forum threads: every question comes with all that was said before it, and nothing that was not."""

import json
from collections import Counter
from pathlib import Path

import pytest

from askwell import jsonl, runs
from askwell.errors import DataError, RecipeError
from askwell.recipes import IngestRecipe, resolve
from askwell.records import QuestionTruth, Thread
from askwell.sources import askdocs, ingest
from askwell.sources.drafts import Rejected
from askwell.sources.quality import evenly, group_of

DATA = Path(__file__).parents[3] / "shared" / "data" / "askdocs"


def line(qid="t_a-0-c0-q0", **fields):
    """A question as the file has it."""
    basis = {"id_post": "p", "title": "My knee", "post": "It hurts.", "question": f"Asked at {qid}?"}
    return {"qid": qid, "thread_id": qid.rpartition("-c")[0], **basis, "patient_answer": f"Told at {qid}.", **fields}


def told(*qids):
    """An earlier question and its answer, as the list of a later one has them."""
    return [
        {"question": f"Asked at {q}?", "patient_answer": f"Told at {q}.", "additional_context": "made up"} for q in qids
    ]


def ingested(tmp_path, *lines, out="out", **fields):
    """Counts, threads and rejections of one file."""
    source, path = tmp_path / "threads.jsonl", tmp_path / out
    source.write_text("\n".join(text if isinstance(text, str) else json.dumps(text) for text in lines))
    path.mkdir(exist_ok=True)
    recipe = IngestRecipe(source="askdocs", input=source, output=path, **fields)
    counts = ingest.run(recipe, runs.Run(path, resumed=False))
    return counts, list(jsonl.read(path / "records.jsonl", Thread)), rejections(path)


def rejections(path):
    return list(jsonl.read(path / "rejected.jsonl", Rejected))


def said(thread):
    return [message.content for message in thread.context]


def test_fields(tmp_path):
    whole = line(
        hypotheses=["gout", " "],
        final_diagnosis="Gout",
        conclusion="Rest it.",
        comment_author_flair_text="Surgeon (A&amp;E)",
        pos_post_author_feedback=1.0,
        additional_context="An answer that a model made up.",
        truth={"findings": ["gout"], "level": "good", "gain": 0.5, "condition": "gout"},
        year=2014,
    )
    counts, (thread,), _ = ingested(tmp_path, whole)
    assert thread == Thread(
        id="t_a-0-c0-q0",
        conversation_id="t_a-0",
        group="p",
        split=ingest.split_of("p", IngestRecipe(source="askdocs", input=tmp_path, output=tmp_path).split),
        source="askdocs",
        context=({"role": "user", "content": "My knee\n\nIt hurts."},),
        question="Asked at t_a-0-c0-q0?",
        answer="Told at t_a-0-c0-q0.",
        hypotheses=("gout",),
        outcome="Gout",
        conclusion="Rest it.",
        flair="Surgeon (A&E)",
        expert=True,
        thanked=True,
        truth=QuestionTruth(findings=("gout",), level="good", gain=0.5, condition="gout"),
    )
    assert counts["questions"] == counts["posts"] == counts["answered"] == counts["by experts"] == 1
    assert counts["notes"] == {}


def test_what_is_not_there_is_none(tmp_path):
    nothing = {"title": None, "final_diagnosis": "None", "conclusion": "[deleted]", "hypotheses": None}
    empty = line(patient_answer=" ", additional_context="An answer that a model made up.", **nothing)
    _, (thread,), _ = ingested(tmp_path, empty)
    assert said(thread) == ["It hurts."]
    assert (thread.answer, thread.outcome, thread.conclusion, thread.flair, thread.thanked) == (None,) * 5
    assert thread.hypotheses == () and not thread.expert
    _, (thread,), _ = ingested(tmp_path, line(patient_answer="None"))
    assert thread.answer == "None"  # what a patient says to "Any medicines?"


def test_entities_are_read_as_a_page_shows_them(tmp_path):
    _, (thread,), _ = ingested(tmp_path, line(post="Below &lt;3 &amp;amp; R&D;\n\n&amp;#x3B1;&amp;nbsp;"))
    assert said(thread) == ["My knee\n\nBelow <3 & R&D;\n\nα"]


@pytest.mark.parametrize(
    ("flair", "expert"),
    [
        (None, False),
        ("Physician", True),
        ("Medical student", True),
        ("Not verified", False),
        ("Layperson/not a doctor", False),
        ("Notary and nurse", True),
    ],
)
def test_experts_are_those_whose_flair_does_not_say_not(tmp_path, flair, expert):
    _, (thread,), _ = ingested(tmp_path, line(comment_author_flair_text=flair))
    assert (thread.expert, thread.flair) == (expert, flair)


FIRST, SECOND, LATER = "t_a-0-c0-q0", "t_a-0-c0-q1", "t_a-0-c2-q0"


def history_of(tmp_path, *lines):
    """What is said between the post and the last line's question."""
    _, threads, _ = ingested(tmp_path, *lines)
    wanted = next(thread for thread in threads if thread.id == lines[-1]["qid"])
    assert wanted.context[0].content == "My knee\n\nIt hurts."
    return said(wanted)[1:]


def spoken(*qids):
    return [text for qid in qids for text in (f"Asked at {qid}?", f"Told at {qid}.")]


def test_a_later_question_keeps_its_history(tmp_path):
    assert history_of(tmp_path, line(LATER, prev_additional_contexts=told(FIRST, SECOND))) == spoken(FIRST, SECOND)


def test_the_last_earlier_question_which_the_list_leaves_out_comes_from_its_own_line(tmp_path):
    later = line(LATER, prev_additional_contexts=told(FIRST))
    assert history_of(tmp_path, line(FIRST), line(SECOND), later) == spoken(FIRST, SECOND)
    assert history_of(tmp_path, line(SECOND), line(LATER)) == spoken(SECOND)
    counts, _, _ = ingested(tmp_path, line(FIRST), line(SECOND), later)
    assert counts["notes"] == {"earlier questions taken from other lines": 1}
    assert counts["with a history"] == 1


def test_a_history_that_is_whole_stays_as_it_is(tmp_path):
    later = line(LATER, prev_additional_contexts=told(FIRST, SECOND))
    assert history_of(tmp_path, line(FIRST), line(SECOND), later) == spoken(FIRST, SECOND)
    counts, _, _ = ingested(tmp_path, line(FIRST), line(SECOND), later)
    assert counts["notes"] == {}


@pytest.mark.parametrize(
    ("listed", "held"),
    [("", "012"), ("0", "12"), ("01", "012"), ("01", "2"), ("02", "012"), ("02", "12"), ("1", "012"), ("2", "012")],
)
def test_what_the_list_leaves_out_is_put_where_it_was_asked(tmp_path, listed, held):
    ids = [f"t_a-0-c{comment}-q0" for comment in (0, 2, 4, 6)]
    later = line(ids[3], prev_additional_contexts=told(*(ids[int(i)] for i in listed)))
    assert history_of(tmp_path, *(line(ids[int(i)]) for i in held), later) == spoken(*ids[:3])


def test_comments_are_in_the_order_of_their_numbers_whatever_that_of_the_lines(tmp_path):
    ids = ["t_a-0-c2-q10", "t_a-0-c10-q0", "t_a-0-c2-q9", "t_a-0-c0-q0"]
    assert history_of(tmp_path, *map(line, ids), line("t_a-0-c12-q0")) == spoken(ids[3], ids[2], ids[0], ids[1])


def test_questions_of_one_comment_do_not_know_of_one_another(tmp_path):
    assert history_of(tmp_path, line(FIRST), line("t_a-0-c2-q1"), line(LATER)) == spoken(FIRST)
    assert history_of(tmp_path, line(LATER), line(SECOND), line(FIRST)) == []


def test_a_branch_shares_the_first_comment_and_no_other(tmp_path):
    lines = [line(FIRST), line("t_a-0-c2-q0"), line("t_a-1-c2-q0"), line("t_b-0-c0-q0")]
    assert history_of(tmp_path, *lines, line("t_a-1-c4-q0")) == spoken(FIRST, "t_a-1-c2-q0")


def test_a_question_left_unanswered_stands_in_the_history_alone(tmp_path):
    lines = [line(FIRST, patient_answer=None, additional_context="made up"), line(SECOND), line(LATER)]
    assert history_of(tmp_path, *lines) == [f"Asked at {FIRST}?", *spoken(SECOND)]


def test_an_id_of_another_form_has_the_history_of_its_own_line(tmp_path):
    assert history_of(tmp_path, line(FIRST), line("q7", prev_additional_contexts=told(SECOND))) == spoken(SECOND)


def test_the_post_is_the_group(tmp_path):
    lines = [line(f"t_{post}{i}-0-c0-q0", id_post=f"post {post}") for post in range(40) for i in range(3)]
    counts, threads, _ = ingested(tmp_path, *lines)
    splits = {thread.group: thread.split for thread in threads}
    assert all(splits[thread.group] == thread.split for thread in threads) and counts["posts"] == len(splits) == 40
    assert splits == {group: ingest.split_of(group, IngestRecipe.model_fields["split"].default) for group in splits}


@pytest.mark.parametrize(
    ("bad", "reason", "quote"),
    [
        ('{"qid": "torn', "malformed JSON", "torn"),
        ("[1, 2]", "not an object", "[1, 2]"),
        (line(post=None), "no post", "My knee"),
        (line(post=" \n"), "empty post", "My knee"),
        (line(post="[removed]"), "empty post", "[removed]"),
        (line(question=""), "empty question", "My knee"),
        (line(question=7.5), "field is not text", "7.5"),
        (line(id_post=None), "no id_post", "My knee"),
        (line(qid=""), "empty qid", "My knee"),
        (line("t_a-0-c0-q1"), "duplicate id", "It hurts."),
        (line(hypotheses="gout"), "hypotheses cannot be read", "gout"),
        (line(prev_additional_contexts=["gout"]), "history cannot be read", "gout"),
        (line(pos_post_author_feedback="yes"), "feedback cannot be read", "yes"),
        (line(truth={"level": "good"}), "truth cannot be read", "good"),
        (line(patient_answer="nul \0"), "NUL character", "nul"),
        (line(hypotheses=["half \ud83d"]), "lone surrogate", "half"),
    ],
)
def test_a_bad_line_is_counted_and_quoted_at_its_place_and_the_rest_is_read(tmp_path, bad, reason, quote):
    good = [line(f"t_a-0-c0-q{i}") for i in (1, 2)]
    counts, threads, (rejected,) = ingested(tmp_path, good[0], bad, good[1], max_rejected=0.4)
    assert [thread.id for thread in threads] == [one["qid"] for one in good]
    assert (rejected.where, rejected.reason) == ("threads.jsonl:2", reason)
    assert quote in rejected.quote
    assert counts["rejected"] == {reason: 1}


def test_too_many_bad_lines_are_fatal_and_named(tmp_path):
    with pytest.raises(DataError) as error:
        ingested(tmp_path, line(), line(FIRST), line(post=""), max_rejected=0.5)
    assert "2 of 3 questions rejected (66.7%), where --max_rejected allows 50.0%" in str(error.value)
    assert not (tmp_path / "out" / "records.jsonl").exists()
    with pytest.raises(DataError, match="no question in it"):
        ingested(tmp_path)


def test_redaction_reaches_every_text(tmp_path):
    post = "My name is Jane Roe."
    first = line(FIRST, post=post, question="Jane, since 01/10/09?", patient_answer="Call 555-123-4567.")
    texts = {"final_diagnosis": "Roe", "conclusion": "Dr. Kumar helped.", "comment_author_flair_text": "Nurse, a@b.com"}
    later = line(LATER, post=post, title="Jane", hypotheses=["Jane", "gout"], **texts)
    _, plain, _ = ingested(tmp_path, first, later, out="plain")
    counts, (one, other), _ = ingested(tmp_path, first, later, redact=True)
    assert (one.question, one.answer) == ("[NAME], since [DATE]?", "Call [PHONE].")
    assert said(other) == ["[NAME]\n\nMy name is [NAME].", one.question, one.answer]
    assert (other.hypotheses, other.outcome, other.conclusion, other.flair) == (
        ("[NAME]", "gout"),
        "[NAME]",
        "Dr. [NAME] helped.",
        "Nurse, [EMAIL]",
    )
    assert [(it.id, it.split, it.redacted) for it in (one, other)] == [(it.id, it.split, True) for it in plain]
    assert counts["redacted"] == {"NAME": 8, "DATE": 2, "PHONE": 2, "EMAIL": 1}


def test_keys_that_give_someone_away_are_hashed_alike(tmp_path):
    lines = [line(f"t_a@b.com-0-c0-q{i}", id_post="jane@b.com") for i in range(2)]
    _, threads, _ = ingested(tmp_path, *lines, redact=True)
    assert len({(it.group, it.conversation_id) for it in threads}) == 1 and len({it.id for it in threads}) == 2
    assert b"@" not in (tmp_path / "out" / "records.jsonl").read_bytes()


def thread(number, *, expert=False, conclusion="So it is.", thanked=None, split="train"):
    fields = {"id": f"q{number}", "conversation_id": "t", "group": "g", "source": "askdocs", "question": "?"}
    return Thread(context=(), **fields, expert=expert, conclusion=conclusion, thanked=thanked, split=split)


def some_threads():
    """400 questions of three groups: 300, 80 and 20."""
    kinds = [{}] * 300 + [{"expert": True}] * 80 + [{"thanked": True}] * 20
    return [thread(number, **kind) for number, kind in enumerate(kinds)]


def test_a_draw_is_even_over_groups_and_fills_up_from_the_larger():
    held = some_threads()
    sizes = Counter(map(group_of, evenly(held, 30, seed=0)))
    assert sorted(sizes.values()) == [10, 10, 10]
    assert sorted(Counter(map(group_of, evenly(held, 160, seed=0))).values()) == [20, 70, 70]
    assert evenly(held, 4000, seed=0) == held


def test_a_draw_depends_on_the_seed_and_on_no_order_and_a_larger_one_holds_it():
    held = some_threads()
    chosen = {one.id for one in evenly(held, 60, seed=0)}
    assert {one.id for one in evenly(held[::-1], 60, seed=0)} == chosen
    assert {one.id for one in evenly(held, 60, seed=1)} != chosen
    assert chosen < {one.id for one in evenly(held, 90, seed=0)}


def test_where_groups_are_of_a_size_the_order_does_not_say_which_gets_the_odd_one():
    held = [thread(number, expert=number % 2 == 0) for number in range(10)]
    assert {one.id for one in evenly(held, 5, seed=0)} == {one.id for one in evenly(held[::-1], 5, seed=0)}


def test_for_test_only_questions_of_concluded_threads_are_drawn():
    held = [
        thread(number, split=split, conclusion=conclusion)
        for number, (split, conclusion) in enumerate([("test", None), ("test", "So."), ("train", None)])
    ]
    assert [one.id for one in evenly(held, 3, seed=0)] == ["q1", "q2"]


def test_what_is_not_drawn_is_counted_and_is_still_history(tmp_path):
    lines = [
        line(f"t_{i}-0-c{c}-q0", conclusion="So.", comment_author_flair_text="Nurse" if c else None)
        for i in range(9)
        for c in (0, 2)
    ]
    counts, threads, _ = ingested(tmp_path, *lines, "torn", draw=4, max_rejected=0.06)
    assert (counts["questions"], counts["not drawn"], counts["rejected"]) == (4, 14, {"malformed JSON": 1})
    assert Counter(thread.expert for thread in threads) == {True: 2, False: 2}
    assert all(len(thread.context) == (3 if thread.expert else 1) for thread in threads)
    recipe = IngestRecipe(source="askdocs", input=tmp_path / "threads.jsonl", output=tmp_path / "x", draw=4)
    assert ingest.plan(recipe)["questions"] == 4


def test_only_threads_are_drawn_from(tmp_path):
    with pytest.raises(RecipeError, match="draw goes with source 'askdocs'"):
        resolve(IngestRecipe, {"source": "chat", "input": "i", "output": "o", "draw": 3})


@pytest.mark.skipif(not DATA.is_dir(), reason="the AskDocs questions are not at ../shared/data/askdocs")
def test_the_published_questions(tmp_path):
    recipe = IngestRecipe(source="askdocs", input=DATA, output=tmp_path)
    counts = ingest.run(recipe, runs.Run(tmp_path, resumed=False))
    assert counts == {
        "questions": 620,
        "posts": 192,
        "with a history": 116,
        "answered": 450,
        "concluded": 605,
        "by experts": 209,
        "rejected": {},
        "train": 520,
        "dev": 35,
        "test": 65,
        "notes": {"earlier questions taken from other lines": 116},
    }
    raw = {row["qid"]: row for row in map(json.loads, (DATA / "test_q.jsonl").read_text().splitlines())}
    threads = {one.id: one for one in jsonl.read(tmp_path / "records.jsonl", Thread)}
    assert threads.keys() == raw.keys()
    for name, one in threads.items():
        asked = [message.content for message in one.context if message.role == "assistant"]
        listed = [entry["question"] for entry in raw[name]["prev_additional_contexts"]]
        assert [text for text in asked if text in listed] == listed and (len(asked) > len(listed)) == bool(asked)
        assert one.question not in asked and one.answer == askdocs.words(raw[name], "patient_answer")
    assert b"&amp;" not in (tmp_path / "records.jsonl").read_bytes()
