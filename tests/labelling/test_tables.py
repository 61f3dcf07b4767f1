"""What a synthesis came to."""

from askwell.labelling import tables
from askwell.labelling.tasks import Rewritten
from askwell.labelling.verification import Ranking
from askwell.llm.chat import Request
from askwell.records import Candidate, Preference, QuestionSet


def tally_of(*attributes, apart=False):
    """One question set, in each attribute E-C confirmed."""
    made = [Candidate(text="Any pain?", origin="rewritten")]
    preferences = []
    for name in attributes:
        preferences.append(Preference(attribute=name, better=len(made), worse=len(made) + 1, verified=True))
        made.append(Candidate(text=f"Any pain now, {name}?", origin="enhanced", attribute=name))
        made.append(Candidate(text="Pain?", origin="corrupted", attribute=name))
    keys = {"id": "q", "conversation_id": "t", "group": "g", "split": "dev", "context": ()}
    tally = tables.Tally(attributes, apart=apart)
    tally.add(QuestionSet(**keys, candidates=made, preferences=preferences), {})
    return tally


def kept_rows(*attributes):
    page = tables.markdown(tables.report(tally_of(*attributes)), {}).split("## Kept")[1].split("Unscored")[0]
    return {line.split(" | ")[0].strip("| "): line for line in page.splitlines() if line.startswith("|")}


def test_the_papers_share_of_all_six_stands_beside_all_six_alone():
    assert "(96.0)" in kept_rows(*tables.ALFA)["all"] and "(96.0)" in kept_rows(*tables.ALFA, "overall")["all"]
    for some in (("clarity", "focus"), (*tables.ALFA, "personal_interest")):
        rows = kept_rows(*some)
        assert "(" not in rows["all"] and "(85.8)" in rows["clarity"]
    assert kept_rows("focus")["focus"].endswith("| 0 | 1 | 0 |")  # one for dev


def test_a_judge_that_is_another_model_reads_a_post_for_itself():
    messages = ({"role": "system", "content": "s" * 90}, {"role": "user", "content": "post"})
    requests = [Request(messages, Rewritten, role="vary"), Request(messages, Ranking, role="rank")]
    together, apart = tally_of("focus"), tally_of("focus", apart=True)
    for tally in (together, apart):
        tally.asked(requests)
    one, two = (tables.report(tally)["prompts"] for tally in (together, apart))
    assert (one["requests"], one["repeated"], one["repeated behind the first part"]) == (2, 0.5, 0.5)
    assert (two["requests"], two["repeated"], two["repeated behind the first part"]) == (2, 0.0, 0.0)
