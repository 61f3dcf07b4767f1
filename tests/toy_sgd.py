"""Small dialogues in the format of the Schema-Guided Dialogue data, invented here: two services, a few slots each."""

import json
import random
from pathlib import Path

SERVICES = {
    "Tables_1": {
        "city": (["Which city?", "In which town are you?", "Where should I look?"], ["Rome", "Oslo", "Lima"]),
        "cuisine": (["What kind of food?", "Which cuisine do you like?"], ["pizza", "curry", "noodles"]),
        "time": (["At what time?", "When will you come?"], ["at seven", "at eight"]),
    },
    "Taxis_1": {
        "to": (["Where to?", "Where do you want to go?"], ["home", "to the station"]),
        "seats": (["How many people?", "For how many of you?"], ["two", "three"]),
    },
}
OPENINGS = {"Tables_1": "I want to eat out.", "Taxis_1": "I need a taxi."}
CLOSINGS = {"Tables_1": "There is a table at Da Remo.", "Taxis_1": "Your taxi comes."}


def frame(service, *acts):
    return {"service": service, "actions": [{"act": act, "slot": slot, "values": []} for act, slot in acts]}


def turn(speaker, utterance, *frames):
    return {"speaker": speaker, "utterance": utterance, "frames": list(frames)}


def phase(rng, service):
    """One phase: the user's wish, a question for each slot, an answer to each, the offer."""
    slots = list(SERVICES[service])
    told = rng.choice([None, *slots])
    said = OPENINGS[service] if told is None else f"{OPENINGS[service]} {rng.choice(SERVICES[service][told][1])}."
    acts = [("INFORM_INTENT", "intent"), *([("INFORM", told)] if told else [])]
    turns = [turn("USER", said, frame(service, *acts))]
    for slot in slots:
        if slot != told:
            questions, answers = SERVICES[service][slot]
            turns.append(turn("SYSTEM", rng.choice(questions), frame(service, ("REQUEST", slot))))
            turns.append(turn("USER", f"{rng.choice(answers)}.", frame(service, ("INFORM", slot))))
    return [*turns, turn("SYSTEM", CLOSINGS[service], frame(service, ("OFFER", "name")))]


def dialogue(rng, number):
    services = rng.sample(list(SERVICES), rng.choice([1, 1, 2]))
    turns = [one for service in services for one in phase(rng, service)]
    thanks = turn("USER", "Thank you.", frame(services[-1], ("THANK_YOU", "")))
    bye = turn("SYSTEM", "Good bye.", frame(services[-1], ("GOODBYE", "")))
    return {"dialogue_id": f"1_{number:05}", "services": services, "turns": [*turns, thanks, bye]}


def write(folder: Path, count: int, *, seed: int = 0) -> Path:
    """`count` dialogues in folder/dialogues_001.json; returns the folder."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "dialogues_001.json").write_text(json.dumps([dialogue(rng, number) for number in range(count)]))
    return folder
