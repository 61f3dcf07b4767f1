import json
import logging
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from askwell import cli, jsonl, runs
from askwell.errors import DataError
from askwell.recipes import IngestRecipe, Shares
from askwell.records import Conversation
from askwell.sources import ingest
from askwell.sources.drafts import Rejected, quoted
from children import askwell

SGD = Path(__file__).parents[3] / "shared" / "data" / "sgd"
MESSAGES = [{"role": "user", "content": "My head hurts."}, {"role": "assistant", "content": "Since when?"}]


def line(name, **fields):
    return json.dumps({"id": name, "messages": MESSAGES, **fields}).encode()


def ingested(tmp_path, content, *, out="out", **fields):
    """Counts, conversations and rejections of one chat file."""
    source = tmp_path / "logs.jsonl"
    source.write_bytes(content)
    path = tmp_path / out
    path.mkdir(exist_ok=True)
    recipe = IngestRecipe(source="chat", input=source, output=path, **fields)
    counts = ingest.run(recipe, runs.Run(path, resumed=False))
    return counts, *written(path)


def written(path):
    return list(jsonl.read(path / "records.jsonl", Conversation)), list(jsonl.read(path / "rejected.jsonl", Rejected))


def test_counts(tmp_path):
    content = b"\n".join([*(line(f"c{i}", meta=1) for i in range(200)), b"torn {"])
    counts, conversations, rejected = ingested(tmp_path, content)
    splits = Counter(conversation.split for conversation in conversations)
    assert counts == {
        "conversations": 200,
        "messages": 400,
        "rejected": {"malformed JSON": 1},
        **{split: splits[split] for split in ("train", "dev", "test")},
        "notes": {"field 'meta' not read": 200},
    }
    assert min(splits.values()) > 0
    assert [(r.file, r.place, r.quote) for r in rejected] == [("logs.jsonl", "201", "torn {")]
    assert conversations[0].source == "chat"


def test_a_duplicate_id_names_the_first(tmp_path):
    counts, conversations, (rejected,) = ingested(tmp_path, line("a") + b"\n" + line("a"), max_rejected=0.5)
    assert [conversation.id for conversation in conversations] == ["a"]
    assert (rejected.place, rejected.reason) == ("2", "duplicate id")
    assert rejected.detail == "'a' stands at logs.jsonl:1 already"
    assert counts["conversations"] == 1


def test_a_rejected_line_takes_no_id(tmp_path):
    bad = json.dumps({"id": "a", "messages": []}).encode()
    _, conversations, rejected = ingested(tmp_path, bad + b"\n" + line("a"), max_rejected=0.5)
    assert [conversation.id for conversation in conversations] == ["a"]
    assert [r.reason for r in rejected] == ["empty dialogue"]


def test_too_many_rejected_is_one_line_with_the_commonest_and_the_way_out(tmp_path):
    with pytest.raises(DataError) as error:
        ingested(tmp_path, b"\n".join([line("a"), b"[1", line("a"), b"[2", line("b"), line("c")]), max_rejected=0.4)
    message = str(error.value)
    assert "\n" not in message
    assert "3 of 6 conversations rejected (50.0%), where --max_rejected allows 40.0%" in message
    assert "commonest: malformed JSON (2), first at logs.jsonl:2: column 3" in message
    assert "or repeat with --max_rejected 0.5" in message
    assert not (tmp_path / "out" / "records.jsonl").exists()
    assert len(list(jsonl.read(tmp_path / "out" / "rejected.jsonl", Rejected))) == 3


def test_the_limit_on_rejected_is_a_share_that_may_be_met(tmp_path):
    assert ingested(tmp_path, line("a") + b"\n[1", max_rejected=0.5)[0]["conversations"] == 1


