"""What is verification worth? Cases built of the clinic's visits by a writer and a judge who err as often as stated.

    python benchmarks/cases.py [--visits N]

The truth of every visit is known. A case is wrong where the option that is meant to be right names another condition
than the true one, or where a second option names it as well. `before` is the share of wrong ones among first drafts,
`after` among the cases that verification and one revision let through, `facts` among those that the judge, knowing the
facts alone, answers rightly as well; `lost` is the share of right first drafts that gave no case by `after`. A
writer's rate is that of `facts`, `inquiry`, `distractors` and `revise`, a judge's that of `support`, `options` and
`choose`. 95 % intervals by bootstrap over visits. The last line is JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from askwell import jsonl, recipes, runs
from askwell.clinic import logs
from askwell.labelling import case_building
from askwell.labelling.case_building import Drafted
from askwell.records import Case, Conversation
from askwell.sources import ingest
from askwell.statistics import mean_interval

WRITER, JUDGE = ("facts", "inquiry", "distractors", "revise"), ("support", "options", "choose")
RATES = ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.2, 0.0), (0.2, 0.1), (0.2, 0.2))
"""Of writer and judge."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=600)
    visits = parser.parse_args().visits
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        truth = read(folder, visits)
        print(
            "| writer errs | judge errs | wrong before | after | facts | lost | cases |\n|---|---|---|---|---|---|---|"
        )
        for number, (writer, judge) in enumerate(RATES):
            row = measured(folder / str(number), folder / "visits", truth, writer, judge)
            rows.append(row)
            shown = (shares(row[name]) for name in ("before", "after", "facts", "lost"))
            print(f"| {writer:.2f} | {judge:.2f} | {' | '.join(shown)} | {row['cases']} |", flush=True)
    print(json.dumps({"visits": visits, "rows": rows}))


def read(folder: Path, visits: int) -> dict[str, str]:
    """Visits as conversations; returns the true condition of each."""
    runs.carry_out(logs, recipes.ClinicLogsRecipe(conversations=visits, output=folder / "logs"), "clinic logs")
    source = recipes.IngestRecipe(source="chat", input=folder / "logs" / "logs.jsonl", output=folder / "visits")
    runs.carry_out(ingest, source, "ingest")
    found = runs.records_of(folder / "visits", Conversation, made_by="askwell ingest")
    return {visit.id: visit.outcome or "" for visit in found}


def measured(folder: Path, visits: Path, truth: dict[str, str], writer: float, judge: float) -> dict[str, Any]:
    """One row."""
    errors = {**dict.fromkeys(WRITER, writer), **dict.fromkeys(JUDGE, judge)}
    endpoint = recipes.Endpoint(base_url=recipes.CLINIC, model="clinic", extra_body={"errors": errors})
    built = {}
    for answerable in (False, True):
        recipe = recipes.CasesBuildRecipe(
            input=visits, output=folder / str(answerable), endpoint=endpoint, split="all", answerable=answerable
        )
        runs.carry_out(case_building, recipe, "cases build")
        built[answerable] = list(jsonl.read(recipe.output / "records.jsonl", Case))
    first: dict[str, Drafted] = {}
    for draft in jsonl.read(folder / "False" / "drafts.jsonl", Drafted):
        first.setdefault(draft.id, draft)
    before = {name: wrong(draft.options[0], draft.options[1:], truth[name]) for name, draft in first.items()}
    right, kept = [name for name, bad in before.items() if not bad], {case.id for case in built[False]}
    return {
        "writer": writer,
        "judge": judge,
        "before": mean_interval(list(before.values()), list(before)),
        "after": of_cases(built[False], truth),
        "facts": of_cases(built[True], truth),
        "lost": mean_interval([float(name not in kept) for name in right], right),
        "cases": len(built[False]),
    }


def of_cases(cases: list[Case], truth: dict[str, str]) -> Any:
    """The share of wrong ones."""
    found = [
        wrong(case.options[case.answer], [t for name, t in case.options.items() if name != case.answer], truth[case.id])
        for case in cases
    ]
    return mean_interval(found, [case.id for case in cases])


def wrong(answer: str, others: Any, truth: str) -> float:
    """1 where the answer does not name the truth, or another option does as well."""
    return float(truth not in answer or any(truth in text for text in others))


def shares(value: Any) -> str:
    """A share with its interval."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


if __name__ == "__main__":
    main()
