"""Recipes: YAML and flags become validated values, or one line that names the value and the way out."""

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from askwell import recipes
from askwell.cli import COMMANDS
from askwell.errors import RecipeError
from askwell.recipes import EvaluateTurnsRecipe, IngestRecipe, Shares, StudyRecipe, TrainRecipe, override, resolve

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
MINIMAL = {"output": "out", "input": "in"}


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_in_the_repository_parses_as_the_command_that_it_declares(path):
    command = yaml.safe_load(path.read_text())["command"]
    resolve(COMMANDS[command].recipe, recipes.read_recipe(path, command))


def test_a_dotted_override_wins_over_the_file_and_leaves_its_neighbours(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text("command: train\ninput: in\noutput: out\noptimizer:\n  learning_rate: 5e-7\n  warmup: 0.1\n")
    values = recipes.read_recipe(file, "train")
    assert resolve(TrainRecipe, dict(values)).optimizer.learning_rate == 5e-7  # PyYAML reads 5e-7 as a string
    recipe = resolve(TrainRecipe, override(values, ["--optimizer.learning_rate", "1e-5", "--epochs=2"]))
    assert (recipe.optimizer.learning_rate, recipe.optimizer.warmup, recipe.epochs) == (1e-5, 0.1, 2)


def test_a_dash_in_a_flag_is_an_underscore():
    assert resolve(TrainRecipe, override(dict(MINIMAL), ["--max-tokens", "64"])).max_tokens == 64


def test_lists_are_comma_separated_or_yaml():
    base = {"output": "o", "data": "d"}
    assert resolve(StudyRecipe, override(dict(base), ["--rows", "base"])).rows == ("base",)
    assert resolve(StudyRecipe, override(dict(base), ["--rows", "base,sft"])).rows == ("base", "sft")
    assert resolve(StudyRecipe, override(dict(base), ["--rows", "[sft]"])).rows == ("sft",)
    models = resolve(TrainRecipe, override(dict(MINIMAL), ["--rollouts.reward.models.paths", "a,b"])).rollouts.reward
    assert models.models is not None and models.models.paths == (Path("a"), Path("b"))


def test_null_switches_a_section_off_and_a_dotted_flag_switches_it_on():
    assert resolve(TrainRecipe, override(dict(MINIMAL), ["--lora.rank", "4"])).lora.rank == 4
    assert resolve(TrainRecipe, override({**MINIMAL, "lora": {"rank": 4}}, ["--lora", "null"])).lora is None


@pytest.mark.parametrize(
    ("kind", "flags", "says"),
    [
        (TrainRecipe, ["--epoch", "1"], ["unknown field 'epoch'", "did you mean 'epochs'?"]),
        (
            TrainRecipe,
            ["--optimizer.rate", "1"],
            ["'optimizer.rate'; known fields: optimizer.learning_rate, optimizer.warm"],
        ),
        (TrainRecipe, ["--optimizer.warmups", "1"], ["did you mean 'optimizer.warmup'?"]),
        (TrainRecipe, ["--learning_rate", "1"], ["did you mean 'optimizer.learning_rate'?"]),
        (TrainRecipe, ["--batch", "many"], ["batch: 'many' is not valid"]),
        (TrainRecipe, ["--method", "pray"], ["method: 'pray' is not valid", "sft"]),
        (TrainRecipe, ["--epochs", "nan"], ["epochs"]),
        (TrainRecipe, ["--scratch.hidden", "50", "--scratch.heads", "4"], ["hidden 50", "heads 4"]),
        (
            IngestRecipe,
            ["--source", "chat", "--split.dev", "0.6", "--split.test", "0.6"],
            ["leave nothing to train on"],
        ),
        (TrainRecipe, ["--stop_marker", "<stop />\n"], ["must be one line without white space"]),
        (IngestRecipe, [], ["'source' is missing; give `--source VALUE`"]),
        (EvaluateTurnsRecipe, ["--policy", "p", "--grader", "g", "--temperature", "-1"], ["temperature: '-1'"]),
    ],
)
def test_a_fault_names_the_value_the_rule_and_the_fix(kind, flags, says):
    with pytest.raises(RecipeError) as error:
        resolve(kind, override(dict(MINIMAL), flags))
    for words in says:
        assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", "a recipe is a mapping of fields, not list"),
        ("a: [", "not YAML"),
        ("command: label\n", "a recipe for command 'label', called as 'train'"),
        ("input: x\n", "says no command; write `command: train`"),
    ],
)
def test_a_bad_recipe_file_is_named(tmp_path, text, says):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match="r.yaml") as error:
        recipes.read_recipe(file, "train")
    assert says in str(error.value)


def test_a_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        recipes.read_recipe(tmp_path / "absent.yaml", "train")


@pytest.mark.parametrize("flags", [["x"], ["--"], ["--seed"], ["-s", "1"]])
def test_a_flag_without_value_or_dashes_is_refused(flags):
    with pytest.raises(RecipeError):
        override({}, flags)


def test_every_field_has_a_description():
    def check(kind):
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"
            if section := recipes.section_of(field.annotation):
                check(section)

    for command in COMMANDS.values():
        check(command.recipe)


@given(st.text(max_size=30))
def test_no_flag_value_ends_in_anything_but_a_value_or_a_recipe_error(text):
    for name in ("epochs", "input", "prompt", "lora", "optimizer"):
        with contextlib.suppress(RecipeError):
            resolve(TrainRecipe, override(dict(MINIMAL), [f"--{name}", text]))


def test_shares_leave_a_train_split():
    assert Shares(dev=0.2, test=0.7).test == 0.7


def test_none_is_a_word_and_null_is_nothing():
    given = override(dict(MINIMAL), ["--rollouts.scale", "none", "--limit", "null"])
    recipe = resolve(TrainRecipe, given)
    assert recipe.rollouts.scale == "none" and recipe.limit is None
    with pytest.raises(RecipeError, match="limit"):
        resolve(TrainRecipe, override(dict(MINIMAL), ["--limit", "none"]))
