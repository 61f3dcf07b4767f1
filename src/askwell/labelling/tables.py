"""What a synthesis came to: the paper's table 7 of one's own run, what the checks found, lengths, and prompts.

What is confirmed is a share of the preferences on which a judge ruled, with 95 % intervals by bootstrap over groups
(posts); ties and whatever could not be judged stand beside it by reason. What is kept is a share of all, as in the
paper, whose judge had to rule on every pair. Length drift is what the better of a pair has over the worse in words,
over all pairs: where it is far from 0, a model may learn the length instead of the attribute.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from askwell.attributes import ALFA
from askwell.labelling.variants import questions_in
from askwell.labelling.verification import DIRECTIONS
from askwell.llm.chat import Request
from askwell.llm.prefixes import Prefixes
from askwell.records import Preference, QuestionSet, Split
from askwell.statistics import Estimate, mean_interval

ALL = "all"
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
PAPER = {
    "accuracy": (99.3, 98.3, 70.9),
    "answerability": (99.6, 98.3, 69.4),
    "avoid_bias": (99.8, 86.9, 94.5),
    "clarity": (85.8, 73.4, 70.3),
    "focus": (92.0, 72.8, 75.3),
    "relevance": (99.2, 73.0, 91.2),
    ALL: (96.0, 83.8, 78.6),
    "overall": (99.8, 94.2, 95.7),
}
"""ALFA's table 7: share of pairs kept in per cent, E-C, E-O, O-C; all six together, and the coarse attribute."""


class Tally:
    """Adds up question sets. `apart`: the judge's model is another than the rewriter's, with a cache of its own."""

    def __init__(self, attributes: Sequence[str], *, apart: bool = False) -> None:
        self.attributes = tuple(attributes)
        self.sets = 0
        self.splits: Counter[str] = Counter()
        self.later = 0
        self.verified: defaultdict[tuple[str, str], list[bool | None]] = defaultdict(list)
        self.reasons: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.drift: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.drifted: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.samples: Counter[tuple[str, Split]] = Counter()
        """Kept preferences by attribute and split."""
        self.checks: Counter[str] = Counter()
        self.apart = apart
        self.prompts = Prefixes(), Prefixes()
        """Of the requests to the rewriter's model, and to the judge's where that is another."""
        self.varying = Prefixes(), Prefixes()
        """The same without the first part, which all requests share."""

    def add(self, record: QuestionSet, failures: Mapping[str, Mapping[str, str | None]]) -> None:
        """One question set; `failures` says by attribute and origin why a variant is not there."""
        self.sets += 1
        self.splits[record.split] += 1
        self.later += any(message.role == "assistant" for message in record.context)
        self.checks.update(f"{each.origin}: {each.fault}" for each in record.candidates if each.fault)
        texts = Counter(each.text for each in record.candidates[1:])
        self.checks["equal to another wording of the question"] += sum(times - 1 for times in texts.values())
        self.checks["original asks more than one question"] += questions_in(record.candidates[1].text) > 1
        for preference in record.preferences:
            self._preference(record, preference)
        for attribute, found in failures.items():
            for direction, pair in DIRECTIONS.items():
                if reason := next((found[origin] for origin in pair if found.get(origin)), None):
                    self._note(attribute, direction, record.group, None, f"rewriter: {reason}")

    def asked(self, requests: Sequence[Request]) -> None:
        """The requests about a post."""
        for judge, (prompts, varying) in enumerate(zip(self.prompts, self.varying, strict=True)):
            messages = [it.messages for it in requests if (self.apart and it.role == "rank") == judge]
            prompts.add(messages)
            varying.add([each[1:] for each in messages])

    def _preference(self, record: QuestionSet, preference: Preference) -> None:
        direction = record.direction(preference)
        assert direction is not None
        self._note(preference.attribute, direction, record.group, preference.verified, preference.unscored)
        self.samples[preference.attribute, record.split] += preference.kept
        lengths = [len(record.candidates[at].text.split()) for at in (preference.better, preference.worse)]
        key = preference.attribute, direction
        self.drift[key].append(lengths[0] - lengths[1])
        self.drifted[key].append(record.group)

    def _note(self, attribute: str, direction: str, group: str, verified: bool | None, reason: str | None) -> None:
        key = attribute, direction
        self.verified[key].append(verified)
        self.groups[key].append(group)
        if reason is not None:
            self.reasons[key][reason] += 1


def report(tally: Tally) -> dict[str, Any]:
    """The content of report.json."""
    rows = [*tally.attributes]
    fine = [name for name in rows if name != "overall"]
    kept = {name: {direction: share(tally, [name], direction) for direction in DIRECTIONS} for name in rows}
    if len(fine) > 1:
        kept[ALL] = {direction: share(tally, fine, direction) for direction in DIRECTIONS}
    samples = {name: {split: tally.samples[name, split] for split in SPLITS} for name in rows}
    if len(fine) > 1:
        samples[ALL] = {split: sum(samples[name][split] for name in fine) for split in SPLITS}
    return {
        "question_sets": tally.sets,
        "splits": dict(sorted(tally.splits.items())),
        "with history": tally.later,
        "kept": kept,
        "samples": samples,
        "drift": {
            name: {
                direction: mean_interval(tally.drift[name, direction], tally.drifted[name, direction])._asdict()
                for direction in DIRECTIONS
            }
            for name in rows
        },
        "checks": dict(sorted(tally.checks.items())),
        "prompts": {
            "requests": sum(each.requests for each in tally.prompts),
            "characters": sum(each.characters for each in tally.prompts),
            "new characters": sum(each.new for each in tally.prompts),
            "repeated": repeated(tally.prompts),
            "repeated behind the first part": repeated(tally.varying),
        },
    }