@pytest.mark.parametrize(("content", "message"), [(b"", "no conversation in it"), (b"[1", "and none accepted")])
def test_nothing_accepted_is_an_error_whatever_is_allowed(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        ingested(tmp_path, content, max_rejected=1)


def test_limit_counts_the_accepted_and_reads_no_further(tmp_path):
    content = b"\n".join([line("a"), b"[1", line("b"), b"[2", line("c")])
    counts, conversations, rejected = ingested(tmp_path, content, limit=2, max_rejected=0.5)
    assert [conversation.id for conversation in conversations] == ["a", "b"]
    assert [r.place for r in rejected] == ["2"]
    assert counts["conversations"] == 2


def test_three_rejections_of_a_reason_are_logged(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        ingested(tmp_path, b"\n".join([line("a"), *[b"[1"] * 5, b"{}"]), max_rejected=0.9)
    assert [record.getMessage().split(" rejected")[0] for record in caplog.records] == [
        *(f"logs.jsonl:{number}" for number in (2, 3, 4)),
        "logs.jsonl:7",
    ]


PRIVATE = [
    {"role": "user", "content": "My name is Jane Roe, call 555-123-4567."},
    {"role": "assistant", "content": "Jane, since when? Since 01/10/09?"},
]


def test_redacted_conversations_say_so_and_are_counted(tmp_path):
    content = b"\n".join([line("a", messages=PRIVATE, goal="Help Roe", outcome="jane@x.com"), line("b")])
    counts, (a, b), _ = ingested(tmp_path, content, redact=True)
    assert [message.content for message in a.messages] == [
        "My name is [NAME], call [PHONE].",
        "[NAME], since when? Since [DATE]?",
    ]
    assert (a.goal, a.outcome, a.redacted, b.redacted) == ("Help [NAME]", "[EMAIL]", True, True)
    assert counts["redacted"] == {"NAME": 3, "PHONE": 1, "DATE": 1, "EMAIL": 1}
    plain, (a, _), _ = ingested(tmp_path, content, out="plain")
    assert "redacted" not in plain
    assert a.messages[0].content == PRIVATE[0]["content"]
    assert b"redacted" not in (tmp_path / "plain" / "records.jsonl").read_bytes()


def test_redacted_groups_stay_groups_and_keep_their_split(tmp_path):
    content = b"\n".join(line(f"c{i}", group=f"p{i % 9}@x.com" if i % 2 else f"g{i % 9}") for i in range(90))
    _, plain, _ = ingested(tmp_path, content, out="plain")
    _, redacted, _ = ingested(tmp_path, content, redact=True)
    assert [conversation.split for conversation in redacted] == [conversation.split for conversation in plain]
    pairs = {(before.group, after.group) for before, after in zip(plain, redacted, strict=True)}
    assert len(pairs) == len({before for before, _ in pairs}) == len({after for _, after in pairs}) == 18
    assert all(("@" in before) != (before == after) for before, after in pairs)


def test_what_is_quoted_of_the_rejected_is_redacted(tmp_path, caplog):
    spoken = "x" * 150 + "\\nDr. M\\u00fcller, jane.doe@example.com, " + "y" * 150
    bad = [
        b'{"messages": "Dr. Kumar, jane@x.com"}',
        f'{{"messages": [{spoken}'.encode(),
        line("p1@x.com"),
        line("p1@x.com", messages=PRIVATE),
        line("cut", messages=[{"role": "Dr. Kumar", "content": "w " * 45 + "jane.doe@example.com " + "w " * 45}]),
    ]
    with caplog.at_level(logging.WARNING):
        _, _, rejected = ingested(tmp_path, b"\n".join(bad), redact=True, max_rejected=0.9)
    assert [r.reason for r in rejected] == ["no messages", "malformed JSON", "duplicate id", "unknown role"]
    assert rejected[0].quote == '"Dr. [NAME], [EMAIL]"'
    assert rejected[2].detail == "'[EMAIL]' stands at logs.jsonl:3 already"
    for text in [caplog.text, (tmp_path / "out" / "rejected.jsonl").read_text()]:
        for private in ("Kumar", "ller", "@", "jane", "Jane", "Roe", "555"):
            assert private not in text


@pytest.mark.parametrize("at", range(70))
def test_no_half_of_an_address_is_quoted(at):
    whole = "wird " * 30 + "jane.doe@example.com" + " wird" * 60
    for cut in (quoted(whole, at=230 + at), quoted("." * at + whole)):
        rejected = Rejected(file="f", place="1", reason="r", detail="d", quote=cut)
        quote = ingest.redacted(rejected, Counter()).quote
        assert not re.search("ja|ne|do|ex|mp|le|om", quote)
        assert "wird wird" in quote


def test_a_failure_for_too_many_rejected_is_redacted(tmp_path):
    with pytest.raises(DataError) as error:
        ingested(tmp_path, b'["jane@x.com"]', redact=True)
    assert "[EMAIL]" in str(error.value)
    assert "jane" not in str(error.value)


# What the input may hold: good lines, and every kind of bad one, by the reason that it must be rejected for.
TORN = {"malformed JSON", "not UTF-8"}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(str.strip)
GOOD = st.builds(
    lambda texts: ("good", [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]),
    st.lists(TEXT | TEXT.map(lambda text: f"user: {text}\nassistant: {text}"), min_size=2, max_size=4),
)
BAD = st.sampled_from(["torn", "bom", "nul", "escaped nul", "surrogate", "latin", "twice", "null", "role", "blank"])
REASONS = {
    "torn": "malformed JSON",
    "bom": "malformed JSON",
    "nul": "NUL character",
    "escaped nul": "NUL character",
    "surrogate": "lone surrogate",
    "latin": "not UTF-8",
    "twice": "duplicate id",
    "null": "null content",
    "role": "unknown role",
}


def spoiled(kind, number):
    """A line of this kind of badness."""
    whole = line(f"bad {number}")
    return {
        "torn": whole[: len(whole) // 2],
        "bom": b"\xef\xbb\xbf" + whole,
        "nul": whole.replace(b"head", b"he\0ad"),
        "escaped nul": whole.replace(b"head", b"he\\u0000ad"),
        "surrogate": whole.replace(b"head", b"\\ud83d"),
        "latin": whole.replace(b"head", b"t\xeate"),
        "twice": line("first"),
        "null": whole.replace(b'"Since when?"', b"null"),
        "role": whole.replace(b'"assistant"', b'"gpt"'),
        "blank": b"  ",
    }[kind]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 19).flatmap(lambda n: BAD.map(lambda kind: (kind, [])) if n == 0 else GOOD), max_size=40)
)
def test_a18_every_line_is_accepted_or_rejected_for_its_own_reason(tmp_path, items):
    lines = [line("first")]
    lines += [
        json.dumps({"id": f"good {i}", "messages": said}, ensure_ascii=bool(i % 2)).encode()
        if kind == "good"
        else spoiled(kind, i)
        for i, (kind, said) in enumerate(items)
    ]
    counts, conversations, rejected = ingested(tmp_path, b"\n".join(lines), max_rejected=1)
    good = [said for kind, said in items if kind == "good"]
    bad = [(str(i + 2), REASONS[kind]) for i, (kind, _) in enumerate(items) if kind in REASONS]
    assert [[m.model_dump(exclude_defaults=True) for m in c.messages] for c in conversations] == [MESSAGES, *good]
    assert [(r.place, r.reason) for r in rejected] == bad
    assert counts["rejected"] == Counter(reason for _, reason in bad)
    assert len(conversations) + len(rejected) == sum(1 for text in lines if text.strip())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_bring_the_reader_down(tmp_path, pieces):
    content = line("first") + b"\n" + b"\n".join(pieces)
    _, conversations, rejected = ingested(tmp_path, content, max_rejected=1)
    assert len(conversations) + len(rejected) == sum(1 for text in content.split(b"\n") if text.strip())


