"""Recipes that chain stages."""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from askwell.recipes.clinic import SkillName
from askwell.recipes.fields import Recipe

StudyRow = Literal["base", "sft", "dpo", "grpo", "cispo", "gspo", "no_content", "no_decision", "sum"]


class StudyRecipe(Recipe):
    """Learn-to-Ask's table, on real dialogues or in the simulated clinic, from raw data to report."""

    free = frozenset({"workers"})

    data: Path
    """Folder of the Schema-Guided Dialogue data, with `train` and `dev` in it; or `clinic`, the simulated clinic."""
    rows: tuple[StudyRow, ...] = ("base", "sft", "dpo", "grpo", "cispo", "gspo", "no_content", "no_decision", "sum")
    """Rows of the table."""
    budget: Literal["small", "full"] = "full"
    """What the rows are trained and evaluated on: `small` is for a look, `full` for the table."""
    seeds: int = Field(default=3, ge=1)
    """Training runs of base, sft, grpo and cispo; the other rows have one. `budget: small` has one of each."""
    workers: int = Field(default=0, ge=0)
    """Stages side by side, each in a process of its own; 0: one a core, or one alone where there is a GPU."""


AlfaRow = Literal[
    "base",
    "sft_real",
    "sft_synthetic",
    "sft_combined",
    "coarse",
    "dpo_mix",
    "dpo_fusion",
    "ppo_mix",
    "ppo_reward_fusion",
    "ppo_policy_fusion",
    "dpo_mix_unfiltered",
    "dpo_fusion_unfiltered",
    "only_E-C",
    "only_E-O",
    "only_O-C",
    "without_clarity",
    "without_focus",
    "without_answerability",
    "without_accuracy",
    "without_relevance",
    "without_avoid_bias",
    "general",
    "clinical",
    "sft",
    "learn",
    "alfa_learn",
    "learn_attributes",
]


class StudyAlfaRecipe(Recipe):
    """ALFA's table in the simulated clinic, and its union with Learn-to-Ask."""

    free = frozenset({"workers"})

    rows: tuple[AlfaRow, ...] = get_args(AlfaRow)
    """Rows of the table, beside base and the questions that people asked."""
    budget: Literal["small", "full"] = "full"
    """What the rows are trained and evaluated on: `small` is for a look, `full` for the table."""
    forum: SkillName = "novice"
    """How well people ask on the forum: what they leave to be desired is what ALFA can teach; `mixed` draws one of the
    three for each thread."""
    seeds: int = Field(default=3, ge=1)
    """Training runs of each row; `budget: small` has one."""
    workers: int = Field(default=0, ge=0)
    """Stages side by side, each in a process of its own; 0: one a core."""


class StudyDemoRecipe(Recipe):
    """The whole way in the simulated clinic, from experts' logs to a page worth looking at."""

    free = frozenset({"workers"})

    conversations: int | None = Field(default=None, ge=20)
    """Experts' conversations to learn from, where not as many as the demo was made for."""
    workers: int = Field(default=0, ge=0)
    """Stages side by side, each in a process of its own; 0: one a core."""
