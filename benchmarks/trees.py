"""How much faster is training on question trees? Against TRL's own GRPO update, and against padded turns for SFT.

    python benchmarks/trees.py --data path/to/sgd [--quick] [--device cpu] [--threads N]

Turns are those of Schema-Guided dialogues, with nested contexts. The model is untrained: time does not depend on its
weights. Both sides see the same sequences and the same loss; relative errors compare losses and gradients. The other
side may choose its micro-batch: the fastest of several counts. A repeat times both sides in turn; figures are medians.
The last line is JSON.
"""

import itertools
import json
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import measuring
import torch
from datasets import Dataset
from measuring import seconds
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from askwell import jsonl, recipes, rendering, runs, weights
from askwell.labelling import hindsight
from askwell.records import Turn
from askwell.sources import ingest
from askwell.training import examples, rollouts, scoring
from askwell.training.trees import Piece

CHECKED = 8
"""Dialogues whose losses and gradients are compared."""


class Work(NamedTuple):
    """Dialogues of turns; of each turn the ids of its context and of some replies to it."""

    dialogues: list[list[tuple[list[int], list[list[int]]]]]

    def pairs(self) -> list[tuple[list[int], list[int]]]:
        return [(context, reply) for turns in self.dialogues for context, replies in turns for reply in replies]


class Timing(NamedTuple):
    """Seconds of both sides, and the tokens that each computed, padding included."""

    standard: float
    tree: float
    tokens_standard: int
    tokens_tree: int

    @property
    def speedup(self) -> float:
        return self.standard / self.tree


def main() -> None:
    options = measuring.options_of(
        __doc__ or "",
        data="a copy of the Schema-Guided Dialogue data",
        quick="the two headline figures alone, in under a minute",
    )
    repeats, count = (2, 8) if options.quick else (5, 48)
    conversations = dialogues_of(options.data, count=100 if options.quick else 400)
    bench = Bench(conversations, device=options.device, repeats=repeats)
    model = bench.model(hidden=128)
    work = bench.work(count=count, group=5)
    error = max(bench.error_of_update(model, bench.work(count=CHECKED, group=5)), bench.error_of_sft(model))
    update = bench.update(model, work)
    sft = bench.sft(model, count=3 * count)
    print(f"{torch.get_num_threads()} threads, {options.device}, torch {torch.__version__}; medians of {repeats}\n")
    print("| | standard, s | trees, s | times faster | tokens standard | tokens trees |\n|---|---|---|---|---|---|")
    show("GRPO update, 5 rollouts", update)
    show("SFT, a pass over dialogues", sft)
    if not options.quick:
        show(
            "the same, padded too with the head at responses alone",
            bench.sft(model, count=3 * count, head_everywhere=False),
        )
        for name, timing in bench.sweeps(count=count):
            show(name, timing)
    print()
    print(
        json.dumps(
            {
                "speedup": round(update.speedup, 2),
                "speedup_sft": round(sft.speedup, 2),
                "relative_error": float(f"{error:.2g}"),
                "tokens_standard": update.tokens_standard,
                "tokens_tree": update.tokens_tree,
                "threads": torch.get_num_threads(),
                "device": options.device,
            }
        )
    )


def show(name: str, timing: Timing) -> None:
    cells = [f"{timing.standard:.2f}", f"{timing.tree:.2f}", f"{timing.speedup:.1f}"]
    print(f"| {name} | {' | '.join(cells)} | {timing.tokens_standard} | {timing.tokens_tree} |", flush=True)


def dialogues_of(data: Path, *, count: int) -> list[list[Turn]]:
    """The turns of `count` training dialogues, ingested and labelled as any others."""
    with tempfile.TemporaryDirectory() as folder:
        conversations, turns = Path(folder) / "conversations", Path(folder) / "turns"
        ingested = recipes.IngestRecipe(source="sgd", input=data / "train", output=conversations, limit=2 * count)
        runs.carry_out(ingest, ingested, "ingest")
        runs.carry_out(hindsight, recipes.LabelRecipe(input=conversations, output=turns), "label")
        rows = list(jsonl.read(turns / "records.jsonl", Turn))
    groups = [list(group) for _, group in itertools.groupby(rows, key=lambda turn: turn.conversation_id)]
    random.Random(0).shuffle(groups)
    return groups[:count]


