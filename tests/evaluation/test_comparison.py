"""Two runs side by side: paired by case, McNemar exact, and the other way round the same with the other sign."""

import pytest
from scipy.stats import binomtest

from askwell import jsonl, recipes, runs
from askwell.cli import main
from askwell.errors import DataError
from askwell.evaluation import comparison
from askwell.records import Case, Episode


def run_of(folder, name, decisions, *, groups=None, answer="A"):
    """A finished run of interviews with these decisions, by case."""
    output = folder / name
    recipe = recipes.EvaluateInterviewsRecipe(policy="clinic:myopic", output=output)
    with runs.start(recipe, "evaluate interviews") as run:
        cases = [
            Case(
                id=case,
                group=(groups or {}).get(case, case),
                split="test",
                initial_information="It hurts.",
                facts=(),
                inquiry="What is it?",
                options={"A": "a", "B": "b"},
                answer=answer,
            )
            for case in decisions
        ]
        episodes = [
            Episode(case_id=case, exchanges=(), first_choice="B", decision=choice, end="stopped")
            for case, choice in decisions.items()
        ]
        jsonl.write(run.path / "cases.jsonl", cases)
        jsonl.write(run.records, episodes)
        run.finish({})
    return output


def compared(folder, first, second, name="compared"):
    recipe = recipes.CompareRecipe(first=first, second=second, output=folder / name)
    with runs.start(recipe, "evaluate compare", inputs=comparison.inputs(recipe)) as run:
        counts = comparison.run(recipe, run)
        run.finish(counts)
    return counts


@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (0, 6), (40, 61)])
def test_mcnemar_is_the_exact_binomial_test(pair):
    expected = binomtest(min(pair), sum(pair), 0.5).pvalue if sum(pair) else 1.0
    assert comparison.mcnemar(*pair) == pytest.approx(expected)


def test_runs_are_paired_by_case_whatever_their_order(tmp_path):
    one = run_of(tmp_path, "one", {"1": "A", "2": "A", "3": "B", "4": "A", "5": None, "6": "A"})
    other = run_of(tmp_path, "other", {"4": "B", "3": "B", "2": "A", "1": "B", "5": "A", "7": "A"})
    counts = compared(tmp_path, one, other)
    assert counts["cases in both"] == 5
    assert counts["difference in accuracy"] == pytest.approx(3 / 4 - 1 / 4)  # cases 1 to 4: nobody knows of 5
    assert counts["McNemar p"] == pytest.approx(0.5)
    turned = compared(tmp_path, other, one, "turned")
    assert turned["difference in accuracy"] == -counts["difference in accuracy"]
    assert turned["McNemar p"] == counts["McNemar p"]
    assert "1 and 1 are in one run alone" in (tmp_path / "compared" / "report.md").read_text()


def test_intervals_draw_groups_not_cases(tmp_path):
    groups = {str(case): str(case // 6) for case in range(36)}
    better = {case: "A" if int(case) < 18 else "B" for case in groups}
    worse = dict.fromkeys(groups, "B")

    def width(name, by):
        found = [
            run_of(tmp_path, f"{name} {run}", decisions, groups=by) for run, decisions in (("a", better), ("b", worse))
        ]
        sides = [comparison.sides(path) for path in found]
        pairs = [
            comparison.Pair(case_id=case, group=group, first=side, second=sides[1][case][1])
            for case, (group, side) in sides[0].items()
        ]
        interval = comparison.compared(pairs)["differences"]["accuracy"]
        assert interval["value"] == 0.5
        return interval["high"] - interval["low"]

    assert width("grouped", groups) > 1.5 * width("alone", {case: case for case in groups})


def test_runs_without_a_common_case_are_refused(tmp_path):
    one, other = run_of(tmp_path, "one", {"1": "A"}), run_of(tmp_path, "other", {"2": "A"})
    with pytest.raises(DataError, match="no case in common"):
        compared(tmp_path, one, other)


def test_the_command_takes_two_names_without_flags(tmp_path, capsys):
    one, other = run_of(tmp_path, "one", {"1": "A"}), run_of(tmp_path, "other", {"1": "B"})
    assert main(["evaluate", "compare", str(one), str(other), "--output", str(tmp_path / "out")]) == 0
    assert "difference in accuracy: 1.0" in capsys.readouterr().out
    assert main(["evaluate", "compare", str(one), "--output", str(tmp_path / "again")]) == 2
    assert "'second' is missing" in capsys.readouterr().err
