"""The rows of ALFA's table, and every stage behind them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from askwell import recipes
from askwell.attributes import ALFA
from askwell.clinic import threads
from askwell.evaluation import interviews, questions
from askwell.labelling import synthesis
from askwell.recipes import (
    CLINIC,
    BradleyTerry,
    Dpo,
    Endpoint,
    Optimizer,
    Ppo,
    Preferences,
    Reward,
    RewardModels,
    Rollouts,
    StudyAlfaRecipe,
    System,
    TrainRecipe,
)
from askwell.recipes.clinic import SkillName
from askwell.records import Direction
from askwell.sources import ingest
from askwell.studies import clinic
from askwell.studies.ladder import RANDOM
from askwell.studies.schedule import Step
from askwell.training import dpo, each, grpo, merge, ppo, reward, sft

ROWS = {
    "base": "a language model of conversations in which novices ask: it can speak, and asks as badly as they do",
    "sft_real": "SFT on what people asked on a forum, from base; the start of all rows of ALFA below",
    "sft_synthetic": "SFT on enhanced questions, from base",
    "sft_combined": "SFT on both, from base",
    "coarse": "DPO on one attribute, how good a question is overall",
    "dpo_mix": "DPO, data mixing: the preferences of all six attributes together",
    "dpo_fusion": "DPO, policy fusion: a policy for each attribute, averaged",
    "ppo_mix": "PPO against one reward model of all six attributes",
    "ppo_reward_fusion": "PPO against the average of six reward models, one for each attribute",
    "ppo_policy_fusion": "PPO against each of the six reward models, the policies averaged",
    "dpo_mix_unfiltered": "dpo_mix with the preferences that the judge did not confirm, too",
    "dpo_fusion_unfiltered": "dpo_fusion with them",
    "only_E-C": "dpo_mix with enhanced over corrupted alone",
    "only_E-O": "dpo_mix with enhanced over original alone",
    "only_O-C": "dpo_mix with original over corrupted alone",
    **{f"without_{name}": f"dpo_fusion without {name}" for name in ALFA},
    "general": "dpo_fusion of clarity, focus and answerability",
    "clinical": "dpo_fusion of accuracy, relevance and avoid_bias",
    "sft": "SFT on experts' logs, from base; the start of the rows below",
    "learn": "Learn-to-Ask (CISPO), without ALFA",
    "alfa_learn": "Learn-to-Ask from ALFA: SFT on logs, then DPO on all six attributes, then CISPO",
    "learn_attributes": "Learn-to-Ask with the reward models of the six attributes, fused, as a term of its reward",
}
UNION = ("learn", "alfa_learn", "learn_attributes")
GENERAL, CLINICAL = ALFA[:3], ALFA[3:]
DIRECTIONS: tuple[Direction, ...] = ("E-C", "E-O", "O-C")
SPLIT = "dev"
"""What the rows are evaluated on; as in `studies.clinic`, in `test` every wording is new."""
ERRORS = {"enhance": 0.1, "corrupt": 0.1, "rank": 0.05}
"""Share of requests that the rewriter and the judge get wrong, so that there is something to filter."""
TEMPERATURE = 0.7
"""Of the replies that are evaluated: at 1 a small policy's slips say more of its size than of what it has learned, and
greedily nobody says anything that is badly worded."""
LONGEST = 32
"""Tokens of a reply."""
FIXED = 5
"""Questions of an interview, for those that do not stop by themselves."""


class Size(NamedTuple):
    """What the study is made of."""

    posts: int
    talks: int
    """Novices' conversations, from which base learns to speak."""
    clinic: clinic.Size
    """Of the experts' logs, and of the rows that learn from them."""
    questions: int
    """Contexts at which the rows' questions are compared."""
    people: int
    """Interviews of each row."""


SIZES = {
    "small": Size(300, 4000, clinic.SIZES["small"]._replace(visits=2500, base_epochs=2.0), 200, 300),
    "full": Size(600, 6000, clinic.SIZES["small"]._replace(base_epochs=3.0), 400, 600),
}


