import csv
import io
from collections import Counter
from pathlib import Path

import pytest

from askwell.errors import DataError
from askwell.sources import mts_dialog

DATA = Path(__file__).parents[3] / "shared" / "data" / "mts_dialog"
HEADER = ["ID", "section_header", "section_text", "dialogue"]


def table(*rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def read(tmp_path, content):
    path = tmp_path / "Training.csv"
    path.write_bytes(content)
    return list(mts_dialog.read(path, name="Training.csv"))


def said(tmp_path, dialogue):
    (draft,) = read(tmp_path, table(HEADER, ["0", "CC", "Fever.", dialogue]))
    return [(message["role"], message["content"]) for message in draft.messages]


def test_fields(tmp_path):
    (draft,) = read(tmp_path, b"\xef\xbb\xbf" + table(HEADER, ["7", "CC", "Fever.", "Doctor: Ill?\r\nPatient: Yes. "]))
    assert (draft.id, draft.group, draft.goal, draft.outcome) == ("Training/7", "Training/7", "CC", "Fever.")
    assert draft.messages == [{"role": "assistant", "content": "Ill?"}, {"role": "user", "content": "Yes."}]
    assert draft.notes == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Doctor_2: Hi.", ("assistant", "Hi.")),
        ("Docotr_2: Hi.", ("assistant", "Hi.")),
        ("Guest_clinician: Hi.", ("assistant", "Hi.")),
        ("Guest_clinican: Hi.", ("assistant", "Hi.")),
        ("Guest_family: Hi.", ("user", "Guest_family: Hi.")),
        ("Guest_family_2: Hi.", ("user", "Guest_family_2: Hi.")),
        ("Guest_family2: Hi.", ("user", "Guest_family2: Hi.")),
        ("Gest_family: Hi.", ("user", "Gest_family: Hi.")),
        ("Guest_family. Hello. I'm his wife.", ("user", "Guest_family: Hello. I'm his wife.")),
        (" Patient : At 10:30, doctor: why?", ("user", "At 10:30, doctor: why?")),
    ],
)
def test_speakers(tmp_path, line, expected):
    assert said(tmp_path, f"Doctor: Who is there?\n{line}")[1:] == [expected]


def test_a_line_without_a_speaker_continues_the_message_before(tmp_path):
    text = "Doctor: Who\n\nis there?\nPatient. Hm.\nPatient: Me."
    assert said(tmp_path, text) == [("assistant", "Who\nis there?\nPatient. Hm."), ("user", "Me.")]


def test_other_speakers_and_joined_lines_are_counted(tmp_path):
    (draft,) = read(tmp_path, table(HEADER, ["0", "", "", "Doctor: A\nGuest_family: B\nGuest_family: C\nD"]))
    assert draft.notes == {
        "speaker Guest_family taken as user": 2,
        "line without a speaker joined to the message before": 1,
    }


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (["0", "CC", "Fever.", "Nurse: Hi."], "unknown speaker", "'Nurse'; known are Docotr, Doctor"),
        (["0", "CC", "Fever.", "Hello there"], "no speaker", "first line names none"),
        (["", "CC", "Fever.", "Doctor: Hi."], "no ID", "blank"),
        (["0", "CC", "Fever."], "wrong number of cells", "mend the quotes"),
        (["0", "CC", "Fever.", "Doctor: Hi.", "more"], "wrong number of cells", "mend the quotes"),
    ],
)
def test_a_bad_row_is_rejected_at_its_line_and_the_next_one_read(tmp_path, row, reason, detail):
    first = ["1", "CC", "x", "Doctor: A\nPatient: B"]
    _, rejected, last = read(tmp_path, table(HEADER, first, row, ["2", *first[1:]]))
    assert (rejected.where, rejected.reason) == ("Training.csv:4", reason)
    assert detail in rejected.detail
    assert (last.id, last.place) == ("Training/2", "5")


def test_a_byte_that_is_not_utf8_rejects_its_row_alone(tmp_path):
    rows = table(HEADER, ["0", "CC", "x", "Doctor: caf@"], ["1", "CC", "x", "Doctor: A"]).replace(b"@", b"\xe9")
    rejected, draft = read(tmp_path, rows)
    assert (rejected.reason, rejected.quote) == ("not UTF-8", "Doctor: caf\\udce9")
    assert draft.id == "Training/1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ID,dialogue\n", "no column section_header, section_text"),
        (b"", "no column ID"),
        (b'ID,section_header,section_text,dialogue\n0,CC,x,"Doctor: A', "Training.csv:2: not CSV"),
    ],
)
def test_a_file_that_is_no_such_table_is_an_error(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


@pytest.mark.skipif(not DATA.is_dir(), reason="the MTS-Dialog data are not at ../shared/data/mts_dialog")
def test_every_speaker_of_the_corpus_is_known():
    found = [draft for path in DATA.glob("*.csv") for draft in mts_dialog.read(path, name=path.name)]
    assert len(found) == 1301
    assert all(isinstance(draft, mts_dialog.Draft) for draft in found)
    notes = sum((draft.notes for draft in found if isinstance(draft, mts_dialog.Draft)), Counter[str]())
    assert notes["speaker Guest_family taken as user"] == 593
    assert notes["line without a speaker joined to the message before"] == 1
