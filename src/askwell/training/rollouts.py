"""Groups of rollouts to optimizer steps: TRL's GRPOTrainer with its generation and its forward pass on shared contexts.

What is drawn at a place in the order of contexts is a pure function of the weights, the seed and the place, and
checkpoints are made between draws alone: a run that was cut goes on to the same curve, and several processes have the
curve of one.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from askwell import runs, weights
from askwell.decoding.replies import sample
from askwell.generation import ends_of
from askwell.recipes import TrainRecipe
from askwell.runs import Run
from askwell.training import draws, loop, scoring
from askwell.training.draws import Judge
from askwell.training.trees import Piece

LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", "importance_sampling_level": "token", "epsilon": 0.2, "epsilon_high": 0.2},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    "cispo": {"loss_type": "cispo", "importance_sampling_level": "token", "epsilon": 0.2, "epsilon_high": 5.0},
    "rloo": {"loss_type": "luspo", "importance_sampling_level": "sequence", "epsilon": 0.2, "epsilon_high": 0.2},
}
"""The methods in TRL's words, with the clipping that their papers propose."""
WATCHED = {
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "groups_alike",
    "entropy": "entropy",
    "kl": "kl",
    "completions/mean_length": "length",
    "completions/clipped_ratio": "cut",
    "unscored": "unscored",
}
"""What a line of metrics.jsonl takes from the trainer, and under which name; it takes the judge's figures, too."""


