"""One pydantic class per command: what a YAML recipe or a flag may say. No torch.

A recipe file names its command (`command: train`) and its fields; dotted overrides on the command line win
(`--optimizer.learning_rate 1e-5`). The docstring under a field is its only description: `askwell COMMAND --help`
and `docs/cli.md` print it. Values are validated once, here; stages trust them.
"""

from askwell.recipes.clinic import ClinicLogsRecipe, ClinicServeRecipe, ClinicThreadsRecipe
from askwell.recipes.data import ContrastRecipe, IngestRecipe, LabelRecipe, Shares
from askwell.recipes.endpoint import CLINIC, LOCAL, Caps, Endpoint, Prices
from askwell.recipes.evaluation import EvaluateQuestionsRecipe, EvaluateTurnsRecipe, System
from askwell.recipes.fields import Fold, Recipe, Section, StopMarker, bounds, essential
from askwell.recipes.interviews import (
    Abstention,
    CasesBuildRecipe,
    CasesReadRecipe,
    CompareRecipe,
    EvaluateInterviewsRecipe,
    Patient,
)
from askwell.recipes.merging import MergeRecipe
from askwell.recipes.parsing import field_names, override, read_recipe, resolve, scalar, section_of
from askwell.recipes.review import ReviewReadRecipe, ReviewSampleRecipe
from askwell.recipes.studies import AlfaRow, StudyAlfaRecipe, StudyDemoRecipe, StudyRecipe, StudyRow
from askwell.recipes.synthesis import ProposeRecipe, SynthesizeRecipe
from askwell.recipes.training import (
    BradleyTerry,
    Dpo,
    GraderRecipe,
    Lora,
    Optimizer,
    Ppo,
    Preferences,
    Reward,
    RewardModels,
    Rollouts,
    ScratchModel,
    TrainRecipe,
)

__all__ = [
    "CLINIC",
    "LOCAL",
    "Abstention",
    "AlfaRow",
    "BradleyTerry",
    "Caps",
    "CasesBuildRecipe",
    "CasesReadRecipe",
    "ClinicLogsRecipe",
    "ClinicServeRecipe",
    "ClinicThreadsRecipe",
    "CompareRecipe",
    "ContrastRecipe",
    "Dpo",
    "Endpoint",
    "EvaluateInterviewsRecipe",
    "EvaluateQuestionsRecipe",
    "EvaluateTurnsRecipe",
    "Fold",
    "GraderRecipe",
    "IngestRecipe",
    "LabelRecipe",
    "Lora",
    "MergeRecipe",
    "Optimizer",
    "Patient",
    "Ppo",
    "Preferences",
    "Prices",
    "ProposeRecipe",
    "Recipe",
    "ReviewReadRecipe",
    "ReviewSampleRecipe",
    "Reward",
    "RewardModels",
    "Rollouts",
    "ScratchModel",
    "Section",
    "Shares",
    "StopMarker",
    "StudyAlfaRecipe",
    "StudyDemoRecipe",
    "StudyRecipe",
    "StudyRow",
    "SynthesizeRecipe",
    "System",
    "TrainRecipe",
    "bounds",
    "essential",
    "field_names",
    "override",
    "read_recipe",
    "resolve",
    "scalar",
    "section_of",
]
