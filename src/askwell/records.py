"""Every JSONL line that a stage writes or reads: the map of the project.

Records are frozen and refuse unknown fields. No I/O, no torch. `docs/records.md` shows one of each.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

Role = Literal["system", "user", "assistant"]
"""Who speaks: `user` is the person who is asked, `assistant` the expert (and later the policy)."""

Split = Literal["train", "dev", "test"]


Decision = Literal["continue", "stop"]
"""What an expert or a policy does at a turn."""

Origin = Literal["human", "rewritten", "enhanced", "corrupted"]
"""Where a wording of a question is from: somebody asked it, or it was made of what they asked."""

Direction = Literal["E-C", "E-O", "O-C"]
"""Of a preference: enhanced over corrupted, enhanced over original, original over corrupted."""


class Record(BaseModel):
    """Base of all records: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Act(Record):
    """One annotated dialogue act of a message, e.g. REQUEST(city) in the service Restaurants_1."""

    act: str
    slot: str = ""
    service: str = ""


class Message(Record):
    """One message of a conversation; `acts` only where the source annotates them."""

    role: Role
    content: str
    acts: tuple[Act, ...] = ()


class Conversation(Record):
    """One logged dialogue. `group` is what must not be split over train, dev and test (a post, a person)."""

    id: str
    group: str
    split: Split
    source: str
    messages: tuple[Message, ...]
    goal: str | None = None
    outcome: str | None = None
    redacted: bool = False
    """Whether ingest replaced what points to a person by placeholders."""


class QuestionTruth(Record):
    """What a simulation knows of a question that it had somebody ask.

    `findings` are those it asks for, `level` how it is worded (good, or what it lacks), `gain` the information on
    `condition`, which is the true one, that its answer was to be expected to give at that point, in nats.
    """

    findings: tuple[str, ...]
    level: str
    gain: float = Field(ge=0)
    condition: str


class Thread(Record):
    """A follow-up question in its context: a post, what was asked and answered since, and what came of it.

    `context` is the post and the thread's earlier questions, each followed by its answer where there was one; `answer`
    is None where the question was left unanswered. `outcome` is what it turned out to be, `conclusion` the thread's
    last word on it. How good a question is nobody says: `expert` (whether the asker's credentials were verified;
    `flair` has them in words), `conclusion` and `thanked` (whether the post's author was pleased) stand in for it.
    """

    id: str
    conversation_id: str
    group: str
    split: Split
    source: str
    context: tuple[Message, ...]
    question: str
    answer: str | None = None
    hypotheses: tuple[str, ...] = ()
    """What the asker suspects, as far as the question lets on."""
    outcome: str | None = None
    conclusion: str | None = None
    flair: str | None = None
    expert: bool = False
    thanked: bool | None = None
    truth: QuestionTruth | None = None
    """Only of simulated threads."""
    redacted: bool = False
    """As of a conversation."""


class Target(Record):
    """What hindsight says of a turn (Learn-to-Ask, section 4.2.3).

    `facts` is I*, what the expert still went on to find out: empty at a stop, None where the truth in use
    does not say (then a question cannot be scored, only the decision).
    """

    decision: Decision
    facts: tuple[str, ...] | None = None


class Turn(Record):
    """A decision point: everything said before the expert's reply, the reply, and the observed future.

    `service` and `known` come with annotated sources alone: the service that the conversation is about at
    this point, and the slots of it that the context already fills.
    """

    id: str
    conversation_id: str
    group: str
    split: Split
    index: int
    context: tuple[Message, ...]
    expert_reply: str
    future: tuple[Message, ...]
    target: Target | None = None
    service: str | None = None
    known: tuple[str, ...] = ()
    redacted: bool = False
    """That of its conversation."""


class Reply(Record):
    """What a policy said at a turn; `sample` counts the replies drawn for one turn, `policy` names who spoke."""

    turn_id: str
    sample: int
    text: str


class Grade(Record):
    """What the grader says of a reply against a turn's target. None means unscored, with its reason.

    decision_score R_s in {0, 1}; content_score R_a in {0, 0.5, 1}; format_score Omega in {0, 0.5, 1};
    reward R_s * (1 + 2 R_a) + Omega, in [0, 4]. `asked` holds the slots that the reply asks for, None where
    the grader abstains or was not consulted; `repeats` is true when the reply asks for what is already known.
    """

    turn_id: str
    sample: int
    reply: str
    decision: Decision
    questions: int = Field(ge=0)
    asked: tuple[str, ...] | None = None
    repeats: bool | None = None
    decision_score: float
    content_score: float | None
    format_score: float | None
    reward: float | None
    reason: str


class Candidate(Record):
    """One wording of a reply at a turn; `attribute` names the one along which a variant was made."""

    text: str
    origin: Origin
    attribute: str | None = None
    fault: str | None = None
    """What a check found wrong with a variant, such as a preamble: nothing it is part of is verified."""


class Preference(Record):
    """Candidate `better` is better than candidate `worse` (places in the set) in an attribute.

    `verified` says whether a judge who knew nothing of their origin saw it so, too; None where the verdict was a tie or
    there is none, for the reason that `unscored` gives. Where both are None nobody was asked.
    """

    attribute: str
    better: int = Field(ge=0)
    worse: int = Field(ge=0)
    verified: bool | None = None
    unscored: str | None = None

    @property
    def kept(self) -> bool:
        """Whether a filter keeps it: a judge confirmed it, or none was asked."""
        return self.verified is True or (self.verified is None and self.unscored is None)

    @model_validator(mode="after")
    def _verdict_or_reason(self) -> Self:
        if self.verified is not None and self.unscored is not None:
            raise ValueError(f"verified {self.verified} and unscored {self.unscored!r} exclude each other")
        return self


