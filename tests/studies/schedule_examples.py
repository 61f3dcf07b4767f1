"""A small chain of stages for tests of the scheduler and of the processes that they kill."""

from askwell import recipes
from askwell.labelling import hindsight
from askwell.sources import ingest
from askwell.studies.schedule import Step


def chain(root, data, *names):
    """Ingest and label for each name, in an order in which nothing finds what it reads."""
    steps = []
    for name in names:
        conversations = root / f"{name}-conversations"
        read = recipes.IngestRecipe(source="sgd", input=data / name, output=conversations)
        label = recipes.LabelRecipe(input=conversations, output=root / f"{name}-turns")
        steps += [Step("label", hindsight, label, "targets"), Step("ingest", ingest, read, "dialogues")]
    return steps
