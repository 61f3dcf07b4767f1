"""Recipes of interviews: who is asked, who asks, who decides, and two runs side by side."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from askwell.recipes.endpoint import CLINIC, LOCAL, Endpoint
from askwell.recipes.fields import Recipe, Section, StopMarker

RULES = ("own", "implicit", "fixed", "binary", "numerical", "cutoff", "scale")
Rule = Literal["own", "implicit", "fixed", "binary", "numerical", "cutoff", "scale"]


class CasesReadRecipe(Recipe):
    """Published multiple-choice cases (iMedQA, iCRAFT-MD, MediQ-AskDocs) to records that can be interviewed."""

    free = frozenset({"max_rejected"})

    input: Path
    """A JSONL file, or a folder whose JSONL files are all read, in order of their names."""
    compat: Literal["as_released"] | None = None
    """`as_released` opens MediQ-AskDocs' cases with the complaint that was made up for them, not with the post."""
    keep_unaskable: bool = False
    """Keep cases whose record is one sentence or none, which leaves nothing to ask; else they are rejected."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of lines that are no case above which the stage fails; those with nothing to ask do not count."""


class CasesBuildRecipe(Recipe):
    """Conversations or threads to cases: facts, an inquiry, and four options that a judge has verified blind."""

    input: Path
    """Run directory of `askwell ingest`: conversations or threads, with a known outcome or without."""
    endpoint: Endpoint
    """Whose model writes the cases."""
    judge: Endpoint | None = None
    """Whose model verifies them, without being told which option is meant to be right; unset: the same. Another model
    does not share the writer's mistakes."""
    opening: Literal["turn", "sentence"] = "turn"
    """What the interview begins with: what the person says first, greetings aside, until somebody asks, which may be a
    whole post; or its first sentence, as in MediQ's own cases, which leaves the rest to be asked for."""
    split: Literal["train", "dev", "test", "all"] = "test"
    """Of whom: only people of `test` has no policy met in training."""
    limit: int | None = Field(default=None, ge=1)
    """Take at most this many conversations, drawn by hash: for a look at what the endpoint makes of them."""
    revisions: int = Field(default=1, ge=0)
    """How often options at fault are written anew and judged again before a record is left without a case."""
    answerable: bool = True
    """Keep only what the judge answers rightly where it knows the facts alone: what everything known does not decide
    only blurs accuracy, but a weak judge leaves easy cases. The others are counted, and stand in drafts.jsonl."""
    review: Path | None = None
    """A person's verdicts: the review.csv of an earlier run on the same input as somebody filled it in, or a folder of
    such files, one a reader. review.txt beside it says how."""


class Patient(Section):
    """Who is asked, and how they answer."""

    kind: Literal["clinic", "random", "direct", "instruct", "facts", "lexical", "embeddings"] = "lexical"
    """`clinic`: the simulated clinic's own patients, who read and speak by its grammar. `random`: a fact drawn at
    random, whatever was asked. `direct`: a model that has the whole record. `instruct`: one that is told to keep to it,
    and to say so where it does not answer. `facts`: a model picks facts, which are said word for word (fact-select).
    `lexical`: facts that share rare words with the question, picked without a model. `embeddings`: facts that a
    sentence encoder on this machine finds near the question."""
    endpoint: Endpoint | None = None
    """Whose model answers, for `direct`, `instruct` and `facts`."""
    most: int | None = Field(default=None, ge=1)
    """Facts that one answer of `facts`, `lexical` or `embeddings` gives at most; unset: all that answer it."""
    overlap: float = Field(default=0.2, gt=0, le=1)
    """For `lexical`: cosine of a fact's and a question's words, weighed by rarity, from which the fact answers it. At
    0.2 a fact of the own case answers 84 % of the 620 questions that doctors ask in MediQ-AskDocs, one of another case
    15 %; at 0.3 it is 73 % and 5 %."""
    encoder: str | None = None
    """For `embeddings`: path or Hugging Face name of an encoder (it comes with the extra `train`), such as
    sentence-transformers/all-MiniLM-L6-v2."""
    near: float = Field(default=0.4, gt=-1, le=1)
    """For `embeddings`: cosine of a fact's and a question's vectors from which it answers. Of all-MiniLM-L6-v2,
    measured as above, 0.4 gives 85 % and 17 %, 0.5 gives 73 % and 3 %; encoders differ, and benchmarks/patients.py
    measures yours."""
    withholds: float = Field(default=0.0, ge=0, le=1)
    """Share of questions at which the patient says that they cannot answer, though they may know."""
    rambles: float = Field(default=0.0, ge=0, le=1)
    """Share of answers that come with talk beside the point."""
    unsure: float = Field(default=0.0, ge=0, le=1)
    """Share of answers that are said with doubt."""

    @model_validator(mode="after")
    def _endpoint_where_a_model_answers(self) -> Self:
        model = self.kind in ("direct", "instruct", "facts")
        if model != (self.endpoint is not None):
            rule = "needs an endpoint: `--patient.endpoint.model NAME`" if model else "takes no endpoint; leave it out"
            raise ValueError(f"patient.kind {self.kind!r} {rule}")
        if (self.kind == "embeddings") != (self.encoder is not None):
            rule = "needs one: `--patient.encoder NAME`" if self.encoder is None else "takes none; leave it out"
            raise ValueError(f"patient.encoder: a patient of kind {self.kind!r} {rule}")
        if self.withholds + self.rambles + self.unsure > 1:
            raise ValueError("patient.withholds, rambles and unsure are shares of answers; their sum must be at most 1")
        return self


