"""The forum: its truth is what stands in the text, and its words for test are its own."""

import json
from collections import defaultdict
from itertools import pairwise
from statistics import mean

import pytest

from askwell import jsonl, runs
from askwell.cli import main
from askwell.clinic import knowledge, language, threads
from askwell.clinic.language import Question, introduced, sentences
from askwell.clinic.reasoning import Belief, joint_gain
from askwell.recipes import ClinicThreadsRecipe, Shares
from askwell.records import Thread
from askwell.sources.ingest import split_of

POSTS = 250


@pytest.fixture(scope="module")
def forum(tmp_path_factory):
    """The folders of a forum on file, and of what ingest makes of it."""
    folder = tmp_path_factory.mktemp("forum")
    assert main(["clinic", "threads", "--posts", str(POSTS), "--output", str(folder / "forum")]) == 0
    where = ["--input", str(folder / "forum" / "threads.jsonl"), "--output", str(folder / "threads")]
    assert main(["ingest", "--source", "askdocs", *where]) == 0
    return folder


@pytest.fixture(scope="module")
def rows(forum):
    """The lines on file."""
    return [json.loads(line) for line in (forum / "forum" / "threads.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def read(forum):
    """What ingest makes of them."""
    return list(jsonl.read(forum / "threads" / "records.jsonl", Thread))


def recipe(**fields):
    return ClinicThreadsRecipe(output="x", **fields)


def test_every_line_is_read_as_it_was_written(forum, rows, read):
    counts = runs.counts_of(forum / "threads")
    assert counts["questions"] == len(rows) == len(read) > 3 * POSTS
    assert counts["rejected"] == {} and counts["notes"] == {}
    assert runs.counts_of(forum / "forum") == {
        "posts": counts["posts"],
        "posts without a question": POSTS - counts["posts"],
        "threads": len({row["thread_id"] for row in rows}),
        "questions": len(rows),
    }
    for row, one in zip(rows, read, strict=True):
        assert (one.id, one.conversation_id, one.group) == (row["qid"], row["thread_id"], row["id_post"])
        assert (one.question, one.answer) == (row["question"], row["patient_answer"])
        assert one.truth.model_dump() == {**row["truth"], "findings": tuple(row["truth"]["findings"])}


def test_every_line_says_that_it_is_fiction(rows):
    assert all("invented" in row["fiction"] and row["id_post"].startswith("forum-") for row in rows)


def test_the_same_seed_writes_the_same_bytes_and_more_posts_change_none(forum, world, rows, tmp_path):
    again = ["clinic", "threads", "--posts", str(POSTS), "--output", str(tmp_path / "again")]
    assert main(again) == 0
    first, second = (folder / "threads.jsonl" for folder in (forum / "forum", tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()
    few = json.loads(json.dumps(list(threads.lines(world, recipe(posts=20)))))
    assert few == rows[: len(few)] and len({row["id_post"] for row in few}) > 15
    other = list(threads.lines(world, recipe(posts=20, seed=1)))
    assert {row["post"] for row in other}.isdisjoint(row["post"] for row in few)
    assert [row["comment_turn_level"] for row in other] != [row["comment_turn_level"] for row in few]


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert main(["clinic", "threads", "--posts", "7", "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "posts: 7\nfindings: 70\nconditions: 32" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_what_a_question_asks_for_and_lacks_is_what_the_oracle_reads_in_it(oracle, read):
    for one in read:
        level = None if one.truth.level == "good" else one.truth.level
        assert oracle.question(one.question) == Question(one.truth.findings, level)
    levels = {one.truth.level for one in read}
    assert levels == {*knowledge.LEVELS, "double", "irrelevant"}


def test_the_gain_is_that_of_one_who_has_read_the_context_and_nothing_else(world, oracle, read):
    for one in read:
        said = [message.content for message in one.context if message.role == "user"]
        told = {finding: there for text in said for finding, there in oracle.statements(text).items()}
        belief = Belief.of(world, introduced(said[0]), told)
        assert one.truth.gain == pytest.approx(joint_gain(belief, one.truth.findings), abs=2e-6)
    gains = [one.truth.gain for one in read]
    assert min(gains) == 0 < mean(gains) < max(gains)


def test_whatever_people_say_is_true(world, oracle, rows):
    posts = {}
    for row in rows:
        post = posts.setdefault(row["id_post"], threads.Post(world, 0, int(row["id_post"].split("-")[-1]), {}))
        assert introduced(row["post"]) == post.truth.person
        for text in (row["title"], row["post"], row["patient_answer"] or ""):
            assert all(post.present(finding) == there for finding, there in oracle.statements(text).items())
        assert row["truth"]["condition"] == post.truth.condition


def test_a_thread_ends_with_the_condition_and_what_to_do_or_with_nothing(world, read):
    names = {condition.id: condition for condition in world.conditions}
    concluded = [one for one in read if one.conclusion]
    assert 0.3 * len(read) < len(concluded) < len(read)
    for one in read:
        condition = names[one.truth.condition]
        assert one.outcome == (condition.name if one.conclusion else None)
        assert one.conclusion is None or condition.recommendation in one.conclusion


def test_a_later_question_has_all_that_went_before_in_its_thread(rows, read):
    held = defaultdict(list)
    for row, one in zip(rows, read, strict=True):
        held[row["thread_id"]].append((row, one))
    later = 0
    for lines in held.values():
        for row, one in lines:
            before = [it for it, _ in lines if it["comment_turn_level"] < row["comment_turn_level"]]
            exchanges = [text for it in before for text in (it["question"], it["patient_answer"]) if text]
            assert [message.content for message in one.context] == [f"{row['title']}\n\n{row['post']}", *exchanges]
            later += bool(before)
    assert later > 0.3 * len(rows)


def test_what_was_not_understood_is_asked_again_in_plain_words(rows):
    puzzled = [row for row in rows if row["truth"]["level"] in ("vague", "jargon") and row["patient_answer"]]
    puzzled = [row for row in puzzled if row["patient_answer"].endswith(tuple(language.talk()["not_understood"]))]
    ids = {row["qid"] for row in puzzled}
    again = [
        two["truth"]
        for one, two in pairwise(rows)
        if one["qid"] in ids
        and (one["thread_id"], one["truth"]["findings"]) == (two["thread_id"], two["truth"]["findings"])
    ]
    assert len(again) > 3 and {truth["level"] for truth in again} == {"good"}


def test_nothing_is_asked_twice_of_one_who_understood(rows):
    asked = defaultdict(list)
    for row in rows:
        asked[row["thread_id"]].append(row["question"])
    assert all(len(set(texts)) == len(texts) for texts in asked.values())


def test_wordings_of_test_are_in_test_alone(world, rows):
    unseen = {row["id_post"]: split_of(row["id_post"], Shares()) == "test" for row in rows}
    said = {True: set(), False: set()}
    for row in rows:
        for text in (row["title"], row["post"], row["comment_body"], row["question"], row["patient_answer"] or ""):
            said[unseen[row["id_post"]]] |= {language.squeezed(sentence) for sentence in sentences(text)}
    assert len(said[True]) > 100 and said[True].isdisjoint(said[False])
    last = {language.squeezed(finding.questions.good[-1]) for finding in world.findings}
    assert len(said[True] & last) > 20


def test_the_splits_of_ingest_are_those_of_the_wordings(read):
    assert all(one.split == split_of(one.group, Shares()) for one in read)
    assert {one.split for one in read} == {"train", "dev", "test"}


def test_the_better_the_skill_the_more_the_questions_tell(world):
    gains, flaws, experts = {}, {}, {}
    for skill in ("expert", "average", "novice"):
        found = list(threads.lines(world, recipe(posts=120, skill=skill)))
        gains[skill] = mean(row["truth"]["gain"] for row in found)
        flaws[skill] = mean(
            row["truth"]["level"] in ("vague", "jargon", "leading", "wrong", "irrelevant") for row in found
        )
        experts[skill] = mean("not" not in (row["comment_author_flair_text"] or "not").lower() for row in found)
    assert gains["expert"] > gains["average"] > gains["novice"] and flaws["expert"] < flaws["average"] < flaws["novice"]
    assert experts["expert"] > experts["average"] > experts["novice"] == 0


def test_a_clinic_of_one_body_system_has_its_conditions_alone(world, tmp_path):
    part = knowledge.load(systems=("skin",))
    where = ["--systems", "skin", "--output", str(tmp_path / "skin")]
    assert main(["clinic", "threads", "--posts", "40", *where]) == 0
    truths = [json.loads(line)["truth"] for line in (tmp_path / "skin" / "threads.jsonl").read_text().splitlines()]
    assert {truth["condition"] for truth in truths} <= set(part.condition_ids) < set(world.condition_ids)
    assert {name for truth in truths for name in truth["findings"]} <= set(part.finding_ids)


def test_a_comment_asks_what_its_lines_do(oracle, rows):
    comments = defaultdict(list)
    for row in rows:
        comments[row["comment_id"], row["comment_body"]].append(row)
    for (_, body), lines in comments.items():
        assert all(row["question"] in body for row in lines)
        findings = dict.fromkeys(name for row in lines for name in row["truth"]["findings"])
        assert set(oracle.question(body).findings) == set(findings)
        assert [row["qid"][-2:] for row in lines] == [f"q{place}" for place in range(len(lines))]