def seeds_of(recipe: StudyAlfaRecipe) -> list[int]:
    """The seeds of every row."""
    return [recipe.seed + number for number in range(1 if recipe.budget == "small" else recipe.seeds)]


def steps(recipe: StudyAlfaRecipe, root: Path) -> list[Step]:
    """All stages of the study, each once, in an order in which each finds what it reads."""
    size = SIZES[recipe.budget]
    found = [*base_steps(size, root, recipe.seed), *forum_steps(size, root, recipe.seed, skill=recipe.forum)]
    found += clinic.data_steps(size.clinic, root, recipe.seed)
    for row in recipe.rows:
        for seed in seeds_of(recipe):
            found += Trainings(size, root, seed).of(row)
    for row in dict.fromkeys(("base", *recipe.rows)):
        for seed in seeds_of(recipe):
            found += evaluation_steps(size, root, row, seed, people=recipe.seed)
    found.append(interview_step(size, root, RANDOM, recipe.seed, people=recipe.seed))
    first: dict[Path, Step] = {}
    for step in found:
        first.setdefault(step.output, step)
    return list(first.values())


def base_steps(size: Size, root: Path, seed: int) -> Iterator[Step]:
    """What base learns to speak from."""
    talk = recipes.ClinicLogsRecipe(
        conversations=size.talks, skill="novice", systems=size.clinic.systems, output=root / "talk", seed=seed
    )
    why = "novices talk with patients: what a language model has read, before it learns to ask"
    yield from clinic.talk_steps(talk, root / "talks", why)


def forum_steps(size: Size, root: Path, seed: int, *, skill: SkillName) -> Iterator[Step]:
    """A forum to question sets."""
    yield Step(
        "clinic threads",
        threads,
        recipes.ClinicThreadsRecipe(
            posts=size.posts, skill=skill, systems=size.clinic.systems, output=root / "forum", seed=seed
        ),
        f"people post on a forum, and others ask back ({skill})",
    )
    yield Step(
        "ingest",
        ingest,
        recipes.IngestRecipe(
            source="askdocs",
            input=root / "forum" / "threads.jsonl",
            output=root / "threads",
            split=recipes.Shares(dev=0.2, test=0.15),
        ),
        "the threads are read, checked and split by post",
    )
    yield Step(
        "synthesize",
        synthesis,
        recipes.SynthesizeRecipe(
            input=root / "threads",
            output=root / "question_sets",
            attributes=(*ALFA, "overall"),
            endpoint=endpoint(size, root, errors=ERRORS),
            seed=seed,
        ),
        "each question is made better and worse along each attribute, and a judge says whether it was",
    )


def endpoint(size: Size, root: Path, **more: Any) -> Endpoint:
    """The clinic of the study's body systems."""
    name = "+".join(size.clinic.systems) or "clinic"
    return Endpoint(
        base_url=CLINIC, model=name, max_tokens=4096, store=root / "answers.sqlite", max_unscored=1.0, extra_body=more
    )