class Abstention(Section):
    """When to stop asking."""

    rule: Rule = "own"
    """`own`: the asker's stop marker. `implicit`: one reply asks or answers. `fixed`: after the most questions.
    `binary`: sure enough, yes or no. `numerical`: a confidence in [0, 1], then yes or no. `cutoff`: a confidence, and a
    threshold. `scale`: five steps from "very confident" to "very unconfident", and a threshold."""
    endpoint: Endpoint | None = None
    """Whose model says so; unset: the decision maker's."""
    threshold: float | None = None
    """From which on the interview ends: for `cutoff` in [0, 1], unset 0.8; for `scale` in [1, 5], unset 4. Above the
    largest it never ends by the rule, so that every threshold can be read off one run."""
    rationale: bool = False
    """Give the reason before the verdict."""
    samples: int = Field(default=1, ge=1)
    """Verdicts drawn at each point (self-consistency): the majority decides, a tie asks on; of figures the mean."""
    compat: Literal["as_released"] | None = None
    """`as_released` has `scale` end at 0.8, as MediQ's command line does: any answer is above it, nothing is asked."""

    @property
    def at(self) -> float | None:
        """The threshold in use; None for a rule without one."""
        if self.rule not in ("cutoff", "scale"):
            return None
        unset = 0.8 if self.rule == "cutoff" or self.compat else 4.0
        return unset if self.threshold is None else self.threshold

    @model_validator(mode="after")
    def _fits_the_rule(self) -> Self:
        if self.threshold is not None and self.rule not in ("cutoff", "scale"):
            raise ValueError(f"abstention.threshold goes with rule 'cutoff' or 'scale', not {self.rule!r}")
        if self.compat and (self.rule != "scale" or self.threshold is not None):
            raise ValueError("abstention.compat 'as_released' is the threshold of rule 'scale'; it takes no other")
        plain = self.rule in ("own", "fixed")
        if plain and (self.endpoint or self.rationale or self.samples > 1):
            raise ValueError(f"abstention.rule {self.rule!r} asks no model: endpoint, rationale, samples do not apply")
        if self.samples > 1 and self.endpoint is not None and self.endpoint.temperature == 0:
            raise ValueError(
                "abstention.samples above 1 need abstention.endpoint.temperature above 0: all are the same"
            )
        return self


