"""Attributes as files: what is complete is read, what is not is refused with what to add."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell import attributes
from askwell.attributes import Attribute
from askwell.errors import DataError

WORDS = st.text(min_size=1).map(str.strip).filter(bool)


def test_the_papers_six_stand_in_two_groups_beside_the_coarse_baseline_and_personal_interest():
    assert attributes.names("general") == ("answerability", "clarity", "focus")
    assert attributes.names("clinical") == ("accuracy", "avoid_bias", "relevance")
    assert {*attributes.names()} == {*attributes.ALFA, "overall", "personal_interest"}
    for name in attributes.names():
        attribute = attributes.load(name)
        assert attribute.name == name and len({*attribute.scale}) == 5 and attribute.more != attribute.less


def test_a_path_works_wherever_a_name_does(tmp_path):
    own = attributes.load("clarity").model_copy(update={"name": "warmth", "group": "bedside"})
    (tmp_path / "warmth.toml").write_text(attributes.written(own))
    assert attributes.load(tmp_path / "warmth.toml") == own
    assert attributes.load_all((str(tmp_path / "warmth.toml"), "focus")) == (own, attributes.load("focus"))


def test_an_incomplete_file_is_refused_with_all_that_it_lacks_and_what_to_add(tmp_path):
    file = tmp_path / "warmth.toml"
    file.write_text('name = "warmth"\ntitle = "Warmth"\ngroup = "bedside"\nscale = ["bad", "good"]\ncolour = "red"\n')
    with pytest.raises(DataError) as refusal:
        attributes.load(file)
    told = str(refusal.value)
    assert str(file) in told and "'definition' is missing; add" in told and "'tips' is missing" in told
    assert "'scale'" in told and "five sentences" in told and "unknown field 'colour'" in told


@pytest.mark.parametrize("text", ['name = "Warm Th"', "name = ", 'more = "  "'])
def test_what_is_no_attribute_is_refused(tmp_path, text):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(DataError, match=r"a\.toml"):
        attributes.load(tmp_path / "a.toml")


def test_no_attribute_is_called_all_which_is_all_of_them_in_reports(tmp_path):
    (tmp_path / "all.toml").write_text(
        attributes.written(attributes.load("clarity").model_copy(update={"name": "all"}))
    )
    with pytest.raises(DataError, match="'name' is 'all'; it must be a word in lower case other than \"all\""):
        attributes.load(tmp_path / "all.toml")


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(DataError, match=r"'clarety'.*known attributes: accuracy, answerability"):
        attributes.load("clarety")
    with pytest.raises(DataError, match="'focus' stands twice"):
        attributes.load_all(("focus", "clarity", "focus"))


@given(definition=WORDS, scale=st.tuples(*[WORDS] * 5), tips=st.lists(WORDS, min_size=1), more=WORDS, less=WORDS)
def test_whatever_an_attribute_says_is_read_back_as_it_was_written(definition, scale, tips, more, less):
    attribute = Attribute(
        name="own", title="Own", group="own", definition=definition, scale=scale, tips=tuple(tips), more=more, less=less
    )
    assert Attribute.model_validate(attributes.tomllib.loads(attributes.written(attribute))) == attribute
