"""Best of n by a reward model (`askwell train --method reward`): which of a system's replies in a place is worth most?

The judge that evaluates need not be the one that chooses: what is chosen by a judge pleases that judge, mistakes
included. Imported late, as it loads torch.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from askwell import weights
from askwell.records import Candidate, QuestionSet, ReplySet
from askwell.training import examples, reward_models, scoring

AT_ONCE = 64
"""Contexts read at once."""


def best_by_reward(path: Path, sets: Sequence[ReplySet], samples: Sequence[Sequence[str]]) -> list[int | None]:
    """The place of the sample with the largest reward at each context, the first of those that tie; None where the
    samples do not fit the model."""
    loaded = weights.load_reward(str(path))
    room = int(getattr(loaded.model.config, "max_position_embeddings", weights.POSITIONS))
    found: list[int | None] = []
    for start in range(0, len(sets), AT_ONCE):
        rows: list[examples.Candidates] = []
        fits: list[bool] = []
        for row, texts in zip(sets[start : start + AT_ONCE], samples[start : start + AT_ONCE], strict=True):
            record = QuestionSet(
                id=row.id,
                conversation_id=row.id,
                group=row.group,
                split="test",
                context=row.context,
                candidates=tuple(Candidate(text=text, origin="rewritten") for text in texts),
                preferences=(),
            )
            pieces = examples.after_one_context(
                record, range(len(texts)), loaded.tokenizer, prompt="", max_tokens=room, counts=Counter()
            )
            fits.append(pieces is not None)
            if pieces is not None:
                rows.append(examples.Candidates(record, pieces, []))
        # Padded rows, not trees: any reward model will do, whatever it makes of a tree's mask.
        rewards = iter(reward_models.rewards_of(loaded.model, rows, scoring.Layout(shared=False)) if rows else ())
        for fit, texts in zip(fits, samples[start : start + AT_ONCE], strict=True):
            values = next(rewards) if fit else None
            # Equal texts may differ in the last digits of their rewards, by the rows that they stand in.
            found.append(None if values is None else texts.index(texts[values.index(max(values))]))
    return found
