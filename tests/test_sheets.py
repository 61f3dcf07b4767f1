"""Sheets are read back as they were written, whatever they hold and whatever a spreadsheet did to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.errors import DataError
from askwell.sheets import as_csv, inert, rows_of

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\0"), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("sheets") / "sheet.csv"
    path.write_text(as_csv(("name", "text"), rows), encoding="utf-8", newline="")
    found = [(row["text"], row["name"]) for _, row in rows_of(path, ("text", "name"))]
    assert found == [(text.strip(), name.strip()) for name, text in rows]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_spreadsheet_of_another_country(tmp_path, separator):
    path = tmp_path / "sheet.csv"
    lines = [["Comment", "NAME", "text"], ["x", "a", "caf\xe9"], [], ["y", "b"]]
    path.write_bytes("\r\n".join(separator.join(line) for line in lines).encode("cp1252"))
    rows = list(rows_of(path, ("name", "text")))
    assert rows[0] == (2, {"name": "a", "text": "caf\xe9"}) and rows[-1] == (4, {"name": "b", "text": ""})


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "sheet.csv").write_text("name\n")
    with pytest.raises(DataError, match="no column rank; a sheet's first line is name, rank"):
        list(rows_of(tmp_path / "sheet.csv", ("name", "rank")))


def test_no_cell_is_a_formula():
    assert [inert(text) for text in ("=1+1", "-x", "x", "")] == ["'=1+1", "'-x", "x", ""]
