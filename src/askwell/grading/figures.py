"""How good a slot grader is: its figures on the test split and on corrupted questions, as JSON and as a page."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from askwell.grading.slots import SlotGrader
from askwell.grading.utterances import Example
from askwell.statistics import mean_interval, ratio_interval

CONFUSIONS, WRONG, CORRUPTED = 15, 10, 200
Asked = frozenset[str] | None


def of_test(grader: SlotGrader, test: Sequence[Example], *, seed: int) -> dict[str, Any]:
    """Figures over experts' questions, over all their utterances, by service; confusions, and wrong ones to read."""
    asked = grader.asked([(example.service, example.text) for example in test])
    pairs = list(zip(test, asked, strict=True))
    questions = [(example, found) for example, found in pairs if example.asks]
    wrong = [(example, found) for example, found in pairs if found is not None and found != example.asks]
    confusions = Counter(
        (example.service, named(example.asks - found), named(found - example.asks)) for example, found in wrong
    )
    return {
        "test": {"questions": summary(questions, seed=seed), "all": summary(pairs, seed=seed)},
        "by_service": {
            service: summary([pair for pair in questions if pair[0].service == service], seed=seed)
            for service in sorted({example.service for example, _ in questions})
        },
        "confusions": [
            {"service": service, "missed": missed, "added": added, "count": count}
            for (service, missed, added), count in confusions.most_common(CONFUSIONS)
        ],
        "wrong": [
            {"service": example.service, "text": example.text, "truth": named(example.asks), "read": named(found)}
            for example, found in random.Random(seed).sample(wrong, min(WRONG, len(wrong)))
        ],
    }


def summary(pairs: Sequence[tuple[Example, Asked]], *, seed: int) -> dict[str, Any]:
    """Exact-set match and micro F1 over what is scored, and the share that is; each with its 95 % interval."""
    groups = [example.group for example, _ in pairs]
    exact = [None if found is None else float(found == example.asks) for example, found in pairs]
    both = [0 if found is None else 2 * len(found & example.asks) for example, found in pairs]
    either = [0 if found is None else len(found) + len(example.asks) for example, found in pairs]
    return {
        "exact": mean_interval(exact, groups, seed=seed)._asdict(),
        "coverage": mean_interval([float(value is not None) for value in exact], groups, seed=seed)._asdict(),
        "f1": ratio_interval(both, either, groups, seed=seed)._asdict(),
    }


def named(slots: frozenset[str]) -> str:
    return ", ".join(sorted(slots)) or "nothing"


def corruptions(random_source: random.Random) -> dict[str, Callable[[str], str]]:
    """What a policy under training may come up with, made from an expert's question."""

    def repeated(text: str) -> str:
        spoken = text.split()
        place = random_source.randrange(len(spoken))
        return " ".join(spoken[:place] + [spoken[place]] * 3 + spoken[place + 1 :])

    def shuffled(text: str) -> str:
        spoken = text.split()
        random_source.shuffle(spoken)
        return " ".join(spoken)

    def cut(text: str) -> str:
        spoken = text.split()
        return " ".join(spoken[: len(spoken) // 2])

    return {
        "a word three times": repeated,
        "words shuffled": shuffled,
        "said twice": lambda text: f"{text} {text}",
        "first half alone": cut,
        "its last word alone": lambda text: text.split()[-1],
    }


def of_corrupted(
    grader: SlotGrader, test: Sequence[Example], *, random_source: random.Random
) -> dict[str, dict[str, int]]:
    """What the grader says of test questions, intact and corrupted: abstains, reads the same set, another, none."""
    questions = [example for example in test if example.asks and example.text.split()]
    questions = random_source.sample(questions, min(CORRUPTED, len(questions)))
    found: dict[str, dict[str, int]] = {}
    for name, corrupt in {"intact": str, **corruptions(random_source)}.items():
        asked = grader.asked([(question.service, corrupt(question.text)) for question in questions])
        outcome = Counter(verdict(slots, question.asks) for slots, question in zip(asked, questions, strict=True))
        found[name] = {name: outcome[name] for name in ("abstains", "same", "other", "nothing")}
    return found


def verdict(found: Asked, truth: frozenset[str]) -> str:
    if found is None:
        return "abstains"
    return "same" if found == truth else "other" if found else "nothing"


def page(report: Mapping[str, Any]) -> str:
    """The report, to be read by people."""
    counts = report["counts"]
    lines = [
        f"# A {report['kind']} grader, fold {report['fold']}",
        "",
        f"Learned from {counts['train_questions']} questions among {counts['train_utterances']} utterances of experts, "
        f"in {counts['services']} services. It abstains below a confidence of {report['threshold']:.3f}, chosen on "
        f"{counts['dev_questions']} dev questions for an exact match of {report['precision']}, and where less than "
        f"{report['least']:.2f} of the neighbouring words are an expert's.",
        "",
        "Test split, with 95 % intervals from a bootstrap over conversations:",
        "",
        *table(
            ("over", "exact set", "micro F1", "scored", "n scored", "n unscored"),
            [row("experts' questions", report["test"]["questions"]), row("all utterances", report["test"]["all"])],
        ),
        "## By service, experts' questions",
        "",
        *table(
            ("service", "exact set", "micro F1", "scored", "n scored", "n unscored"),
            [row(service, figures) for service, figures in report["by_service"].items()],
        ),
        "## Most frequent confusions",
        "",
        *table(
            ("service", "missed", "added", "count"), [list(map(str, entry.values())) for entry in report["confusions"]]
        ),
        "## Wrong ones to read",
        "",
        *table(("service", "text", "truth", "read"), [list(entry.values()) for entry in report["wrong"]]),
        "## Corrupted questions of experts",
        "",
        *table(
            ("corruption", "abstains", "same set", "another set", "nothing"),
            [[name, *map(str, outcome.values())] for name, outcome in report["corrupted"].items()],
        ),
    ]
    return "\n".join(lines)


def row(name: str, figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    exact = figures["exact"]
    shown = [interval(figures[key]) for key in ("exact", "f1", "coverage")]
    return [name, *shown, str(exact["scored"]), str(exact["unscored"])]


def interval(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "unscored"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table and an empty line; a bar in a cell would end it."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in rows]
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *cells)] + [""]
