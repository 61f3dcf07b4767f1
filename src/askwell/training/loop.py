"""The optimizer loop: `transformers.Trainer` with a fixed order of batches, exact resume, and one line a step.

Writes RUN/metrics.jsonl and checkpoints under RUN/attempt/. A killed run goes on from its newest complete checkpoint:
metrics.jsonl is cut back to that step, so that each step stands in it once. The loss is the mean over the items
(tokens, pairs) in the whole batch of a step, however many processes and micro-batches share it.
"""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from askwell import runs, weights
from askwell.errors import RecipeError, RunError
from askwell.recipes import TrainRecipe
from askwell.runs import Run
from askwell.training import batches

log = logging.getLogger(__name__)
COMPLETE = "complete"
IGNORED = -100
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
PROGRESS_SECONDS = 10.0


class Losses(NamedTuple):
    """Of one micro-batch: the sum of the loss over its items, and sums of whatever else is worth a line."""

    total: torch.Tensor
    sums: dict[str, torch.Tensor]


class Task(NamedTuple):
    """What an algorithm trains on: its rows, how long each is, how some make a batch, and the loss of that batch.

    The batch's `labels` holds one entry more than there are items to average over, the first of them IGNORED: so the
    Trainer counts the items.
    """

    rows: Sequence[Any]
    sizes: Sequence[int]
    collate: Callable[[list[Any]], dict[str, torch.Tensor]]
    loss: Callable[[Any, dict[str, torch.Tensor]], Losses]


class Scheduled(Dataset):
    """Rows in the order of training; None for a blank."""

    def __init__(self, rows: Sequence[Any], order: Sequence[int]) -> None:
        self.rows = rows
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> Any:
        row = self.order[place]
        return self.rows[row] if row != batches.BLANK else None


class OrderedTrainer(Trainer):
    """A Trainer that takes its rows in the order given, blanks left out."""

    def __init__(
        self, collate: Callable[[list[Any]], dict[str, torch.Tensor]], journal: "Journal", **kwargs: Any
    ) -> None:
        super().__init__(
            data_collator=lambda rows: collate([row for row in rows if row is not None]),
            callbacks=[journal],
            **kwargs,
        )
        self.remove_callback(PrinterCallback)
        self.journal = journal
        self.model_accepts_loss_kwargs = True

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(cast(Scheduled, dataset))


class TaskTrainer(OrderedTrainer):
    """One whose loss, a mean over items, is that of a task."""

    def __init__(self, task: Task, journal: "Journal", **kwargs: Any) -> None:
        super().__init__(task.collate, journal, **kwargs)
        self.task = task

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        found = self.task.loss(model, inputs)
        processes = self.accelerator.num_processes
        for name, value in found.sums.items():
            self.journal.note(name, self.accelerator.reduce(value.detach().float()) / num_items_in_batch)
        return found.total * (processes / num_items_in_batch)


class Journal(TrainerCallback):
    """Writes metrics.jsonl and progress, and marks a checkpoint complete once every process has written its part."""

    def __init__(
        self, run: Run, tokens: Sequence[int], *, per_epoch: int, watched: Mapping[str, str] | None = None
    ) -> None:
        """`tokens` of each step; `watched`: what else of the trainer's log goes on a line, and under which name."""
        self.run = run
        self.watched = watched or {}
        self.tokens = tokens
        self.per_epoch = per_epoch
        self.started = self.stepped = self.told = time.monotonic()
        self.first = 0
        self.notes: dict[str, float] = {}

    def note(self, name: str, share: torch.Tensor) -> None:
        """Add a micro-batch's share of a mean to the step's line."""
        self.notes[name] = self.notes.get(name, 0.0) + float(share)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.started = self.stepped = self.told = time.monotonic()
        self.first = state.global_step

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        step, now = state.global_step, time.monotonic()
        if not math.isfinite(logs["loss"]):
            raise RunError(
                f"{self.run.path}: the loss is {logs['loss']} at step {step}; lower optimizer.learning_rate (now "
                f"{args.learning_rate}) or raise optimizer.warmup, and choose another --output"
            )
        if not state.is_world_process_zero:
            return
        self.run.log(
            step=step,
            epoch=round(step / self.per_epoch, 4),
            loss=logs["loss"],
            **self.notes,
            **{name: logs[key] for key, name in self.watched.items() if key in logs},
            learning_rate=logs["learning_rate"],
            grad_norm=logs["grad_norm"],
            tokens=self.tokens[step - 1],
            seconds=round(now - self.stepped, 4),
        )
        self.notes.clear()
        self.stepped = now
        if now - self.told >= PROGRESS_SECONDS or step == state.max_steps:
            self.told = now
            speed = (step - self.first) / (now - self.started)
            rate = sum(self.tokens[self.first : step]) / (now - self.started)
            log.info(
                "step %d/%d loss %.4f, %.2f steps/s, %.0f tokens/s, %.0f s left",
                *(step, state.max_steps, logs["loss"], speed, rate, (state.max_steps - step) / speed),
            )

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            # A second set of adapters, such as those of the policy that a training started from, has a folder in it.
            for file in (entry for entry in folder.rglob("*") if entry.is_file()):
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            (folder / COMPLETE).touch()