SHARES = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45)).map(lambda pair: Shares(dev=pair[0], test=pair[1]))


def test_the_split_of_a_group_never_changes():
    assert [ingest.split_of(f"g{i}", Shares()) for i in (4, 5, 22)] == ["train", "test", "dev"]


@given(st.lists(st.tuples(st.text("abc", max_size=2), st.booleans()), min_size=1, max_size=30), SHARES)
def test_a_conversation_lands_with_its_group_whatever_else_is_read(items, shares):
    whole = [ingest.split_of(group, shares) for group, _ in items]
    fewer = [ingest.split_of(group, shares) for group, stays in items if stays]
    assert fewer == [split for split, (_, stays) in zip(whole, items, strict=True) if stays]
    assert len({(group, split) for (group, _), split in zip(items, whole, strict=True)}) == len({g for g, _ in items})


@settings(max_examples=20)
@given(SHARES, st.integers(0, 10**6))
def test_shares_are_met_and_independent(shares, start):
    groups = [f"group {start + i}" for i in range(2000)]
    splits = Counter(ingest.split_of(group, shares) for group in groups)
    # Four standard deviations of a share of 2,000 draws are at most 0.045; twenty examples leave room for luck.
    assert abs(splits["dev"] / 2000 - shares.dev) < 0.05
    assert abs(splits["test"] / 2000 - shares.test) < 0.05
    without_dev = Shares(dev=0, test=shares.test)
    tested = [group for group in groups if ingest.split_of(group, shares) == "test"]
    assert tested == [group for group in groups if ingest.split_of(group, without_dev) == "test"]