class Trainings:
    """The training runs of one seed."""

    def __init__(self, size: Size, root: Path, seed: int) -> None:
        self.size, self.root, self.seed = size, root, seed

    def of(self, row: str) -> list[Step]:
        """A row's training runs, those that it starts from before it."""
        if row == "base":
            recipe = clinic.base_recipe(self.size.clinic, self.root, self.seed)
            return [Step("train", sft, recipe.model_copy(update={"input": self.root / "talks"}), ROWS["base"])]
        if row == "sft":
            recipe = clinic.sft_recipe(self.size.clinic, self.root, self.seed)
            return [*self.of("base"), Step("train", sft, recipe, ROWS["sft"])]
        if row.startswith("sft_"):
            return [*self.of("base"), self.imitation(row)]
        if row in UNION:
            return self.union(row)
        before = self.of("sft_real")
        if row.startswith("ppo"):
            return [*before, *self.ppo(row)]
        if (chosen := self.fused(row)) is not None:
            filtered = not row.endswith("unfiltered")
            name = "each" if filtered else "each_unfiltered"
            every = self.preferring(name, ALFA, filtered=filtered, apart=True)
            return [*before, every, self.merged(row, [every.output / attribute for attribute in chosen])]
        directions: tuple[Direction, ...] = tuple(found for found in DIRECTIONS if row == f"only_{found}")
        attributes = ("overall",) if row == "coarse" else ALFA
        return [*before, self.preferring(row, attributes, filtered="unfiltered" not in row, directions=directions)]

    def fused(self, row: str) -> Sequence[str] | None:
        """The attributes whose policies a row averages; None where it averages none."""
        if row.startswith("without_"):
            return [name for name in ALFA if name != row.removeprefix("without_")]
        return {"dpo_fusion": ALFA, "dpo_fusion_unfiltered": ALFA, "general": GENERAL, "clinical": CLINICAL}.get(row)

    def recipe(self, name: str, *, start: str, rate: float, **fields: Any) -> TrainRecipe:
        """A training on question sets, from another row's policy."""
        fields = {"input": self.root / "question_sets", **fields}
        return TrainRecipe(
            scratch=self.size.clinic.scratch,
            seed=self.seed,
            model=str(self.at(start) / "checkpoint"),
            output=self.at(name),
            optimizer=Optimizer(learning_rate=rate),
            **fields,
        )

    def at(self, name: str) -> Path:
        """Where a training run stands."""
        return self.root / name / str(self.seed)

    def imitation(self, row: str) -> Step:
        """SFT on the questions of question sets."""
        recipe = self.recipe(
            row,
            start="base",
            rate=1e-3,
            questions=row.removeprefix("sft_"),
            epochs=2,
            preferences=Preferences(attributes=ALFA),
        )
        return Step("train", sft, recipe, ROWS[row])

    def preferring(
        self,
        name: str,
        attributes: Sequence[str],
        *,
        filtered: bool = True,
        directions: tuple[Direction, ...] = (),
        apart: bool = False,
        start: str = "sft_real",
    ) -> Step:
        """DPO on question sets."""
        chosen = Preferences(attributes=tuple(attributes), filtered=filtered, directions=directions)
        recipe = self.recipe(
            name,
            start=start,
            rate=1e-4,
            method="dpo",
            preferences=chosen,
            dpo=Dpo(beta=0.3),
            each="attribute" if apart else None,
        )
        why = "DPO for each attribute, from one start" if apart else ROWS.get(name, "DPO on all six attributes")
        return Step("train", each if apart else dpo, recipe, why)

    def rewards(self, name: str) -> list[Step]:
        """Reward models: `reward` one for each attribute, `reward_mix` one of all, `reward_fused` their average."""
        if name == "reward_fused":
            every = self.rewards("reward")
            return [*every, self.merged(name, [self.at("reward") / attribute for attribute in ALFA])]
        alone = name == "reward"
        recipe = self.recipe(
            name,
            start="sft_real",
            rate=3e-4,
            method="reward",
            preferences=Preferences(attributes=ALFA),
            reward=BradleyTerry(centre=0.01, held_out=SPLIT),
            each="attribute" if alone else None,
        )
        why = "a reward model for each attribute" if alone else "a reward model of all attributes"
        return [Step("train", each if alone else reward, recipe, why)]

    def merged(self, name: str, parts: Sequence[Path]) -> Step:
        """An average of weights."""
        recipe = recipes.MergeRecipe(parts=tuple(parts), output=self.at(name))
        return Step("merge", merge, recipe, ROWS.get(name, "the average of the reward models"))

    def ppo(self, row: str) -> list[Step]:
        """PPO: reward models and policies."""
        if row == "ppo_policy_fusion":
            alone = [self.against(f"ppo_{name}", self.at("reward") / name) for name in ALFA]
            return [*self.rewards("reward"), *alone, self.merged(row, [step.output for step in alone])]
        models = "reward_mix" if row == "ppo_mix" else "reward_fused"
        return [*self.rewards(models), self.against(row, self.at(models))]

    def against(self, name: str, model: Path) -> Step:
        """PPO against a reward model."""
        recipe = self.recipe(
            name,
            start="sft_real",
            rate=3e-4,
            method="ppo",
            micro_batch=64,
            rollouts=Rollouts(
                turns=64,
                group=4,
                updates=2,
                max_new_tokens=LONGEST,
                reward=Reward(models=RewardModels(paths=(model,))),
            ),
            ppo=Ppo(kl=0.05),
        )
        return Step("train", ppo, recipe, ROWS.get(name, "PPO against the reward model of one attribute"))

    def union(self, row: str) -> list[Step]:
        """Learn-to-Ask, alone and with ALFA."""
        found = self.of("sft")
        recipe = clinic.rollout_recipe(self.size.clinic, self.root, "cispo", self.seed)
        changed: dict[str, Any] = {"output": self.at(row)}
        if row == "alfa_learn":
            found.append(self.preferring("alfa", ALFA, start="sft"))
            changed["model"] = str(self.at("alfa") / "checkpoint")
        if row == "learn_attributes":
            found += [*self.of("sft_real"), *self.rewards("reward_fused")]
            models = RewardModels(paths=(self.at("reward_fused"),), weight=0.5)
            worth = recipe.rollouts.reward.model_copy(update={"models": models})
            changed["rollouts"] = recipe.rollouts.model_copy(update={"reward": worth})
        return [*found, Step("train", grpo, recipe.model_copy(update=changed), ROWS[row])]


