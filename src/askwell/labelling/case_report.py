"""What the building of cases came to: counts by reason, and what an examinee may get right without reading.

Shares are of the built cases, with 95 % intervals by bootstrap over groups (posts, people). A bound clearly above
chance says that the options give the answer away: by its place, its length, or words that the person used at first.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from askwell.labelling.variants import PLAIN, words_of
from askwell.records import Case
from askwell.statistics import mean_interval


class Fate(NamedTuple):
    """What became of a record: `unscored` is the reason where it gave no case; facts left out by reason; faults that
    the judge or the words showed, by kind, and how often the options were written anew."""

    unscored: str
    left_out: Mapping[str, int]
    faults: Sequence[str]
    revisions: int


def build(
    fates: Sequence[Fate], cases: Sequence[Case], review: Mapping[str, Any] | None, *, seed: int
) -> dict[str, Any]:
    """The content of report.json."""
    groups = [case.group for case in cases]
    letters = Counter(case.answer for case in cases)
    most = max(sorted(letters), key=letters.__getitem__, default="")

    def share(values: Sequence[float]) -> dict[str, Any]:
        return mean_interval(values, groups, seed=seed)._asdict()

    return {
        "records": len(fates),
        "cases": len(cases),
        "groups": len(set(groups)),
        "unscored": counted(fate.unscored for fate in fates if fate.unscored),
        "revised": sum(fate.revisions > 0 and not fate.unscored for fate in fates),
        "faults found": counted(kind for fate in fates for kind in fate.faults),
        "facts": sum(len(case.facts) for case in cases),
        "facts a case": share([float(len(case.facts)) for case in cases]),
        "facts left out": counted(
            kind for fate in fates for kind, times in fate.left_out.items() for _ in range(times)
        ),
        "answers by place": dict(sorted(letters.items())),
        "bounds": {
            "chance": share([1 / len(case.options) for case in cases]),
            f"always {most or 'A'}, the commonest answer": share([float(case.answer == most) for case in cases]),
            "the longest option": share([picked(case, len) for case in cases]),
            "the option most like the first words": share([picked(case, likeness(case)) for case in cases]),
        },
        "words of the answer over those of the wrong options": share([longer(case) for case in cases]),
        **({"review": dict(review)} if review is not None else {}),
    }


def counted(kinds: Any) -> dict[str, int]:
    """How often each occurs, the commonest first."""
    return dict(sorted(Counter(kinds).items(), key=lambda entry: (-entry[1], entry[0])))


def picked(case: Case, worth: Callable[[str], float]) -> float:
    """What one gets who picks the option that is worth most: 1, 0, or the share of a tie."""
    values = {name: worth(text) for name, text in case.options.items()}
    best = [name for name, value in values.items() if value == max(values.values())]
    return (case.answer in best) / len(best)


def likeness(case: Case) -> Callable[[str], float]:
    """The share of an option's words that stand in the first words of the case."""
    said = words_of(case.initial_information) - PLAIN

    def share(text: str) -> float:
        own = words_of(text) - PLAIN
        return len(own & said) / max(1, len(own))

    return share


def longer(case: Case) -> float:
    """By how many words the answer is longer than the mean of the others."""
    lengths = {name: len(text.split()) for name, text in case.options.items()}
    answer = lengths.pop(case.answer)
    return answer - sum(lengths.values()) / max(1, len(lengths))


def markdown(report: Mapping[str, Any], accounts: Mapping[str, Any]) -> str:
    """report.md."""
    lines = [
        "# Cases",
        "",
        f"{report['cases']} cases of {report['groups']} groups, from {report['records']} records; {report['revised']} "
        f"have options that were written anew. {report['facts']} facts, {cell(report['facts a case'])} a case.",
        "",
        f"* No case: {listed(report['unscored'])}",
        f"* Faults found by the checks and the judge: {listed(report['faults found'])}",
        f"* Facts left out: {listed(report['facts left out'])}",
        f"* The answer's place: {listed(report['answers by place'])}",
        "",
        "## What can be had without asking or reading",
        "",
        "Accuracy of one who knows nothing of the person; what is clearly above chance gives answers away. 95 % "
        "intervals by bootstrap over groups.",
        "",
        "| | accuracy |",
        "|---|---|",
        *(f"| {name} | {cell(value)} |" for name, value in report["bounds"].items()),
        "",
        "The answer is longer than the mean of the other options by "
        f"{cell(report['words of the answer over those of the wrong options'])} words.",
    ]
    if "review" in report:
        told = {name: value for name, value in report["review"].items() if name != "agreement"}
        lines += [
            "",
            "## What people said",
            "",
            f"{listed(told)}.",
            "",
            "Readers, who did not see which option was meant to be right, chose it in "
            f"{cell(report['review']['agreement'])} of {report['review']['agreement']['scored']} answers to options "
            "that they left as they were. MediQ-AskDocs has 0.886, by majority (ALFA, appendix E.1).",
        ]
    lines += ["", "## Account", "", *(f"* {name}: {value}" for name, value in accounts.items())]
    return "\n".join(lines) + "\n"


def cell(value: Mapping[str, Any]) -> str:
    """A figure with its interval."""
    if value["value"] is None:
        return "–"
    interval = "" if value["low"] is None else f" [{value['low']:.2f}, {value['high']:.2f}]"
    return f"{value['value']:.2f}{interval}"


def listed(counts: Mapping[str, Any]) -> str:
    """Names and numbers in a line."""
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