def share(tally: Tally, names: Sequence[str], direction: str) -> dict[str, Any]:
    """Share confirmed of what was judged in some attributes and a direction, with all that was not by reason, and the
    share `kept` of all."""
    verified = [value for name in names for value in tally.verified[name, direction]]
    groups = [group for name in names for group in tally.groups[name, direction]]
    reasons = sum((tally.reasons[name, direction] for name in names), Counter[str]())
    found: Estimate = mean_interval(verified, groups)
    kept = mean_interval([float(word is True) for word in verified], groups)
    told = {"confirmed": verified.count(True), "reasons": dict(sorted(reasons.items()))}
    return {**found._asdict(), **told, "kept": kept._asdict()}


def repeated(prompts: Sequence[Prefixes]) -> float | None:
    """The share of characters that repeat a beginning which the same model has read before."""
    characters = sum(each.characters for each in prompts)
    return 1 - sum(each.new for each in prompts) / characters if characters else None


def counts(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest holds of a report."""
    cells = [cell for name, row in figures["kept"].items() if name != ALL for cell in row.values()]
    reasons = sum((Counter(cell["reasons"]) for cell in cells), Counter[str]())
    return {
        "preferences": sum(cell["scored"] + cell["unscored"] for cell in cells),
        "confirmed": sum(cell["confirmed"] for cell in cells),
        "contradicted": sum(cell["scored"] - cell["confirmed"] for cell in cells),
        "unscored": dict(sorted(reasons.items())),
        "repeated prompt characters": round(figures["prompts"]["repeated"] or 0.0, 4),
    }


def markdown(figures: Mapping[str, Any], accounts: Mapping[str, Any]) -> str:
    """The same for a person to read, with what it cost."""
    lines = [
        "# Question sets",
        "",
        f"{figures['question_sets']} question sets, {figures['with history']} of them with a history; by split: "
        + ", ".join(f"{name} {count}" for name, count in figures["splits"].items()),
        "",
        "## Confirmed by the judge",
        "",
        "Share of the preferences on which the judge ruled that it saw as they were meant (E enhanced, O original, C "
        "corrupted), with its 95 % interval over posts, and how many were ruled on and left unscored.",
        "",
        "| attribute | E-C | n | unscored | E-O | n | unscored | O-C | n | unscored |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in figures["kept"].items():
        cells = [f"{per_cent(cell)} | {cell['scored']} | {cell['unscored']}" for cell in row.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "## Kept",
        "",
        "Share of all preferences that a filter keeps, with its 95 % interval over posts, and how many that leaves to "
        "each split. In brackets ALFA's table 7: its judge, who was not offered ties, had to rule on every pair.",
        "",
        "| attribute | E-C | E-O | O-C | train | dev | test |",
        "|---|---|---|---|---|---|---|",
    ]
    alfa = set(figures["kept"]) >= set(ALFA) >= set(figures["kept"]) - {ALL, "overall"}
    for name, row in figures["kept"].items():
        paper = [f" ({share})" for share in PAPER[name]] if name in PAPER and (name != ALL or alfa) else [""] * 3
        cells = [f"{per_cent(cell['kept'])}{theirs}" for cell, theirs in zip(row.values(), paper, strict=True)]
        cells += map(str, figures["samples"][name].values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    reasons = sum(
        (Counter(cell["reasons"]) for name, row in figures["kept"].items() if name != ALL for cell in row.values()),
        Counter[str](),
    )
    lines += ["", "Unscored, by reason: " + (listed(reasons) or "none") + ".", "", "## Checks", ""]
    lines += [f"* {name}: {count}" for name, count in figures["checks"].items() if count] or ["* nothing found"]
    lines += [
        "",
        "## Length drift",
        "",
        "Words that the better of a pair has over the worse, on the average, with its 95 % interval over posts; all "
        "pairs.",
        "",
        "| attribute | E-C | E-O | O-C |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {' | '.join(map(words, row.values()))} |" for name, row in figures["drift"].items()]
    prompts = figures["prompts"]
    whole, varying = (prompts[name] or 0.0 for name in ("repeated", "repeated behind the first part"))
    lines += [
        "",
        "## Prompts",
        "",
        f"{prompts['requests']} requests (repairs aside) of {prompts['characters']} characters in all; {whole:.1%} of "
        "these repeat the beginning of another request and can be served from a prefix cache, "
        f"{prompts['new characters']} are new. Without the first part, in which the attributes stand and which all "
        f"requests share, {varying:.1%} are repeated.",
        "",
        "## Account",
        "",
        *(f"* {name}: {listed(value) if isinstance(value, dict) else value}" for name, value in accounts.items()),
    ]
    return "\n".join(lines) + "\n"


def per_cent(cell: Mapping[str, Any]) -> str:
    """A share with its interval."""
    if cell["value"] is None:
        return "–"
    interval = "" if cell["low"] is None else f" [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"
    return f"{100 * cell['value']:.1f}{interval}"


def words(cell: Mapping[str, Any]) -> str:
    """A number of words with its interval."""
    if cell["value"] is None:
        return "–"
    interval = "" if cell["low"] is None else f" [{cell['low']:+.1f}, {cell['high']:+.1f}]"
    return f"{cell['value']:+.1f}{interval}"


def listed(counts: Mapping[str, Any]) -> str:
    """Names and numbers in a line."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())