def evaluation_steps(size: Size, root: Path, row: str, seed: int, *, people: int) -> Iterator[Step]:
    """A row's questions beside those of base, and its interviews. `people` is the seed of whom it meets."""
    first = (row, seed) == ("base", people)
    if row != "base" or first:
        yield comparison_step(size, root, row, seed, people=people)
    yield interview_step(size, root, row, seed, people=people, bounds=first)


def interview_step(size: Size, root: Path, row: str, seed: int, *, people: int, bounds: bool = False) -> Step:
    """A row's interviews, or those of the random asker."""
    return Step(
        "evaluate interviews",
        interviews,
        recipes.EvaluateInterviewsRecipe(
            policy="clinic:random" if row == RANDOM else str(root / row / str(seed) / "checkpoint"),
            split=SPLIT,
            systems=size.clinic.systems,
            limit=size.people,
            most=FIXED,
            temperature=TEMPERATURE,
            max_new_tokens=LONGEST,
            bounds=bounds,
            output=interviews_of(root, row, seed),
            seed=people,
        ),
        f"{row} interviews people with at most {FIXED} questions",
    )


def comparison_step(size: Size, root: Path, row: str, seed: int, *, people: int) -> Step:
    """A row's questions beside those of base; base's beside those that people asked."""
    policy = System(policy=str(root / row / str(seed) / "checkpoint"), temperature=TEMPERATURE, max_new_tokens=LONGEST)
    systems = {row: policy}
    if row != "base":
        systems["base"] = System(run=questions_of(root, "base", people), named="base")
    return Step(
        "evaluate questions",
        questions,
        recipes.EvaluateQuestionsRecipe(
            input=root / "question_sets",
            split=SPLIT,
            limit=size.questions,
            human=row == "base",
            systems=systems,
            reference="base",
            judge=endpoint(size, root),
            output=questions_of(root, row, seed),
            seed=people,
        ),
        f"{row}: a judge compares its questions with those of {'people' if row == 'base' else 'base'}",
    )


def questions_of(root: Path, row: str, seed: int) -> Path:
    """Where comparisons with base stand."""
    return root / "evaluation" / f"{row}-{seed}-questions"


def interviews_of(root: Path, row: str, seed: int) -> Path:
    """Where interviews stand."""
    return root / "evaluation" / f"{row}-{seed}-interviews"
