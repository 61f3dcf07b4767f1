"""The rows of Learn-to-Ask's table, and which of them are trained with several seeds."""

from typing import Any, Final

from askwell.recipes import StudyRecipe

ROWS = {
    "base": "base: a language model of whole dialogues",
    "sft": "SFT: the expert's next utterance or the stop marker",
    "dpo": "DPO: the expert's choice against an utterance irrelevant to the dialogue, from SFT",
    "grpo": "GRPO: Learn-to-Ask's reward R_s (1 + 2 R_a) + Omega, from SFT",
    "cispo": "CISPO: the same reward",
    "gspo": "GSPO: the same reward",
    "no_content": "no R_a: GRPO with 3 R_s + Omega",
    "no_decision": "no R_s: GRPO with 2 R_a + Omega, on turns where the expert asks",
    "sum": "sum: GRPO with R_s + R_a + Omega",
}
MODES: Final[dict[str, Any]] = {"no_content": "without_content", "no_decision": "without_decision", "sum": "sum"}
ROLLED = ("grpo", "cispo", "gspo", *MODES)
SEVERAL = ("base", "sft", "grpo", "cispo")
"""Rows that are trained with every seed."""
DECODING = {"sampled": 1.0, "greedy": 0.0}


def method_of(row: str) -> Any:
    """The training method of a row from rollouts."""
    return "grpo" if row in MODES else row


def seeds_of(recipe: StudyRecipe, row: str) -> list[int]:
    """The seeds of a row."""
    several = row in SEVERAL and recipe.budget != "small"
    return [recipe.seed + number for number in range(recipe.seeds if several else 1)]
