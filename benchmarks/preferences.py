"""How much faster is training on question sets? Against TRL's DPOTrainer and RewardTrainer, with the same pairs a step.

    python benchmarks/preferences.py --data path/to/askdocs [--quick] [--device cpu] [--threads N]

Contexts and questions are those of forum threads (`ingest --source askdocs`); a question's variants are other people's
questions of like length. Six attributes: 13 candidates and 18 pairs a question; one attribute: 3 and 3. The model is an
untrained Qwen2 (28M parameters; on CUDA 0.5B in bfloat16): time does not depend on its weights. A step of DPO is what
is done for it on either side: sequences into batches, the starting policy's log-probabilities, the loss, gradients; the
optimizer's own step, alike for both, is left out. TRL's pairs come shuffled, as its trainer has them; of their
micro-batches a share is timed, evenly drawn over their widths, and stands for all by its tokens. Either side has the
fastest of several sizes of micro-batch. Both are timed in turn, figures are medians of the repeats, the speedup that of
their ratios. Relative errors compare losses and gradients in float32, and each side with float64; without --quick at
ALFA's beta of 2 as well. The last line is JSON.
"""

import copy
import functools
import json
import os
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Before torch is loaded: threads that wait, beside other jobs, may spin for a moment only, as under the command line.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import measuring
import torch
from datasets import Dataset
from measuring import seconds
from transformers import AutoModelForSequenceClassification, Qwen2Config, Qwen2ForCausalLM
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from askwell import jsonl, recipes, rendering, runs, weights
from askwell.recipes import BradleyTerry, Dpo
from askwell.records import Candidate, Preference, QuestionSet, Thread
from askwell.sources import ingest
from askwell.training import examples, loop, preferences, reward_models, scoring
from askwell.training.trees import Piece

ATTRIBUTES = 6
SMALL = {"hidden": 496, "layers": 8, "heads": 8}
"""27.8M parameters with a vocabulary of 8192."""
LARGE = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
}
"""Qwen2-0.5B."""
DPO = Dpo(beta=0.1, precompute=False)
"""TRL's beta."""
ALFA = DPO.model_copy(update={"beta": 2.0})
"""ALFA's beta, which magnifies rounding on either side: so both are compared with float64, too."""


class Timing(NamedTuple):
    """Of a step: seconds of both sides, the median of their ratios, tokens computed (padding included), pairs."""

    standard: float
    trees: float
    speedup: float
    tokens_standard: int
    tokens_trees: int
    pairs: int
    kept_standard: float
    kept_trees: float


class Effort(NamedTuple):
    """How a line of the table is measured: repeats; TRL's pairs that are timed in each; the pairs (for trees question
    sets) in a forward pass that are tried, of which each side has the fastest."""

    repeats: int
    timed: int
    micros: tuple[int, ...]


QUICK = Effort(repeats=2, timed=4, micros=(1, 4))
WHOLE = Effort(repeats=4, timed=12, micros=(1, 4, 16))


class Errors(NamedTuple):
    """Relative errors of loss and gradients in float32: of both sides, and of each against TRL's own in float64."""

    apart: float
    trl_to_float64: float
    trees_to_float64: float


class Work(NamedTuple):
    """Question sets as rows, and the same pairs in TRL's words."""

    rows: list[examples.Candidates]
    pairs: list[dict[str, list[int]]]


