"""The command line: `askwell COMMAND [recipe.yaml] [--field value ...] [--dry-run]`.

A stage is a module with `inputs`, `plan` and `run`; it is imported only once its recipe is valid, so that help and
refusals never wait for torch. Errors that a user can mend are one line on standard error, exit code 2.
"""

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic_core import PydanticUndefined

from askwell import __version__, recipes, runs
from askwell.errors import AskwellError, RecipeError
from askwell.recipes import Recipe


class Command(NamedTuple):
    """A command: its recipe class and the stage that carries it out."""

    recipe: type[Recipe]
    stage: str


COMMANDS = {
    "ingest": Command(recipes.IngestRecipe, "askwell.sources.ingest"),
    "label": Command(recipes.LabelRecipe, "askwell.labelling.hindsight"),
    "cases read": Command(recipes.CasesReadRecipe, "askwell.sources.cases"),
    "cases build": Command(recipes.CasesBuildRecipe, "askwell.labelling.case_building"),
    "clinic logs": Command(recipes.ClinicLogsRecipe, "askwell.clinic.logs"),
    "clinic threads": Command(recipes.ClinicThreadsRecipe, "askwell.clinic.threads"),
    "clinic serve": Command(recipes.ClinicServeRecipe, "askwell.clinic.serve"),
    "synthesize": Command(recipes.SynthesizeRecipe, "askwell.labelling.synthesis"),
    "attributes propose": Command(recipes.ProposeRecipe, "askwell.labelling.proposal"),
    "contrast": Command(recipes.ContrastRecipe, "askwell.labelling.contrast"),
    "grader": Command(recipes.GraderRecipe, "askwell.grading.fit"),
    "train": Command(recipes.TrainRecipe, "askwell.training.sft"),
    "merge": Command(recipes.MergeRecipe, "askwell.training.merge"),
    "evaluate turns": Command(recipes.EvaluateTurnsRecipe, "askwell.evaluation.turns"),
    "evaluate questions": Command(recipes.EvaluateQuestionsRecipe, "askwell.evaluation.questions"),
    "evaluate interviews": Command(recipes.EvaluateInterviewsRecipe, "askwell.evaluation.interviews"),
    "evaluate compare": Command(recipes.CompareRecipe, "askwell.evaluation.comparison"),
    "review sample": Command(recipes.ReviewSampleRecipe, "askwell.evaluation.ranking_sheets"),
    "review read": Command(recipes.ReviewReadRecipe, "askwell.evaluation.rankings"),
    "study demo": Command(recipes.StudyDemoRecipe, "askwell.studies.demo"),
    "study alfa": Command(recipes.StudyAlfaRecipe, "askwell.studies.alfa"),
    "study learn-to-ask": Command(recipes.StudyRecipe, "askwell.studies.learn_to_ask"),
}


METHODS = {
    "sft": "askwell.training.sft",
    "dpo": "askwell.training.dpo",
    "reward": "askwell.training.reward",
    "ppo": "askwell.training.ppo",
    **dict.fromkeys(("grpo", "gspo", "cispo", "rloo"), "askwell.training.grpo"),
}
"""`askwell train` is several stages, one a method."""
TRAIN = frozenset(
    (
        "accelerate",
        "datasets",
        "matplotlib",
        "peft",
        "safetensors",
        "sklearn",
        "tokenizers",
        "torch",
        "transformers",
        "trl",
    )
)
"""What the extra `train` brings: policies and graders need it, and nothing else does."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["--version"], ["-V"]):
        print(f"askwell {__version__}")
        return 0
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    try:
        name, rest = command_of(arguments)
        if {"--help", "-h"} & set(rest):
            print(usage(name))
            return 0
        return call(name, rest)
    except AskwellError as error:
        print(f"askwell: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in TRAIN:
            raise
        print(
            f"askwell: error: {package!r} is not installed; it comes with the extra `train`: in a checkout of askwell "
            "`make install`, or `pip install '.[train]'`",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("askwell: interrupted; the same command goes on where this one was cut", file=sys.stderr)
        return 130


def call(name: str, arguments: list[str]) -> int:
    """Resolve the recipe, then plan (--dry-run) or run the stage in its run directory."""
    # Threads that wait may spin for a moment. With other jobs on two of four cores, endless spinning, the default,
    # makes a matrix product five times slower; with none at all, generation by a small model takes twice as long.
    # OpenMP reads this when torch is loaded, so it is set before. docs/LOG.md has the figures.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    dry = "--dry-run" in arguments
    recipe = parse(name, [argument for argument in arguments if argument != "--dry-run"])
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stderr)
    stage = cast(runs.Stage, importlib.import_module(stage_of(name, recipe)))
    if dry:
        runs.check(recipe, name)
        print(recipe.model_dump_json(indent=1))
        print_counts(stage.plan(recipe))
        return 0
    if not runs.main_process():
        # A second process of `accelerate launch`: the first owns the run directory.
        stage.inputs(recipe)
        stage.run(recipe, runs.Run(recipe.output, resumed=False))
        return 0
    print_counts(runs.carry_out(stage, recipe, name))
    print(f"done: {recipe.output}")
    return 0


def stage_of(name: str, recipe: Recipe) -> str:
    """The module that carries out a command."""
    if isinstance(recipe, recipes.TrainRecipe):
        return "askwell.training.each" if recipe.each else METHODS[recipe.method]
    if isinstance(recipe, recipes.LabelRecipe) and recipe.truth == "llm":
        return "askwell.labelling.extraction"
    return COMMANDS[name].stage


def command_of(arguments: list[str]) -> tuple[str, list[str]]:
    """The command that the words name, one word or two, and what follows it."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, arguments[words:]
    raise RecipeError(f"unknown command {' '.join(arguments[:2])!r}; commands: {', '.join(COMMANDS)}")