def train(policy: weights.Policy, task: Task, recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train `policy` in place for the recipe's steps, from the newest complete checkpoint if there is one."""
    args = arguments(recipe, run, steps=batches.total_steps(len(task.rows), batch=recipe.batch, epochs=recipe.epochs))
    order = batches.order(task.sizes, batch=recipe.batch, steps=args.max_steps, seed=recipe.seed)
    loads = [sum(task.sizes[row] for row in group if row != batches.BLANK) for group in chunks(order, recipe.batch)]
    journal = Journal(run, loads, per_epoch=batches.steps_per_epoch(len(task.rows), batch=recipe.batch))
    trainer = TaskTrainer(task, journal, model=policy.model, args=args, train_dataset=Scheduled(task.rows, order))
    carry_out(trainer, policy, run)
    return {"steps": args.max_steps, "tokens_seen": sum(loads), **described(trainer, policy)}


def carry_out(trainer: Trainer, policy: weights.Policy, run: Run) -> None:
    """Train to the last step, from the newest complete checkpoint if there is one."""
    policy.model.config.use_cache = False
    with trainer.args.main_process_first(local=False):
        checkpoint = resume_point(run, main=trainer.is_world_process_zero())
    if checkpoint:
        log.info("going on from %s", checkpoint.name)
    with weights.quiet():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # In bfloat16 the model computes what the training computed until it is unwrapped; now it is what is saved.
    extract_model_from_parallel(policy.model, keep_fp32_wrapper=False)
    policy.model.config.use_cache = True
    if trainer.args.world_size > 1:
        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()


def leave(policy: weights.Policy, run: Run) -> None:
    """Save the policy as the run's checkpoint, from the main process; what the run needed to resume goes."""
    if runs.main_process():
        shutil.rmtree(run.checkpoint, ignore_errors=True)
        weights.save(policy, run.checkpoint)
        shutil.rmtree(run.path / "attempt")


def items(count: int) -> torch.Tensor:
    """Labels (count + 1,) that the Trainer counts as `count` items: it leaves the first one out."""
    return torch.tensor([IGNORED] + [0] * count)


def summed(trainer: Trainer, values: Sequence[float]) -> torch.Tensor:
    """Sums over the processes, in float64."""
    found = trainer.accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=trainer.accelerator.device))
    assert isinstance(found, torch.Tensor)
    return found


def tokens_seen(run: Run) -> int:
    """Tokens computed in all steps, those before a cut too."""
    return sum(json.loads(line)["tokens"] for line in (run.path / "metrics.jsonl").read_text().splitlines())


def described(trainer: Trainer, policy: weights.Policy) -> dict[str, object]:
    """What was trained, for the manifest."""
    return {
        "processes": trainer.args.world_size,
        "parameters": sum(weight.numel() for weight in policy.model.parameters()),
        "parameters_trained": sum(weight.numel() for weight in policy.model.parameters() if weight.requires_grad),
    }


def chunks(order: Sequence[int], batch: int) -> list[Sequence[int]]:
    """`order` cut into the batches of the steps."""
    return [order[at : at + batch] for at in range(0, len(order), batch)]


def arguments(recipe: TrainRecipe, run: Run, *, steps: int) -> TrainingArguments:
    """The recipe in the Trainer's words."""
    micro = batches.micro_batch(recipe.batch, at_most=recipe.micro_batch, processes=runs.processes())
    return TrainingArguments(
        **settings(recipe, run, steps=steps),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=recipe.batch // (micro * runs.processes()),
    )


def settings(recipe: TrainRecipe, run: Run, *, steps: int) -> dict[str, Any]:
    """What every method's trainer is told."""
    if not int(os.environ.get("WORLD_SIZE", "0")) and torch.cuda.device_count() > 1:
        raise RecipeError(
            f"{torch.cuda.device_count()} GPUs are visible to one process; start one process for each with `accelerate "
            f"launch --num_processes {torch.cuda.device_count()}`, or show it one with CUDA_VISIBLE_DEVICES=0"
        )
    return {
        "output_dir": str(run.path / "attempt"),
        "max_steps": steps,
        "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False,
        "learning_rate": recipe.optimizer.learning_rate,
        "lr_scheduler_type": SCHEDULES[recipe.optimizer.schedule],
        "warmup_steps": math.ceil(steps * recipe.optimizer.warmup),
        "weight_decay": recipe.optimizer.weight_decay,
        "max_grad_norm": recipe.optimizer.max_grad_norm,
        # As everywhere else, CUDA or the CPU: Apple's GPUs have no float64, in which losses and figures are summed.
        "use_cpu": not torch.cuda.is_available(),
        "bf16": recipe.precision == "bfloat16",
        "activation_checkpointing": recipe.activation_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if recipe.activation_checkpointing else None,
        "seed": recipe.seed,
        "save_steps": recipe.checkpoint_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def resume_point(run: Run, *, main: bool) -> Path | None:
    """The newest complete checkpoint. The main process first removes torn ones and cuts metrics.jsonl back to it."""
    folders = {int(path.name.split("-")[1]): path for path in (run.path / "attempt").glob("checkpoint-*")}
    metrics = run.path / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
    steps = [step for step in sorted(folders) if (folders[step] / COMPLETE).exists() and step <= len(lines)]
    newest = steps[-1] if steps else 0
    if main:
        for step, folder in folders.items():
            if step not in steps:
                shutil.rmtree(folder)
        kept = lines[:newest]
        if any(json.loads(line)["step"] != step for step, line in enumerate(kept, start=1)):
            raise RunError(f"{metrics}: its lines are not steps 1 to {newest}; delete {run.path} and start again")
        temporary = run.path / ".metrics.tmp"
        temporary.write_bytes(b"".join(kept))
        temporary.replace(metrics)
    return folders[newest] if newest else None