def main() -> None:
    options = measuring.options_of(
        __doc__ or "",
        data="folder of test_q.jsonl, as ALFA publishes it",
        quick="the headline figures alone, in under three minutes",
    )
    bench = Bench(options.data, device=options.device, quick=options.quick)
    model = bench.model()
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    errors = bench.errors_of_dpo(DPO)
    alfa = None if options.quick else bench.errors_of_dpo(ALFA)
    error = max(errors.apart, bench.error_of_reward())
    print(f"{size:.1f}M parameters, {torch.get_num_threads()} threads, {options.device}, torch {torch.__version__}\n")
    head = ("", "TRL, s", "trees, s", "times faster", "pairs/s TRL", "pairs/s trees", "tokens TRL", "tokens trees")
    show(*head, "kept TRL, MiB", "kept trees, MiB")
    show(*["---"] * 10)
    count = 4 if options.quick else 8
    six = bench.dpo("DPO, six attributes", model, bench.work(count))
    one = bench.dpo("DPO, one attribute", model, bench.work(4 if options.quick else 16, attributes=1))
    reward = bench.reward("reward model, six attributes", model, bench.work(count))
    if not options.quick:
        bench.sweeps(model)
    if options.device == "cuda":
        bench.rate(model, six)
    print()
    figures = {
        "speedup_six_attributes": round(six.speedup, 2),
        "speedup_one_attribute": round(one.speedup, 2),
        "speedup_reward_model": round(reward.speedup, 2),
        "relative_error": short(error),
        **{f"relative_error_{name}": short(value) for name, value in errors._asdict().items() if name != "apart"},
    }
    if alfa is not None:
        figures["relative_error_beta_2"] = short(alfa.apart)
        more = {name: value for name, value in alfa._asdict().items() if name != "apart"}
        figures |= {f"relative_error_beta_2_{name}": short(value) for name, value in more.items()}
    print(json.dumps(figures))


def short(value: float) -> float:
    """With two digits."""
    return float(f"{value:.2g}")