class QuestionSet(Record):
    """A context, candidates for what to say next, and the preferences among them: the unit of preference data."""

    id: str
    conversation_id: str
    group: str
    split: Split
    context: tuple[Message, ...]
    candidates: tuple[Candidate, ...]
    preferences: tuple[Preference, ...]
    redacted: bool = False
    """That of what it was made of."""

    def direction(self, preference: Preference) -> Direction | None:
        """Which kind of wording a preference sets above which; None where it is neither of the three."""
        letters = {"human": "O", "rewritten": "O", "enhanced": "E", "corrupted": "C"}
        better, worse = (letters[self.candidates[at].origin] for at in (preference.better, preference.worse))
        found = f"{better}-{worse}"
        return found if found in ("E-C", "E-O", "O-C") else None

    @model_validator(mode="after")
    def _among_candidates(self) -> Self:
        for preference in self.preferences:
            if preference.better == preference.worse:
                raise ValueError(f"{self.id}: candidate {preference.better} is preferred to itself")
            if max(preference.better, preference.worse) >= len(self.candidates):
                raise ValueError(
                    f"{self.id}: {preference} names a candidate beyond the {len(self.candidates)} there are"
                )
        return self


class ReplySet(Record):
    """A context and what each of several systems says next; `missing` has the reasons of those that said nothing."""

    id: str
    group: str
    context: tuple[Message, ...]
    replies: dict[str, str]
    missing: dict[str, str] = {}


Winner = Literal["first", "second", "tie"]


class Comparison(Record):
    """Two systems' questions at a context, compared by one attribute.

    `verdicts` are two, by a judge that saw the question of `first` first, then that of `second` first; none where the
    texts are equal, which is a tie that nobody has to judge. `score` is the mean over them of what `first` gets: 1 for
    a win, 0.5 for a tie, 0 for a loss; None is unscored, with its reason. A person's ranking is one verdict.
    """

    reply_set_id: str
    group: str
    attribute: str
    first: str
    second: str
    words: tuple[int, int] = (0, 0)
    """Of the two questions."""
    verdicts: tuple[Winner, ...] = ()
    reasons: tuple[str, ...] = ()
    """What the judge said before each verdict."""
    score: float | None = Field(default=None, ge=0, le=1)
    unscored: str | None = None


class Screening(Record):
    """A context whose best question is known (its place): who does not rank it first has not read, or does not know."""

    id: str
    context: tuple[Message, ...]
    questions: tuple[str, ...] = Field(min_length=2, max_length=26)
    best: int = Field(ge=0)
    points: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _best_is_a_question(self) -> Self:
        if self.best >= len(self.questions):
            raise ValueError(f"{self.id}: best {self.best} is beyond the {len(self.questions)} questions, from 0")
        return self


class SheetItem(Record):
    """A context on a rater's sheet: what stands behind each letter. For screening `best` is the letter to rank first
    and `points` what that is worth; `reply_set_id` is then the screening's id."""

    sheet: int
    item: int
    reply_set_id: str
    group: str = ""
    context: tuple[Message, ...]
    questions: dict[str, str]
    systems: dict[str, tuple[str, ...]] = {}
    """By letter; several where they say the same."""
    best: str = ""
    points: int = 0


class Exchange(Record):
    """One question of an interview with its answer, and what the decision maker would say now.

    `revealed` names the facts that the answer states, `invented` counts statements that are in no record and were left
    out of it. `choice` is one of the case's options, with the decision maker's confidence in it, in [0, 1]: None where
    it gave none that could be read. `sure` is how sure the abstention rule was after this answer, in its own unit.
    """

    question: str
    answer: str
    revealed: tuple[str, ...] = ()
    choice: str | None = None
    confidence: float | None = Field(default=None, ge=0, le=1)
    sure: float | None = None
    invented: int = Field(default=0, ge=0)
    manner: Literal["withheld", "rambled", "unsure"] | None = None
    """How a patient with habits answered, where not plainly."""


class Case(Record):
    """Somebody to interview: what they say unasked, the facts about them, and the options of which one is true.

    `record` is all that is known in running text; empty where the facts are all there is.
    """

    id: str
    group: str
    split: Split
    initial_information: str
    facts: tuple[str, ...]
    inquiry: str
    options: dict[str, str]
    answer: str
    record: str = ""
    redacted: bool = False
    """That of what it was made of."""

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> Self:
        if self.answer not in self.options:
            raise ValueError(f"{self.id}: the answer {self.answer!r} is none of the options {', '.join(self.options)}")
        return self


class Usage(Record):
    """What the calls of one role took in an interview, by the endpoint's own count; where it gave none, nothing."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class Episode(Record):
    """An interview that took place. `first_choice` is what the decision maker would say without any question.

    A choice is None where it could not be read: unscored, never wrong. `unread` counts such choices and verdicts.
    """

    case_id: str
    exchanges: tuple[Exchange, ...]
    first_choice: str | None = None
    decision: str | None = None
    end: Literal["stopped", "most questions", "no question"]
    first_confidence: float | None = Field(default=None, ge=0, le=1)
    first_sure: float | None = None
    unread: dict[str, int] = {}
    usage: dict[str, Usage] = {}