class Bench:
    """Both sides of every comparison, on one tokenizer and one set of dialogues."""

    def __init__(self, conversations: list[list[Turn]], *, device: str, repeats: int) -> None:
        self.conversations = conversations
        self.texts = [message.content for turns in conversations for message in turns[-1].context]
        self.tokenizer = self.policy(hidden=8).tokenizer
        self.device = device
        self.repeats = repeats

    def policy(self, *, hidden: int) -> weights.Policy:
        """An untrained Qwen2 of four layers, and the dialogues' tokenizer."""
        sizes = recipes.ScratchModel(vocabulary=2048, hidden=hidden, layers=4, heads=4)
        return weights.create(sizes, self.texts, stop_marker="<stop />", seed=0)

    def model(self, *, hidden: int) -> Any:
        """The model of such a policy, on the device."""
        return self.policy(hidden=hidden).model.to(self.device)

    def work(self, *, count: int, group: int, turns: int = 100, longest: int = 10_000) -> Work:
        """Dialogues with `group` replies to each of at most `turns` turns: the expert's, and those at other turns."""
        replies = [
            rendering.render(self.tokenizer, turn.context, turn.expert_reply, prompt="")[1]
            for conversation in self.conversations[:100]
            for turn in conversation
        ]
        draw = random.Random(0)
        found = []
        for conversation in self.conversations:
            contexts = [rendering.render(self.tokenizer, turn.context, None, prompt="")[0] for turn in conversation]
            chosen = [context for context in contexts if len(context) <= longest][:turns]
            if chosen:
                found.append([(context, [draw.choice(replies) for _ in range(group)]) for context in chosen])
        return Work(found[:count])

    def update(self, model: Any, work: Work) -> Timing:
        """One GRPO policy update over all rollouts: forward, loss, backward."""
        group = len(work.dialogues[0][0][1])
        trl, ours = self.trainers(model, group)
        shuffled = work.pairs()
        groups = [shuffled[at : at + group] for at in range(0, len(shuffled), group)]
        random.Random(1).shuffle(groups)
        standard = [pair for rollouts_ in groups for pair in rollouts_]
        batches = {
            micro: [
                grpo_inputs(standard[at : at + micro * group], self.device)
                for at in range(0, len(standard), micro * group)
            ]
            for micro in (2, 8)
        }
        tree = [grpo_inputs(pairs, self.device) for pairs in tree_batches(work)]
        micro = min(batches, key=lambda micro: seconds(lambda: self.pass_over(trl, model, batches[micro])))
        measured = self.both(
            lambda: self.pass_over(trl, model, batches[micro]), lambda: self.pass_over(ours, model, tree)
        )
        counted = sum(batch["prompt_ids"].numel() + batch["completion_ids"].numel() for batch in batches[micro])
        laid = sum(scoring.lay_out(pieces, scoring.Layout()).input_ids.numel() for pieces in tree_pieces(work))
        return Timing(*measured, counted, laid)

    def pass_over(self, trainer: Any, model: Any, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        """Every micro-batch forward and backward, as one optimizer step with gradients accumulated does."""
        model.zero_grad(set_to_none=True)
        for batch in batches:
            trainer._compute_loss(model, batch).backward()

    def trainers(self, model: Any, group: int) -> tuple[GRPOTrainer, rollouts.TreeTrainer]:
        """TRL's trainer and ours, on the same model."""
        folder = tempfile.mkdtemp()
        common: dict[str, Any] = {
            "model": model,
            "reward_funcs": lambda prompts, **_: [0.0] * len(prompts),
            "train_dataset": Dataset.from_dict({"prompt": ["a"] * 2 * group}),
            "processing_class": self.tokenizer,
        }
        settings = {"output_dir": folder, "num_generations": group, "per_device_train_batch_size": group}
        args = GRPOConfig(
            **settings,
            loss_type="grpo",
            report_to="none",
            use_cpu=self.device == "cpu",
            bf16=False,
            gradient_checkpointing=False,
        )
        recipe = recipes.TrainRecipe(
            input=Path(), output=Path(folder), rollouts=recipes.Rollouts(group=group), method="grpo"
        )
        ours = rollouts.TreeTrainer([], recipe, scoring.Layout(), [0] * 10, args=args, **common)
        trl = GRPOTrainer(args=args, **common)
        for trainer in (trl, ours):
            # What `train` would set.
            trainer.current_gradient_accumulation_steps = 1
        return trl, ours

    def sft(self, model: Any, *, count: int, head_everywhere: bool = True) -> Timing:
        """A pass over dialogues against one over their turns, padded, in shuffled batches, with the model's own loss.

        Without `head_everywhere` the other side too computes logits at responses alone.
        """
        rows = self.rows(count)
        turns = [piece for row in rows for piece in row]
        random.Random(2).shuffle(turns)
        padded = scoring.Layout(shared=False)
        standard = {
            micro: [scoring.lay_out(turns[at : at + micro], padded) for at in range(0, len(turns), micro)]
            for micro in (8, 32)
        }
        trees = [
            scoring.lay_out([piece for row in rows[at : at + 16] for piece in row], scoring.Layout())
            for at in range(0, len(rows), 16)
        ]
        loss = own_loss if head_everywhere else likelihood
        micro = min(standard, key=lambda micro: seconds(lambda: pass_over(model, standard[micro], loss)))
        measured = self.both(
            lambda: pass_over(model, standard[micro], loss), lambda: pass_over(model, trees, likelihood)
        )
        computed = [sum(batch.input_ids.numel() for batch in side) for side in (standard[micro], trees)]
        return Timing(*measured, *computed)

    def rows(self, count: int) -> list[examples.Row]:
        """The training rows of `count` dialogues."""
        turns = [turn for conversation in self.conversations[:count] for turn in conversation]
        fields: dict[str, Any] = {"stop_marker": "<stop />", "prompt": "", "max_tokens": 4096, "counts": Counter()}
        return examples.of_turns(turns, self.tokenizer, **fields)

    def both(self, standard: Callable[[], None], tree: Callable[[], None]) -> tuple[float, float]:
        """Median seconds of each, timed in turn."""
        standard(), tree()
        times = [(seconds(standard), seconds(tree)) for _ in range(self.repeats)]
        return statistics.median(one for one, _ in times), statistics.median(other for _, other in times)

    def sweeps(self, *, count: int) -> Iterator[tuple[str, Timing]]:
        """One thing changed at a time."""
        model = self.model(hidden=128)
        for group in (2, 5, 8, 16):
            yield f"GRPO, {group} rollouts", self.update(model, self.work(count=count // 2, group=group))
        for turns in (1, 2, 4, 8):
            yield (
                f"GRPO, at most {turns} turns a dialogue",
                self.update(model, self.work(count=count, group=5, turns=turns)),
            )
        for longest in (64, 128, 256):
            work = self.work(count=count, group=5, longest=longest)
            yield f"GRPO, contexts up to {longest} tokens", self.update(model, work)
        for hidden in (64, 256):
            wide = self.model(hidden=hidden)
            yield f"GRPO, {hidden} wide", self.update(wide, self.work(count=count // 2, group=5))
            yield f"SFT, {hidden} wide", self.sft(wide, count=count)

    def error_of_update(self, model: Any, work: Work) -> float:
        """Relative error of loss and gradients: TRL's update on padded rollouts against ours on their tree."""
        trl, ours = self.trainers(model, len(work.dialogues[0][0][1]))
        batch = grpo_inputs(work.pairs(), self.device)
        return compared(model, lambda: trl._compute_loss(model, batch), lambda: ours._compute_loss(model, batch))

    def error_of_sft(self, model: Any) -> float:
        """The same for a pass over dialogues."""
        pieces = [piece for row in self.rows(CHECKED) for piece in row]
        padded, trees = (scoring.lay_out(pieces, scoring.Layout(shared=shared)) for shared in (False, True))
        return compared(model, lambda: own_loss(model, padded), lambda: likelihood(model, trees))


def tree_batches(work: Work) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Rollouts of sixteen dialogues at a time, those of a dialogue together."""
    for at in range(0, len(work.dialogues), 16):
        yield Work(work.dialogues[at : at + 16]).pairs()


def tree_pieces(work: Work) -> Iterator[list[Piece]]:
    for pairs in tree_batches(work):
        yield [Piece(before + after, range(len(before), len(before) + len(after))) for before, after in pairs]


def grpo_inputs(pairs: Sequence[tuple[list[int], list[int]]], device: str) -> dict[str, torch.Tensor]:
    """What TRL's loss takes: contexts padded on the left, replies on the right, an advantage each."""
    contexts, replies = [context for context, _ in pairs], [reply for _, reply in pairs]
    advantages = torch.randn(len(pairs), generator=torch.Generator().manual_seed(len(pairs)))
    found = {
        "prompt_ids": weights.padded(contexts, fill=0, left=True),
        "prompt_mask": weights.padded([[1] * len(ids) for ids in contexts], fill=0, left=True),
        "completion_ids": weights.padded(replies, fill=0),
        "completion_mask": weights.padded([[1] * len(ids) for ids in replies], fill=0),
        "advantages": advantages,
        "num_items_in_batch": torch.tensor(float(sum(map(len, replies)))),
    }
    return {name: tensor.to(device) for name, tensor in found.items()}


def likelihood(model: Any, batch: scoring.Batch) -> torch.Tensor:
    """Mean negative log-likelihood of the responses."""
    return -scoring.score(model, batch).logprobs.mean()


def own_loss(model: Any, batch: scoring.Batch) -> torch.Tensor:
    """The same as `transformers` computes it: a mask for the padding, labels, logits everywhere."""
    labels = torch.full_like(batch.input_ids, -100)
    labels.view(-1)[batch.at + 1] = batch.targets
    # Positions count up from 0 and are 0 at padding.
    mask = (batch.position_ids > 0) | (torch.arange(labels.shape[1]) == 0)
    return model(input_ids=batch.input_ids, attention_mask=mask.long(), labels=labels).loss


def pass_over(model: Any, batches: Sequence[scoring.Batch], loss: Callable[..., torch.Tensor]) -> None:
    """Every micro-batch forward and backward."""
    model.zero_grad(set_to_none=True)
    for batch in batches:
        loss(model, batch).backward()


def compared(model: Any, standard: Callable[[], torch.Tensor], tree: Callable[[], torch.Tensor]) -> float:
    """The larger relative error of loss and gradients of two ways to the same loss."""
    return measuring.apart(measuring.found_by(model, standard), measuring.found_by(model, tree))


if __name__ == "__main__":
    main()