class EvaluateInterviewsRecipe(Recipe):
    """A policy in conversation: it interviews the people of cases, and stops by its own marker or by a rule."""

    policy: str = ""
    """Who asks: a checkpoint directory or Hugging Face name; an asker of the clinic: `clinic:reference`,
    `clinic:myopic`, `clinic:random`, or one that chooses as the experts of `clinic logs` do, but words it well and asks
    for one thing at a time: `clinic:expert`, `clinic:average`, `clinic:novice`; or `random`, who asks, stops and
    decides at random."""
    asker: Endpoint | None = None
    """Or the endpoint whose model asks. Neither is needed where `abstention.rule` is `implicit`."""
    cases: str = "clinic"
    """`clinic`: people of the simulated clinic, none of whom any log knows; else a run directory of `askwell cases`."""
    limit: int | None = Field(default=None, ge=1)
    """Cases to interview: of the clinic, unset, 300; of a run directory, unset, all, else so many drawn by hash."""
    patient: Patient | None = None
    """How they answer; unset: the clinic's people as `clinic`, others as `lexical`."""
    abstention: Abstention = Abstention()
    """When to stop asking."""
    decision: Endpoint | None = None
    """Whose model decides; unset: exact reasoning, which the clinic's cases alone have."""
    rationale: bool = False
    """The decision maker gives its reason before the verdict."""
    sees: Literal["conversation", "inquiry", "options"] = "conversation"
    """What the asker is told: what was said; also what is to be found out; also the options."""
    shuffle: bool = True
    """Put the options of each case in another order, by seed: else a habit of saying C may pass for knowledge."""
    split: Literal["dev", "test"] = "test"
    """Of the clinic's people. Of `test` the words and the complaints of some conditions stand in no log for training;
    of `dev` they may."""
    systems: tuple[str, ...] = ()
    """Body systems whose conditions the clinic has: files of `askwell/texts/clinic` by name; empty for all."""
    most: int = Field(default=12, ge=1)
    """Questions after which an interview ends."""
    cost: float = Field(default=0.01, ge=0)
    """What a question costs the reference asker, in shares of a right diagnosis."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature of `policy`; 0 is greedy."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest reply of `policy`."""
    stop_marker: StopMarker = "<stop />"
    """What the asker says to stop."""
    prompt: str | None = None
    """The asker's system prompt: a file of `askwell/texts/prompts` by name, or empty for none. Unset: none for a
    checkpoint, which has its own habits; for another endpoint `policy`, or `policy_no_stop` where a rule stops it."""
    shown: int = Field(default=3, ge=0)
    """Interviews printed in the report."""
    bounds: bool = True
    """What these figures lie between, on the same cases: everything known, and a patient who answers at random (in the
    clinic a reference asker and one at random). With endpoints this takes about as many calls again. In the clinic also
    which stops come too soon or too late, against the reference asker."""

    @property
    def lockstep(self) -> bool:
        """Whether a policy in this process interviews the clinic's patients before exact reasoning."""
        plain = self.patient is None or (self.patient.kind == "clinic" and not habits(self.patient))
        return (
            self.cases == "clinic"
            and self.policy not in ("", "random")
            and plain
            and self.abstention.rule == "own"
            and self.decision is None
        )

    @property
    def who_is_asked(self) -> Patient:
        """The patient, where unset as it follows from the cases."""
        return self.patient or Patient(kind="clinic" if self.cases == "clinic" else "lexical")

    @property
    def who_asks(self) -> Endpoint | None:
        """The endpoint of the asker: a checkpoint is one in this process."""
        if self.asker is not None or self.policy in ("", "random") or self.policy.startswith(CLINIC):
            return self.asker
        return Endpoint(base_url=LOCAL, model=self.policy, temperature=self.temperature, max_tokens=self.max_new_tokens)

    @model_validator(mode="after")
    def _one_asker(self) -> Self:
        given = bool(self.policy) + (self.asker is not None)
        if given > 1 or (given == 0 and self.abstention.rule != "implicit"):
            raise ValueError("who asks? give either `--policy NAME` or `--asker.model NAME`")
        if self.cases.isdigit():
            raise ValueError(f"cases names what cases there are, not how many; write `--limit {self.cases}`")
        return self

    @model_validator(mode="after")
    def _fits_the_cases(self) -> Self:
        if self.lockstep:
            return self
        if self.policy.startswith(CLINIC):
            raise ValueError(
                f"policy {self.policy!r} interviews the clinic's own patients, stops by itself and leaves it to exact "
                f"reasoning to decide; for other cases or roles ask the clinic as an endpoint: "
                f"`--asker.base_url {CLINIC} --asker.model clinic`"
            )
        if self.who_is_asked.kind == "clinic" and self.cases != "clinic":
            raise ValueError("patient.kind 'clinic' knows the clinic's cases alone; take another kind for other cases")
        if self.policy == "random":
            if self.decision is not None or self.abstention != Abstention():
                raise ValueError("policy 'random' stops and decides by itself: give no abstention and no decision")
            return self
        if self.decision is None and self.cases != "clinic":
            raise ValueError("decision: somebody must decide; give `--decision.model NAME` and where it is")
        rule = self.abstention
        if rule.rule not in ("own", "fixed") and rule.endpoint is None:
            if self.decision is None:
                raise ValueError(f"abstention.rule {rule.rule!r} asks a model: give `--abstention.endpoint.model NAME`")
            if rule.samples > 1 and self.decision.temperature == 0:
                raise ValueError("abstention.samples above 1 need a temperature above 0: all would be the same")
        return self


def habits(patient: Patient) -> bool:
    """Whether a patient withholds, rambles or is unsure at times."""
    return patient.withholds + patient.rambles + patient.unsure > 0


class CompareRecipe(Recipe):
    """Two runs of `askwell evaluate interviews`, case by case: paired bootstrap and McNemar's test."""

    positional: ClassVar[tuple[str, ...]] = ("first", "second")

    first: Path
    """Run directory of one."""
    second: Path
    """Run directory of the other, which is taken off the first."""
