"""What a training run reads: the records of its split, the model, the prompt. No torch."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from askwell import runs
from askwell.errors import DataError, RecipeError
from askwell.recipes import TrainRecipe
from askwell.records import Candidate, Conversation, Message, Preference, QuestionSet, Split, Thread, Turn
from askwell.texts import prompt_file

TURNS, CONVERSATIONS = "askwell label", "askwell ingest"
QUESTION_SETS = ("askwell synthesize", "askwell contrast")
QUESTIONS = (*QUESTION_SETS, "askwell ingest")


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The records, the model where it is a folder, the prompt."""
    paths = [recipe.input]
    if recipe.model != "scratch" and Path(recipe.model).is_dir():
        paths.append(Path(recipe.model))
    if recipe.prompt:
        paths.append(prompt_file(recipe.prompt))
    return paths


def imitated(recipe: TrainRecipe) -> None:
    """Refuse, for SFT, what holds nothing of the kind that the recipe imitates."""
    if not recipe.questions:
        runs.require(recipe.input, made_by=CONVERSATIONS if recipe.loss == "all" else TURNS)
        return
    runs.require(recipe.input, made_by=QUESTIONS)
    if of_threads(recipe.input) and recipe.questions != "real":
        raise RecipeError(
            f"questions {recipe.questions!r}: {recipe.input} has people's own alone; take `--questions real`, or make "
            "better ones with `askwell synthesize`"
        )


def turns(recipe: TrainRecipe, counts: Counter[str]) -> Iterator[Turn]:
    """The turns to train on; those without a target are left out and counted."""
    seen: set[str] = set()
    rows = runs.sample_of(recipe.input, Turn, made_by=TURNS, split=recipe.split, limit=recipe.limit)
    for turn in rows:
        if turn.conversation_id not in seen:
            seen.add(turn.conversation_id)
            counts["conversations"] += 1
        counts["turns" if turn.target else "turns_without_target"] += 1
        if turn.target:
            yield turn


def conversations(recipe: TrainRecipe, counts: Counter[str]) -> Iterator[Conversation]:
    """The conversations to train on."""
    rows = runs.sample_of(recipe.input, Conversation, made_by=CONVERSATIONS, split=recipe.split, limit=recipe.limit)
    for conversation in rows:
        counts["conversations"] += 1
        yield conversation


def dialogues(recipe: TrainRecipe) -> Iterator[tuple[Message, ...]]:
    """The messages of each conversation in the training rows, once: what a scratch tokenizer is trained on."""
    if recipe.questions:
        for record, places in questions(recipe, Counter()):
            said = (record.candidates[place].text for place in places)
            yield (*record.context, *(Message(role="assistant", content=text) for text in said))
        return
    if recipe.loss == "all":
        yield from (conversation.messages for conversation in conversations(recipe, Counter()))
        return
    for _, group in itertools.groupby(turns(recipe, Counter()), key=lambda turn: turn.conversation_id):
        turn = next(group)
        yield (*turn.context, Message(role="assistant", content=turn.expert_reply), *turn.future)


def question_sets(recipe: TrainRecipe, counts: Counter[str], *, split: Split | None = None) -> Iterator[QuestionSet]:
    """The question sets of a split (the recipe's; of another one all), with the preferences that the recipe chooses.

    Sets without any are left out and counted, and so is what each choice costs.
    """
    chosen, seen = recipe.preferences, set()
    limit = recipe.limit if split is None else None
    split = split or recipe.split
    for record in runs.sample_of(recipe.input, QuestionSet, made_by=QUESTION_SETS, split=split, limit=limit):
        counts["question_sets"] += 1
        seen |= {preference.attribute for preference in record.preferences}
        kept = tuple(each for each in record.preferences if wanted(record, each, recipe, counts))
        counts["preferences"] += len(kept)
        counts["sets_without_preference"] += not kept
        if kept:
            yield record.model_copy(update={"preferences": kept})
    if split == recipe.split and (unknown := set(chosen.attributes) - seen):
        raise RecipeError(
            f"preferences.attributes: no preference in {', '.join(sorted(unknown))} in {recipe.input}; there are "
            f"preferences in {', '.join(sorted(seen)) or 'nothing'}"
        )


def questions(recipe: TrainRecipe, counts: Counter[str]) -> Iterator[tuple[QuestionSet, list[int]]]:
    """The question sets of the split, each with the places of the candidates to imitate; counts those without any."""
    which: dict[str, Any] = {"made_by": QUESTIONS, "split": recipe.split, "limit": recipe.limit}
    if of_threads(recipe.input):
        sets = map(real, runs.sample_of(recipe.input, Thread, **which))
    else:
        sets = runs.sample_of(recipe.input, QuestionSet, **which)
    for record in sets:
        counts["question_sets"] += 1
        places = [place for place in range(len(record.candidates)) if imitable(record, place, recipe)]
        counts["questions"] += len(places)
        counts["sets_without_question"] += not places
        if places:
            yield record, places


def of_threads(path: Path) -> bool:
    """Whether a run holds questions of threads, each in its context. Raises DataError for whole conversations."""
    told = runs.recipe_of(path)
    if told.get("command") == "ingest" and told.get("source") != "askdocs":
        raise DataError(
            f"{path}: whole conversations of source {told.get('source')!r}, not questions in their context; make turns "
            "of them with `askwell label`"
        )
    return told.get("command") == "ingest"


def real(thread: Thread) -> QuestionSet:
    """A person's question as a question set of it alone."""
    return QuestionSet(
        id=thread.id,
        conversation_id=thread.conversation_id,
        group=thread.group,
        split=thread.split,
        context=thread.context,
        candidates=(Candidate(text=thread.question, origin="human"),),
        preferences=(),
    )


def imitable(record: QuestionSet, place: int, recipe: TrainRecipe) -> bool:
    """Whether a candidate is of the recipe's kind of questions: a person's own, or an enhanced one that the recipe's
    choice of preferences finds better than another, where any preference speaks of it."""
    candidate = record.candidates[place]
    if candidate.origin == "human":
        return recipe.questions in ("real", "combined")
    if candidate.origin != "enhanced" or recipe.questions == "real":
        return False
    if recipe.preferences.attributes and candidate.attribute not in recipe.preferences.attributes:
        return False
    above = [preference for preference in record.preferences if preference.better == place]
    if not above:
        return not recipe.preferences.filtered
    return any(wanted(record, preference, recipe, Counter()) for preference in above)


def wanted(record: QuestionSet, preference: Preference, recipe: TrainRecipe, counts: Counter[str]) -> bool:
    """Whether the recipe chooses a preference; counts those that no judge confirmed."""
    chosen = recipe.preferences
    if chosen.attributes and preference.attribute not in chosen.attributes:
        return False
    if chosen.directions and record.direction(preference) not in chosen.directions:
        return False
    if chosen.filtered and not preference.kept:
        counts["preferences_not_confirmed"] += 1
        return False
    return True