def test_groups_not_conversations_are_split(tmp_path):
    content = b"\n".join(line(f"c{i}", group=f"g{i % 20}") for i in range(400))
    _, conversations, _ = ingested(tmp_path, content)
    pairs = {(conversation.group, conversation.split) for conversation in conversations}
    assert len(pairs) == 20
    assert len({split for _, split in pairs}) > 1


def test_a_folder_is_read_in_order_of_names_hidden_files_aside(tmp_path):
    logs = tmp_path / "logs"
    for name in ("b.jsonl", "a/z.jsonl", "a/notes.txt", ".cache/x.jsonl", "a/._z.jsonl", "c.NDJSON"):
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).write_bytes(json.dumps(MESSAGES).encode())
    recipe = IngestRecipe(source="chat", input=logs, output=tmp_path / "out")
    assert ingest.inputs(recipe) == [logs / "a/z.jsonl", logs / "b.jsonl", logs / "c.NDJSON"]
    (tmp_path / "out").mkdir()
    ingest.run(recipe, runs.Run(tmp_path / "out", resumed=False))
    conversations, _ = written(tmp_path / "out")
    assert [conversation.id for conversation in conversations] == ["a/z.jsonl:1", "b.jsonl:1", "c.NDJSON:1"]


def test_plan_counts_and_writes_nothing(tmp_path):
    (tmp_path / "logs.jsonl").write_bytes(line("a") + b"\n\n" + line("b") + b"\nbroken\n")
    recipe = IngestRecipe(source="chat", input=tmp_path / "logs.jsonl", output=tmp_path / "out")
    size = (tmp_path / "logs.jsonl").stat().st_size
    assert ingest.plan(recipe) == {"files": {"logs.jsonl": size}, "conversations": 3}
    assert ingest.plan(recipe.model_copy(update={"limit": 2}))["conversations"] == 2
    assert not (tmp_path / "out").exists()


def test_no_input_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match="absent: no such file or folder"):
        ingest.inputs(IngestRecipe(source="chat", input=tmp_path / "absent", output=tmp_path / "out"))


@pytest.mark.parametrize(
    ("file", "source", "hint"),
    [
        ("dialogues_001.json", "chat", "; --source sgd would read what is there"),
        ("a.jsonl", "sgd", "; --source chat or --source realmedconv or --source askdocs would read what is there"),
        ("a.csv", "realmedconv", "; --source mts_dialog would read what is there"),
        ("schema.json", "sgd", "which --source sgd reads$"),
    ],
)
def test_a_folder_of_another_format_says_which_source_would_fit(tmp_path, file, source, hint):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / file).write_text("[]")
    with pytest.raises(DataError, match=hint):
        ingest.plan(IngestRecipe(source=source, input=tmp_path / "in", output=tmp_path / "out"))


def test_an_output_inside_the_input_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(line("a"))
    with pytest.raises(DataError, match="lies inside --input"):
        ingest.inputs(IngestRecipe(source="chat", input=tmp_path, output=tmp_path / "out"))


def test_killed_and_started_again_it_ends_with_the_same_files(tmp_path):
    source, out = tmp_path / "logs.jsonl", tmp_path / "out"
    source.write_bytes(b"\n".join([*(line(f"c{i}") for i in range(8_000)), b"torn {"]))
    words = ["ingest", "--source", "chat", "--input", str(source), "--output"]
    process = askwell(*words, out)
    deadline = time.monotonic() + 30
    while not list(out.glob(".records.jsonl*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "records.jsonl").exists()
    for path in (out, tmp_path / "undisturbed"):
        assert cli.main([*words, str(path)]) == 0
    assert not list(out.glob("*.tmp")) + list(out.glob(".*.tmp"))
    for name in ("records.jsonl", "rejected.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


@pytest.mark.skipif(not SGD.is_dir(), reason="the Schema-Guided Dialogue data are not at ../shared/data/sgd")
def test_real_dialogues_of_both_folders_keep_their_acts(tmp_path):
    (tmp_path / "out").mkdir()
    recipe = IngestRecipe(source="sgd", input=SGD, output=tmp_path / "out", limit=2100)
    counts = ingest.run(recipe, runs.Run(tmp_path / "out", resumed=False))
    conversations, rejected = written(tmp_path / "out")
    assert (counts["conversations"], rejected) == (2100, [])
    assert {conversation.id.split("/")[0] for conversation in conversations} == {"dev", "train"}
    acts = [act for c in conversations for m in c.messages if m.role == "assistant" for act in m.acts]
    assert sum(1 for act in acts if act.act == "REQUEST" and act.slot) > 4000
