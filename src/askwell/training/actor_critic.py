"""Rollouts to optimizer steps by PPO (Schulman et al., 2017): an actor, and a critic that reads the actor's states.

At each draw the policy replies at some contexts. What it gave each of its tokens, what the critic expected and what
the starting policy would have given are written down; every token pays for its divergence from the starting policy, the
last one earns what the reply is worth, and advantages follow. Then come `updates` optimizer steps on parts of the
draw, `iterations` times, on question trees: the replies of a group share their context.

What happens at a draw depends on the weights, the seed and the places in the order of contexts alone, and checkpoints
are made between draws, with the critic and the coefficient of the divergence in them: a run that was cut goes on to the
same curve.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from askwell import runs, weights
from askwell.decoding.replies import sample
from askwell.generation import ends_of
from askwell.recipes import TrainRecipe
from askwell.runs import Run
from askwell.training import advantages as ppo
from askwell.training import draws, loop, scoring
from askwell.training.draws import Judge
from askwell.training.trees import Piece

CRITIC = "critic.safetensors"
CLIP = 0.2
"""How far a ratio may leave 1, as in PPO's paper."""


class Critic(torch.nn.Module):
    """What is still to come, from the state before a token; and the divergence's coefficient, saved with it.

    It begins by expecting nothing: standardised rewards are 0 in the mean.
    """

    coefficient: torch.Tensor

    def __init__(self, width: int, coefficient: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(width))
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("coefficient", torch.tensor(coefficient, dtype=torch.float64))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Values (S,) of states (S, width)."""
        return states.float() @ self.weight + self.bias


class Reply(NamedTuple):
    """A reply as it was drawn: its sequence, and for each of its T tokens (T,) what PPO goes by."""

    piece: Piece
    logprobs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


class ActorCritic(loop.OrderedTrainer):
    """A Trainer whose rows are places in the order of contexts, at which it draws replies as it comes to them."""

    def __init__(
        self,
        policy: weights.Policy,
        critic: Critic,
        reference: Any,
        judge: Judge,
        contexts: Sequence[tuple[str, list[int]]],
        *,
        recipe: TrainRecipe,
        layout: scoring.Layout,
        loads: list[int],
        **kwargs: Any,
    ) -> None:
        """`contexts`: ids and tokens of those of all draws; `reference`: the starting policy, None for the policy's
        adapters off."""
        super().__init__(model=policy.model, **kwargs)
        self.critic = critic
        self.reference = reference
        self.judge = judge
        self.contexts = contexts
        self.recipe = recipe
        self.layout = layout
        self.loads = loads
        self.tokenizer = policy.tokenizer
        self.ends = ends_of(policy.model, policy.tokenizer)
        self.regulated = recipe.ppo.kl > 0
        self.number = -1
        self.replies: dict[int, list[Reply]] = {}
        self.items = torch.zeros(0)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the tokens of the step, however many processes and micro-batches share it."""
        settings, rule = self.recipe.rollouts, self.recipe.ppo
        step = self.state.global_step
        if self.number != step // draws.per_draw(self.recipe):
            self.number = step // draws.per_draw(self.recipe)
            self.draw()
        replies = [reply for place in inputs["places"].tolist() for reply in self.replies[place]]
        pieces = [reply.piece for reply in replies]
        batch = scoring.lay_out(pieces, self.layout)
        found = scoring.score(model, batch, temperature=settings.temperature, entropies=True, hidden=True)
        assert found.hidden is not None and found.entropies is not None
        old, before, gains, returns = (
            torch.cat([torch.zeros(0), *column]).to(found.logprobs.device)
            for column in (list(zip(*(reply[1:] for reply in replies), strict=True)) or [()] * 4)
        )
        low, high = settings.clip_low or CLIP, settings.clip_high or CLIP
        actor = ppo.policy_loss(found.logprobs, old, gains, low=low, high=high)
        critic = ppo.value_loss(self.critic(found.hidden), before, returns, clip=rule.value_clip)
        moved = found.logprobs.detach() - old
        items = self.items[step % settings.updates]
        columns = {
            "policy_loss": actor.losses,
            "value_loss": critic.losses,
            "clipped": actor.clipped,
            "value_clipped": critic.clipped,
            "entropy": found.entropies,
            # Divergence from the policy that drew, exp(x) - 1 - x, which is never negative (Schulman, 2020).
            "moved": moved.exp() - 1 - moved,
        }
        sums = [float(column.detach().sum()) for column in columns.values()]
        size, *shares = loop.summed(self, [self.layout.size(pieces), *sums])
        self.loads[step] += int(size)
        for name, share in zip(columns, shares, strict=True):
            self.journal.note(name, share / items)
        total = actor.losses.sum() + rule.value_weight * critic.losses.sum()
        return total * (self.accelerator.num_processes / items)

    def draw(self) -> None:
        """Reply at the contexts of this draw, those of this process's micro-batches, and find what that was worth."""
        group, rule = self.recipe.rollouts.group, self.recipe.ppo
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        micro = self.args.per_device_train_batch_size
        parts = draws.places(self.number, self.recipe, micro=micro, rank=rank, processes=processes)
        places = [place for part in parts for place in part]
        pieces, ended = self.drawn(places)
        owners = [place for place in places for _ in range(group)]
        said = self.tokenizer.batch_decode([spoken(piece) for piece in pieces], skip_special_tokens=True)
        worth = self.judge.worth([self.contexts[place][0] for place in owners], [text.strip() for text in said], ended)
        scored = [at for at, reward in enumerate(worth.rewards) if reward is not None]
        replies, divergences = self.valued([pieces[at] for at in scored], [worth.rewards[at] or 0.0 for at in scored])
        self.replies = {place: [] for place in places}
        for at, reply in zip(scored, replies, strict=True):
            self.replies[owners[at]].append(reply)
        counts = [sum(len(reply.values) for place in part for reply in self.replies[place]) for part in parts]
        self.items = loop.summed(self, counts).clamp(min=1)
        columns: dict[str, Sequence[float | None]] = {
            "reward": worth.rewards,
            **worth.figures,
            "unscored": [float(reward is None) for reward in worth.rewards],
            "length": [float(len(piece.scored)) for piece in pieces],
            "cut": [float(not end) for end in ended],
            "kl": divergences,
        }
        means = {name: self.mean(column) for name, column in columns.items()}
        if self.regulated:
            self.journal.note("kl_coefficient", self.critic.coefficient)
        else:
            del means["kl"]
        for name, value in means.items():
            if value is not None:
                self.journal.note(name, torch.tensor(value))
        if rule.kl_target is not None and (measured := means["kl"]) is not None:
            now = float(self.critic.coefficient)
            self.critic.coefficient.fill_(ppo.next_coefficient(now, measured, target=rule.kl_target, rate=rule.kl_rate))

    def drawn(self, places: Sequence[int]) -> tuple[list[Piece], list[bool]]:
        """A group of replies at each of these places, and which of them came to an end."""
        settings = self.recipe.rollouts
        contexts = [self.contexts[place][1] for place in places]
        with self.accelerator.autocast():
            said = sample(
                scoring.inner(self.model),
                contexts,
                group=settings.group,
                temperature=settings.temperature,
                top_p=1.0,
                max_new_tokens=settings.max_new_tokens,
                ends=self.ends,
                pad=int(self.tokenizer.pad_token_id),  # pyright: ignore[reportArgumentType]
                seed=[draws.seed_of(self.recipe, place) for place in places],
            )
        pieces = [
            Piece(context + reply, range(len(context), len(context) + len(reply)))
            for context, replies in zip(contexts, said, strict=True)
            for reply in replies
        ]
        return pieces, [piece.ids[-1] in self.ends for piece in pieces]

    def valued(self, pieces: Sequence[Piece], scores: Sequence[float]) -> tuple[list[Reply], list[float]]:
        """These sequences with all that PPO goes by, and the divergence of each from the starting policy, in nats."""
        rule = self.recipe.ppo
        logprobs, values = self.measured(scoring.inner(self.model), pieces)
        divergence = torch.zeros_like(logprobs)
        if self.regulated:
            divergence = logprobs - self.referred(pieces)
        lengths = torch.tensor([len(piece.scored) for piece in pieces], dtype=torch.long)
        mask = torch.arange(int(lengths.max()) if len(pieces) else 0) < lengths[:, None]
        divergence, before = (spread(flat, mask) for flat in (divergence, values))
        rewards = ppo.token_rewards(torch.tensor(scores), divergence, mask, kl=float(self.critic.coefficient))
        gains = ppo.advantages(rewards, before, mask, discount=rule.discount, trace=rule.trace)[mask]
        columns = [
            column.split(lengths.tolist()) for column in (logprobs, values, self.whitened(gains), values + gains)
        ]
        return [Reply(*each) for each in zip(pieces, *columns, strict=True)], divergence.sum(1).tolist()

    def measured(self, model: Any, pieces: Sequence[Piece]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and values of all tokens of these sequences, (S,) each, as they are now."""
        at_once = self.args.per_device_train_batch_size * self.recipe.rollouts.group
        logprobs, values = [torch.zeros(0)], [torch.zeros(0)]
        was_training = model.training
        model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            for at in range(0, len(pieces), at_once):
                batch = scoring.lay_out(pieces[at : at + at_once], self.layout)
                found = scoring.score(model, batch, temperature=self.recipe.rollouts.temperature, hidden=True)
                assert found.hidden is not None
                logprobs.append(found.logprobs.float().cpu())
                values.append(self.critic(found.hidden).cpu())
        model.train(was_training)
        return torch.cat(logprobs), torch.cat(values)

    def referred(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """The same log-probabilities under the starting policy, (S,)."""
        model = scoring.inner(self.model) if self.reference is None else self.reference
        with model.disable_adapter() if self.reference is None else nullcontext():
            return self.measured(model, pieces)[0]

    def whitened(self, gains: torch.Tensor) -> torch.Tensor:
        """Advantages (S,) less their mean, over their deviation, both over the draw of all processes."""
        exact = gains.double()
        count, total, squares = loop.summed(self, [len(exact), float(exact.sum()), float((exact**2).sum())]).tolist()
        mean = total / max(count, 1)
        variance = squares / max(count, 1) - mean**2
        return ((exact - mean) / (max(variance, 0.0) + 1e-8) ** 0.5).float()

    def mean(self, column: Sequence[float | None]) -> float | None:
        """The mean of what is scored, over all processes; None where nothing is."""
        scored = [value for value in column if value is not None]
        total, count = loop.summed(self, [sum(scored), len(scored)]).tolist()
        return total / count if count else None

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As ever, but the critic learns at a rate of its own: the policy's may be far too small for it."""
        optimizer = super().create_optimizer(*args, **kwargs)
        own = set(map(id, self.critic.parameters()))
        for group in optimizer.param_groups:
            group["params"] = [weight for weight in group["params"] if id(weight) not in own]
        rate = self.recipe.ppo.value_rate
        optimizer.add_param_group({"params": list(self.critic.parameters()), "lr": rate, "weight_decay": 0.0})
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As ever, and the critic, which is no part of adapters."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            save_file(dict(self.critic.state_dict()), Path(output_dir or str(self.args.output_dir)) / CRITIC)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.critic.load_state_dict(load_file(Path(resume_from_checkpoint) / CRITIC))


def spoken(piece: Piece) -> list[int]:
    """The reply's own tokens."""
    return [piece.ids[place] for place in piece.scored]


def spread(flat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One value after another (S,) to the places of a mask (B, T), 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=flat.dtype).masked_scatter(mask, flat)


def train(
    policy: weights.Policy,
    reference: Any,
    judge: Judge,
    contexts: Sequence[tuple[str, list[int]]],
    *,
    recipe: TrainRecipe,
    run: Run,
    layout: scoring.Layout,
    steps: int,
) -> dict[str, object]:
    """Train `policy` in place on replies at `contexts`, in their order, for `steps` optimizer steps."""
    width = policy.model.get_output_embeddings().in_features
    critic = Critic(width, recipe.ppo.kl)
    # A part of the model, so that what wraps the model finds its gradients too.
    policy.model.add_module("critic", critic)
    loads = [0] * (steps + 1)
    settings = recipe.rollouts
    share = settings.turns // settings.updates
    rows = range(len(contexts))
    seen = [
        draw * settings.turns + place
        for draw in range(steps // draws.per_draw(recipe))
        for _ in range(settings.iterations)
        for place in range(settings.turns)
    ]

    def collate(places: list[int]) -> dict[str, torch.Tensor]:
        return {"places": torch.tensor(places), "labels": loop.items(len(places))}

    trainer = ActorCritic(
        policy,
        critic,
        reference,
        judge,
        contexts,
        recipe=recipe,
        layout=layout,
        loads=loads,
        collate=collate,
        journal=loop.Journal(run, loads, per_epoch=max(1, round(steps / max(recipe.epochs, 1e-9)))),
        args=arguments(recipe, run, share=share, steps=steps),
        train_dataset=loop.Scheduled(rows, seen),
    )
    if reference is not None:
        reference.eval().requires_grad_(False).to(trainer.accelerator.device)
    loop.carry_out(trainer, policy, run)
    described = loop.described(trainer, policy)
    del policy.model.critic
    return {
        "steps": steps,
        "rollouts": len(contexts) * settings.group,
        "tokens_seen": loop.tokens_seen(run),
        **described,
    }


def arguments(recipe: TrainRecipe, run: Run, *, share: int, steps: int) -> TrainingArguments:
    """The recipe in the Trainer's words; checkpoints are made between draws."""
    micro = draws.micro_batch(recipe, processes=runs.processes())
    common = loop.settings(recipe, run, steps=steps)
    draw = draws.per_draw(recipe)
    return TrainingArguments(
        **{**common, "save_steps": -(-recipe.checkpoint_every // draw) * draw},
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // (micro * runs.processes()),
    )