def show(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def threads_of(data: Path) -> list[Thread]:
    """The forum's questions, ingested as any others."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipes.IngestRecipe(source="askdocs", input=data, output=Path(folder) / "threads")
        runs.carry_out(ingest, recipe, "ingest")
        threads = list(jsonl.read(recipe.output / "records.jsonl", Thread))
    random.Random(0).shuffle(threads)
    return threads


class Bench:
    """Both sides of every comparison, on one tokenizer and one set of threads."""

    def __init__(self, data: Path, *, device: str, quick: bool) -> None:
        self.threads = threads_of(data)
        self.device = device
        self.effort = QUICK if quick else WHOLE
        self.policy = self.sized(**SMALL)
        self.tokenizer = self.policy.tokenizer
        sized = [(len(rendering.encode(self.tokenizer, thread.question)), thread.question) for thread in self.threads]
        self.by_length = [text for _, text in sorted(sized)]

    def sized(self, **sizes: int) -> weights.Policy:
        """An untrained model of these sizes, its tokenizer made of the forum's posts and questions."""
        texts = [text for thread in self.threads for text in (thread.context[0].content, thread.question)]
        scratch = recipes.ScratchModel(vocabulary=8192, **sizes)
        return weights.create(scratch, texts, stop_marker="<stop />", seed=0)

    def model(self) -> Any:
        """The model whose training is timed."""
        if self.device == "cpu":
            return self.policy.model
        torch.manual_seed(0)
        return Qwen2ForCausalLM(Qwen2Config(**LARGE)).to(self.device, torch.bfloat16)

    def sets(self, count: int, attributes: int, longest: int) -> Iterator[QuestionSet]:
        """Question sets of contexts up to `longest` characters: the question asked, and two variants an attribute."""
        draw = random.Random(1)
        fitting = [each for each in self.threads if sum(len(said.content) for said in each.context) <= longest]
        for thread in fitting[:count]:
            place = self.by_length.index(thread.question)
            near = [text for text in self.by_length[max(0, place - 40) : place + 41] if text != thread.question]
            variants = draw.sample(near, 2 * attributes)
            names = [str(number) for number in range(attributes)]
            made = [
                Candidate(text=variants[2 * number + side], origin=origin, attribute=name)
                for number, name in enumerate(names)
                for side, origin in enumerate(("enhanced", "corrupted"))
            ]
            pairs = [(1 + 2 * at, 2 + 2 * at, name) for at, name in enumerate(names)]
            yield QuestionSet(
                id=thread.id,
                conversation_id=thread.conversation_id,
                group=thread.group,
                split="train",
                context=thread.context,
                candidates=(Candidate(text=thread.question, origin="human"), *made),
                preferences=tuple(
                    Preference(attribute=name, better=better, worse=worse)
                    for more, less, name in pairs
                    for better, worse in ((more, less), (more, 0), (0, less))
                ),
            )

    def work(
        self, count: int, *, attributes: int = ATTRIBUTES, longest: int = 10**6, context: int | None = None
    ) -> Work:
        """Question sets; `context`: of so many tokens each, repeated or cut to it."""
        limits = {"prompt": "", "max_tokens": 4096, "counts": Counter()}
        rows = examples.of_question_sets(self.sets(count, attributes, longest), self.tokenizer, **limits)
        if context:
            rows = [row._replace(pieces=[resized(piece, context) for piece in row.pieces]) for row in rows]
        pairs = [split(row.pieces[better], row.pieces[worse]) for row in rows for better, worse in row.pairs]
        random.Random(2).shuffle(pairs)
        return Work(rows, pairs)

    def dpo(self, name: str, model: Any, work: Work, settings: Dpo = DPO) -> Timing:
        """A step of direct preference optimization."""
        layout = scoring.Layout()
        rows = work.rows if not settings.precompute else preferences.started(model, work.rows, layout)
        task = preferences.task(model, rows, layout, settings)
        trainer = self.dpo_trainer(model)

        def loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return trainer._compute_loss(trainer.model, batch, False)

        return self.timing(name, model, task, work, trainer, loss)

    def reward(self, name: str, model: Any, work: Work) -> Timing:
        """A step of a reward model's training."""
        scorer = self.scorer(model)
        task = reward_models.task(scorer, work.rows, scoring.Layout(), BradleyTerry())
        trainer = self.reward_trainer(scorer)
        step = work._replace(pairs=whole(work.pairs))
        return self.timing(name, scorer, task, step, trainer, lambda batch: trainer.compute_loss(trainer.model, batch))

    def timing(
        self, name: str, model: Any, task: loop.Task, work: Work, trainer: Any, loss: Callable[..., Any]
    ) -> Timing:
        """Both sides of a step in turn, shown as a line of the table."""

        def batch_of(pairs: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
            return {key: part.to(self.device) for key, part in trainer.data_collator(list(pairs)).items()}

        def standard(some: Sequence[Sequence[dict[str, list[int]]]]) -> None:
            trainer.model.zero_grad(set_to_none=True)
            for pairs in some:
                loss(batch_of(pairs)).backward()

        def trees(some: Sequence[Sequence[examples.Candidates]]) -> None:
            model.zero_grad(set_to_none=True)
            for rows in some:
                batch = {key: part.to(self.device) for key, part in task.collate(list(rows)).items()}
                task.loss(model, batch).total.backward()

        mine = {micro: chunks(task.rows, micro) for micro in self.effort.micros}
        theirs = {micro: chunks(work.pairs, micro) for micro in self.effort.micros}
        standard([work.pairs[:1]])
        trees([task.rows[:1]])
        ours = min(mine, key=lambda micro: seconds(lambda: trees(mine[micro])))
        few = {micro: sampled(some, -(-self.effort.timed // 2 // micro)) for micro, some in theirs.items()}
        rate = {micro: seconds(lambda some=some: standard(some)) / sum(map(len, some)) for micro, some in few.items()}
        every = theirs[min(rate, key=lambda micro: rate[micro])]
        some = sampled(every, -(-self.effort.timed // len(every[0])))
        share = sum(map(width, some)) / sum(map(width, every))
        times = [
            (seconds(lambda: standard(some)) / share, seconds(lambda: trees(mine[ours])))
            for _ in range(self.effort.repeats)
        ]
        laid = [task.collate(list(rows)) for rows in mine[ours]]
        found = Timing(
            *map(statistics.median, zip(*times, strict=True)),
            statistics.median(one / other for one, other in times),
            sum(map(width, every)),
            sum(batch["input_ids"].numel() for batch in laid),
            len(work.pairs),
            kept(lambda: loss(batch_of(max(some, key=width)))),
            max(kept(lambda batch=batch: task.loss(model, batch).total) for batch in laid),
        )
        rates = [f"{found.pairs / each:.2f}" for each in (found.standard, found.trees)]
        tokens = found.tokens_standard, found.tokens_trees, f"{found.kept_standard:.0f}", f"{found.kept_trees:.0f}"
        show(name, f"{found.standard:.2f}", f"{found.trees:.2f}", f"{found.speedup:.1f}", *rates, *tokens)
        return found

    def sweeps(self, model: Any) -> None:
        """One thing changed at a time: loss, context, candidates, model. Each measured as the headline with --quick
        is: what tells lines apart is larger than what repeats differ by."""
        self.effort = QUICK
        ahead = DPO.model_copy(update={"precompute": True})
        self.dpo("six attributes, trees with the reference precomputed", model, self.work(4), ahead)
        self.reward("reward model, one attribute", model, self.work(8, attributes=1))
        for tokens in (64, 128, 256, 512, 1024):
            self.dpo(f"contexts of {tokens} tokens", model, self.work(4, context=tokens))
        for attributes in (1, 2, 4, 6, 12):
            self.dpo(f"{1 + 2 * attributes} candidates", model, self.work(4, attributes=attributes))
        if self.device == "cpu":
            for hidden, layers in ((128, 4), (256, 6), (496, 8), (768, 12)):
                other = self.sized(hidden=hidden, layers=layers, heads=8).model
                parameters = sum(weight.numel() for weight in other.parameters()) / 1e6
                self.dpo(f"{parameters:.1f}M parameters", other, self.work(4))

    def rate(self, model: Any, timing: Timing) -> None:
        """Achieved FLOP/s of both sides against a measured product of matrices: two for each weight and token forward,
        four backward, two for the reference; attention and the head, which vary, are left out."""
        size = 8192
        one, other = (torch.randn(size, size, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        torch.matmul(one, other)
        best = min(seconds(lambda: torch.matmul(one, other)) for _ in range(20))
        body = sum(weight.numel() for weight in model.model.layers.parameters())
        achieved = [8 * body * timing.tokens_standard / timing.standard, 8 * body * timing.tokens_trees / timing.trees]
        rates = [each / 1e12 for each in (*achieved, 2 * size**3 / best)]
        print(f"\nTFLOP/s: TRL {rates[0]:.0f}, trees {rates[1]:.0f}, a product of matrices {rates[2]:.0f}")

    def dpo_trainer(self, model: Any, settings: Dpo = DPO) -> DPOTrainer:
        """TRL's trainer on copies, for it patches its models."""
        args = self.arguments(DPOConfig, beta=settings.beta)
        example = Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})
        fields: dict[str, Any] = {"args": args, "train_dataset": example, "processing_class": self.tokenizer}
        return DPOTrainer(copy.deepcopy(model), copy.deepcopy(model), **fields)

    def reward_trainer(self, scorer: Any) -> RewardTrainer:
        """The same for reward models."""
        example = Dataset.from_dict({"chosen": ["a b"], "rejected": ["a c"]})
        fields: dict[str, Any] = {"train_dataset": example, "processing_class": self.tokenizer}
        return RewardTrainer(copy.deepcopy(scorer), args=self.arguments(RewardConfig), **fields)

    def arguments(self, kind: Any, **fields: Any) -> Any:
        """What TRL's trainers are told: no activation is computed twice, no sequence cut."""
        return kind(
            tempfile.mkdtemp(),
            max_length=None,
            gradient_checkpointing=False,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
            use_cpu=self.device == "cpu",
            **fields,
        )

    def scorer(self, model: Any) -> Any:
        """A reward model with the body of a policy."""
        config = copy.deepcopy(model.config)
        config.num_labels, config.pad_token_id = 1, self.tokenizer.pad_token_id
        torch.manual_seed(0)
        scorer = AutoModelForSequenceClassification.from_config(config).to(self.device, model.dtype)
        scorer.model.load_state_dict(model.model.state_dict())
        return scorer

    def errors_of_dpo(self, settings: Dpo) -> Errors:
        """Of the pairs of two questions, away from the start."""
        model, work = copy.deepcopy(self.policy.model).to(self.device), self.work(2, attributes=2, longest=400)
        task = preferences.task(model, work.rows, scoring.Layout(), settings)
        trainer = self.dpo_trainer(model, settings)
        for each in (model, trainer.model):
            move(each)
        batch = {key: part.to(self.device) for key, part in trainer.data_collator(work.pairs).items()}
        ours = {key: part.to(self.device) for key, part in task.collate(work.rows).items()}

        def standard() -> torch.Tensor:
            return trainer._compute_loss(trainer.model, batch, False)

        trees = measuring.found_by(model, lambda: task.loss(model, ours).total / len(work.pairs))
        single = measuring.found_by(trainer.model, standard)
        for each in (trainer.model, trainer.ref_model):
            exactly(each)
        exact = measuring.found_by(trainer.model, standard)
        return Errors(*(measuring.apart(*pair) for pair in ((single, trees), (exact, single), (exact, trees))))

    def error_of_reward(self) -> float:
        """The same of a reward model."""
        scorer = self.scorer(copy.deepcopy(self.policy.model).to(self.device))
        work = self.work(2, attributes=2, longest=400)
        task = reward_models.task(scorer, work.rows, scoring.Layout(), BradleyTerry())
        trainer = self.reward_trainer(scorer)
        batch = {key: part.to(self.device) for key, part in trainer.data_collator(whole(work.pairs)).items()}
        ours = {key: part.to(self.device) for key, part in task.collate(work.rows).items()}
        return measuring.apart(
            measuring.found_by(trainer.model, lambda: trainer.compute_loss(trainer.model, batch)),
            measuring.found_by(scorer, lambda: task.loss(scorer, ours).total / len(work.pairs)),
        )


def exactly(model: Any) -> None:
    """In float64 throughout: the norms of `transformers` compute in float32, whatever they are given."""
    model.double()
    for module in model.modules():
        if type(module).__name__ == "Qwen2RMSNorm":
            module.forward = functools.partial(normed, module)


def normed(module: Any, states: torch.Tensor) -> torch.Tensor:
    """What such a norm makes of its input."""
    return module.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)


def split(better: Piece, worse: Piece) -> dict[str, list[int]]:
    """A pair in TRL's words."""
    context = better.scored[0]
    return {
        "prompt_ids": list(better.ids[:context]),
        "chosen_ids": list(better.ids[context:]),
        "rejected_ids": list(worse.ids[context:]),
    }


def whole(pairs: Sequence[dict[str, list[int]]]) -> list[dict[str, list[int]]]:
    """Pairs for TRL's reward trainer: contexts with their candidates."""
    return [{side: pair["prompt_ids"] + pair[side] for side in ("chosen_ids", "rejected_ids")} for pair in pairs]


def resized(piece: Piece, context: int) -> Piece:
    """A sequence whose context is repeated or cut, at its end, to so many tokens."""
    before, after = list(piece.ids[: piece.scored[0]]), list(piece.ids[piece.scored[0] :])
    before = (before * (1 + context // len(before)))[:context]
    return Piece(before + after, range(context, context + len(after)))


def chunks(pairs: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [pairs[at : at + size] for at in range(0, len(pairs), size)]


def width(pairs: Sequence[dict[str, list[int]]]) -> int:
    """Tokens of some pairs as TRL pads them."""
    sides = ("chosen_ids", "rejected_ids")
    return 2 * len(pairs) * max(len(pair.get("prompt_ids", ())) + len(pair[side]) for pair in pairs for side in sides)


def sampled(every: list[Sequence[Any]], count: int) -> list[Sequence[Any]]:
    """So many micro-batches, evenly over their widths."""
    ordered = sorted(every, key=width)
    count = min(count, len(ordered))
    return [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]


def kept(loss: Callable[[], torch.Tensor]) -> float:
    """MiB that a forward pass keeps for the backward one, weights aside."""
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    return sum(storages.values()) / 2**20


def move(model: Any) -> None:
    """Away from the start, where all margins are 0."""
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
            weight.add_(0.002 * noise.to(weight.device))


if __name__ == "__main__":
    main()