class TreeTrainer(GRPOTrainer):
    """GRPOTrainer whose prompts are places in the order of contexts, and which computes each context once."""

    args: GRPOConfig
    scored: torch.Tensor
    """Of the last rollouts, which have a reward, (B,)."""

    def __init__(
        self,
        contexts: Sequence[tuple[str, list[int]]],
        recipe: TrainRecipe,
        layout: scoring.Layout,
        loads: list[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(rollout_func=self.drawn, **kwargs)
        self.remove_callback(PrinterCallback)
        if recipe.lora is not None:
            # Fresh adapters, switched off, are the starting policy, of which the trainer made a copy.
            forget_reference(self.model)
        self.contexts = contexts
        self.recipe = recipe
        self.layout = layout
        self.loads = loads
        tokenizer = cast(Any, self.processing_class)
        self.pad = int(tokenizer.pad_token_id)
        self.ends = ends_of(self.model, tokenizer)
        self.slices = int(self.args.steps_per_generation or 1)

    def drawn(self, prompts: list[str], _trainer: Any) -> dict[str, Any]:
        """Rollouts at these places, each of which stands `group` times in a row."""
        settings = self.recipe.rollouts
        places = [int(place) for place in prompts]
        contexts = [self.contexts[place][1] for place in places]
        with unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model, self.accelerator.autocast():
            said = sample(
                model,
                contexts[:: settings.group],
                group=settings.group,
                temperature=settings.temperature,
                top_p=1.0,
                max_new_tokens=settings.max_new_tokens,
                ends=self.ends,
                pad=self.pad,
                seed=[draws.seed_of(self.recipe, place) for place in places[:: settings.group]],
            )
        return {
            "prompt_ids": contexts,
            "completion_ids": [reply for group in said for reply in group],
            "logprobs": None,
        }

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As in TRL, but without its shuffle, which would tear the rollouts of a context apart."""
        if self._step % (self.slices * self.num_iterations) == 0 or self._buffered_inputs is None:
            made = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(made, self.slices)
        return self._buffered_inputs[self._step % self.slices]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        made = super()._generate_and_score_completions(inputs)
        if self.recipe.method == "rloo":
            # r_i less the mean of the n - 1 others is n / (n - 1) times r_i less the mean of all.
            group = self.recipe.rollouts.group
            scored = self.scored.view(-1, group).sum(1, keepdim=True)
            factor = (scored / (scored - 1).clamp(min=1)).expand(-1, group).flatten()
            made["advantages"] = made["advantages"] * factor
        return made

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Log-probabilities and entropies of the completions, (B, logits_to_keep), 0 at padding."""
        mask = attention_mask.bool()
        replies = mask[:, -logits_to_keep:]
        pieces = []
        for ids, present, said in zip(input_ids, mask, replies.sum(1).tolist(), strict=True):
            sequence = ids[present].tolist()
            pieces.append(Piece(sequence, range(len(sequence) - said, len(sequence))))
        batch = scoring.lay_out(pieces, self.layout)
        if torch.is_grad_enabled():
            self.loads[self.state.global_step] += int(loop.summed(self, [self.layout.size(pieces)])[0])
        with self.accelerator.autocast():
            scores = scoring.score(model, batch, temperature=self.temperature, entropies=compute_entropy)
        found = [
            None if values is None else torch.zeros(replies.shape, device=mask.device).masked_scatter(replies, values)
            for values in scores
        ]
        assert found[0] is not None
        return found[0], found[1], None


def train(
    policy: weights.Policy,
    contexts: Sequence[tuple[str, list[int]]],
    judge: Judge,
    *,
    recipe: TrainRecipe,
    run: Run,
    layout: scoring.Layout,
    steps: int,
) -> dict[str, object]:
    """Train `policy` in place on rollouts at these contexts, ids and tokens, for `steps` optimizer steps."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    # It would print every rollout that cannot be scored; metrics.jsonl has their share.
    logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)
    loads = [0] * (steps + 1)
    per_epoch = max(1, round(steps / max(recipe.epochs, 1e-9)))
    watched = dict(WATCHED)
    journal = loop.Journal(run, loads, per_epoch=per_epoch, watched=watched)
    args = arguments(recipe, run, steps=steps)
    trainer: TreeTrainer

    def worth(
        prompts: list[str], completions: list[str], completion_ids: list[list[int]], log_metric: Any, **_: Any
    ) -> list[float | None]:
        ended = [reply[-1] in trainer.ends for reply in completion_ids]
        ids = [contexts[int(place)][0] for place in prompts]
        rewards, figures = judge.worth(ids, [text.strip() for text in completions], ended)
        trainer.scored = torch.tensor([reward is not None for reward in rewards], device=trainer.accelerator.device)
        for name, column in {**figures, "unscored": [float(reward is None) for reward in rewards]}.items():
            watched[name] = name
            for value in column:
                if value is not None:
                    # The trainer takes their mean over all processes.
                    log_metric(name, value)
        return rewards

    with weights.quiet():
        trainer = TreeTrainer(
            contexts,
            recipe,
            layout,
            loads,
            model=policy.model,
            reward_funcs=worth,
            args=args,
            train_dataset=Dataset.from_dict({"prompt": list(map(str, shared_out(recipe, args, steps=steps)))}),
            processing_class=policy.tokenizer,
            callbacks=[journal],
        )
    loop.carry_out(trainer, policy, run)
    forget_reference(policy.model)
    described = loop.described(trainer, policy)
    drawn = len(contexts) * recipe.rollouts.group
    return {"steps": steps, "rollouts": drawn, "tokens_seen": loop.tokens_seen(run), **described}


def forget_reference(model: Any) -> None:
    """Take out the copy that the trainer makes of a model's adapters, where it made one."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")


def shared_out(recipe: TrainRecipe, args: GRPOConfig, *, steps: int) -> list[int]:
    """The places in the order of contexts as the trainer takes them: of each draw a stretch for each process."""
    micro = args.per_device_train_batch_size // recipe.rollouts.group
    processes = runs.processes()
    return [
        place
        for number in range(steps // draws.per_draw(recipe))
        for rank in range(processes)
        for part in draws.places(number, recipe, micro=micro, rank=rank, processes=processes)
        for place in part
    ]


def arguments(recipe: TrainRecipe, run: Run, *, steps: int) -> GRPOConfig:
    """The recipe in TRL's words."""
    settings = recipe.rollouts
    share = settings.turns // settings.updates
    micro = draws.micro_batch(recipe, processes=runs.processes())
    accumulated = share // (micro * runs.processes())
    draw = draws.per_draw(recipe)
    common = loop.settings(recipe, run, steps=steps)
    clipping = {"epsilon": settings.clip_low, "epsilon_high": settings.clip_high}
    chosen = {**LOSSES[recipe.method], **{name: value for name, value in clipping.items() if value is not None}}
    return GRPOConfig(
        **{**common, "save_steps": -(-recipe.checkpoint_every // draw) * draw},
        **chosen,
        per_device_train_batch_size=micro * settings.group,
        gradient_accumulation_steps=accumulated,
        steps_per_generation=settings.updates * accumulated,
        num_iterations=settings.iterations,
        num_generations=settings.group,
        temperature=settings.temperature,
        max_completion_length=settings.max_new_tokens,
        scale_rewards=settings.scale or ("none" if recipe.method == "rloo" else "group"),
        beta=settings.kl,
        shuffle_dataset=False,
        log_completions=False,
    )