def parse(name: str, arguments: list[str]) -> Recipe:
    """The recipe of a call: its file, if one is named first, with the flags over it."""
    values: dict[str, Any] = {}
    if arguments and not arguments[0].startswith("-") and not named(name, arguments[0]):
        values = recipes.read_recipe(Path(arguments[0]), name)
        arguments = arguments[1:]
    for field in COMMANDS[name].recipe.positional:
        if arguments and not arguments[0].startswith("-"):
            values[field] = arguments[0]
            arguments = arguments[1:]
    return recipes.resolve(COMMANDS[name].recipe, recipes.override(values, arguments))


def named(name: str, word: str) -> bool:
    """Whether the first word of a call is a field that needs no flag, not a recipe."""
    return bool(COMMANDS[name].recipe.positional) and Path(word).suffix not in (".yaml", ".yml", ".json")


def print_counts(counts: dict[str, object]) -> None:
    """One `name: value` a line."""
    for name, value in counts.items():
        print(f"{name}: {value}")


def overview() -> str:
    """What `askwell --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [
        f"askwell {__version__}: train and evaluate language models that ask good questions and know when to stop",
        "",
        "usage: askwell COMMAND [recipe.yaml] [--field value ...] [--dry-run]",
        "",
        *(f"  {name:<{width}}  {summary(command.recipe)}" for name, command in COMMANDS.items()),
        "",
        "`askwell COMMAND --help` lists the fields; --dry-run resolves, counts and writes nothing.",
    ]
    return "\n".join(lines)


def summary(recipe: type[Recipe]) -> str:
    """First line of a recipe's docstring."""
    return (recipe.__doc__ or "").strip().splitlines()[0]


def usage(name: str) -> str:
    """What `askwell COMMAND --help` prints: every field with its type, default and description."""
    recipe = COMMANDS[name].recipe
    bare = "".join(f" [{field.upper()}]" for field in recipe.positional)
    lines = [
        f"askwell {name}: {summary(recipe)}",
        "",
        f"usage: askwell {name} [recipe.yaml]{bare} [--field value ...] [--dry-run]",
        "",
    ]
    for field, kind, default, text in fields(recipe):
        lines += [f"  --{field} {kind}{default}", f"      {text}"]
    return "\n".join(lines)


def fields(recipe: type[Any], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """(dotted name, type, default as text, description) of every field; sections are unfolded."""
    rows = []
    for name, field in recipe.model_fields.items():
        text = " ".join((field.description or "").split())
        section = recipes.section_of(field.annotation)
        if section is not None:
            optional = " (optional section; off by default)" if field.default is None else ""
            rows += [(row[0], row[1], row[2], row[3] + optional) for row in fields(section, f"{prefix}{name}.")]
            continue
        default = " (required)" if field.is_required() else f" = {shown(field.default)}"
        rows.append((prefix + name, type_name(field.annotation), default, text))
    # What must be given comes first.
    return sorted(rows, key=lambda row: row[2] != " (required)") if not prefix else rows


def shown(default: object) -> str:
    """A default as one would type it."""
    if default is PydanticUndefined or default is None:
        return "null"
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "[]"
    return "''" if default == "" else str(default)


def type_name(annotation: Any) -> str:
    """A type as a reader would say it: Literal['a', 'b'] is a|b, int | None is int."""
    text = (
        getattr(annotation, "__name__", None)
        if isinstance(annotation, type) and not hasattr(annotation, "__args__")
        else None
    )
    if text is None:
        arguments = [
            argument for argument in getattr(annotation, "__args__", ()) if argument not in (type(None), Ellipsis)
        ]
        if all(isinstance(argument, str) for argument in arguments):
            return "|".join(arguments)
        text = "|".join(type_name(argument) for argument in arguments)
        if getattr(annotation, "__origin__", None) is tuple:
            return f"{text},..."
        return text
    return text.upper()


if __name__ == "__main__":
    sys.exit(main())
