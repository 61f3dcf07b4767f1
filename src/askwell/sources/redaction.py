"""Redaction on ingest: what points to a person is replaced by the name of its kind, as [NAME] or [DATE].

Own recognizers, by regular expression and cue; where `presidio_analyzer` is installed, its spans are merged in. All
texts of a conversation are redacted together: a name that a cue gives away once ("Dr. Kumar", "my name is Jane Doe")
is replaced wherever it stands alone. Passes are repeated until one finds nothing, so that redacting again changes
nothing. Every pattern starts at a boundary and repeats nothing that could match in two ways: time is linear.

This lowers risk; it is no proof of anonymity. Names without a cue, places and spelled-out digits go unseen.
"""

import functools
import hashlib
import importlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from askwell.records import Conversation, Message, Thread

Span = tuple[int, int, str]  # start, end and kind of what is replaced


def _any(words: str) -> str:
    return f"(?:{'|'.join(words.split())})"


# Numbers: EDGE says that no part of a longer one stands before, NO_MEASURE that none of a measurement follows.
DASH = r"[-\u2010-\u2013]"
EDGE = rf"(?<![^\W_])(?<!\d[./])(?<!\d{DASH})"
NO_MEASURE = r"(?![/:.,]\d|[ -]?(?:%|(?:m[cg]g?|ml|cc|percent|(?:second|minute|hour|day|week|month|time)s?)\b))"
OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
UNIT = _any("one two three four five six seven eight nine")
TEEN = _any("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
UPTO99 = rf"(?:(?:twen|thir|for|fif|six|seven|eigh|nine)ty(?:[ -]{UNIT})?|{TEEN}|{UNIT})"
NTH = r"(?:first|second|third|(?:four|fif|six|seven|eigh|nine?)th)"
TEENTH = r"(?:ten|eleven|twelf|(?:thir|four|fif|six|seven|eigh|nine)teen|twentie|thirtie)th"
# Dates: month, day and year in digits and in words.
M, D, YYYY = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])", r"(?:19|20)\d\d"
MONTH = (
    r"(?:(?:jan(?:uary)?|feb(?:ruary)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?|(?-i:May|MAY|March|MARCH|Mar))\b(?:\.(?= ?\d))?)"
)
DAY = rf"(?:{D}(?:st|nd|rd|th)?(?![\w%])|(?:(?:(?:twenty|thirty)[ -])?{NTH}|{TEENTH})\b)"
YEAR = (
    rf"[ ,-]{{1,2}}(?:(?:of|in) )?(?:{YYYY}|['’]\d\d|two thousand(?: (?:and )?{UPTO99})?|oh? {UNIT}"
    rf"|(?:nineteen|twenty)[ -](?:{UPTO99}|hundred|oh? {UNIT})|(?:six|seven|eigh|nine)ty[ -]{UNIT})\b"
)
# Ages above 89: the number, whose it is, and what follows where it is no measurement.
OLD = rf"(?:9\d|1[01]\d|ninety(?:[ -]{UNIT})?|(?:a |one )?hundred(?:[ -]and)?(?:[ -](?:{TEEN}|{UNIT}))?)"
KIN = "(?:grand)?(?:mother|father|ma|pa) mom mum dad wife husband aunt uncle sister brother"
WHO = _any(f"i you he she who patient man woman lady gentleman {KIN}")
THEN = _any("and but now so who when with because in years? next later this last soon today i he she we my the")
CLAUSE = rf"(?=\s*(?:\Z|[.,;:!?)](?!\d)|\n|{THEN}\b))"
# Names: UP and LOW are letters not plainly of the other case, GO refuses what is no name.
UP, LOW, LETTER = r"[^\W\d_a-zß-öø-ÿ]", r"[^\W\d_A-ZÀ-ÖØ-Þ]", r"(?:[^\W\d_]|[\u0300-\u036f])"
WORD = rf"[^\W\d_](?:(?!['’]s\b)['’]?{LETTER})*"
STOP = _any(
    "(?-i:a) an and are as at but by can could did do does for from had has have he hello her hi his how i if in is it "
    "its let lets may my no not of okay on or our please she should so thank thanks that the their then there these "
    "they this to was we well were what when where which who why will with would yes you your yeah monday tuesday "
    "wednesday thursday friday saturday sunday patient doctors? dr mr mrs ms miss mister nurse sir ma['’]am all folks "
    "everyone team question god said says told asked here also after any before good great just last next now today "
    "alright new practitioner anesthetist day stage type grade vitamin american african native asian catholic clinic "
    "hospital center care pharmacy disease syndrome up down across off along over blocks? minutes? hours?"
)
GO = rf"(?!(?i:{STOP})(?!\w))"
ANY = rf"{GO}[^\W\d_]{{2,}}"
TITLED = rf"{GO}{UP}(?:['’]{UP})?(?=\w*{LOW}){WORD}(?:-{WORD})?"
VAN = r"(?:(?:v[ao]n|de|de[nrl]|la|bin|di|da) ){0,2}"
FULL = (
    rf"{VAN}{GO}{UP}(?:(?!['’]s\b)['’-]?{LETTER})*(?:(?:(?<=\W[A-W])\. ?|[ \t]){VAN}"
    rf"(?:{TITLED}|{GO}{UP}(?!\w|['’](?!s\b))|{GO}[A-Z]{{4,}}(?!\w))){{0,3}}"
)
ENDS = r"(?=\s*(?:\Z|[.,;!?\n]|(?:and|from|speaking|calling|with)\b))"
# Addresses.
CAP = r"(?:St\.|[A-Z][\w'’]{0,30})"
ROAD = "(?:street|avenue|boulevard|lane|road|drive)"
STREET = (
    rf"(?:(?=[A-Z])(?i:{ROAD}|court|place|terrace|highway|parkway|circle|square|plaza)"
    r"|(?:St|Ave|Rd|Blvd|Ln|Ct|Way|Dr(?!\.?[ ][A-Z]))\b\.?)"
)
ZIP = r"\d{5}(?:-\d{4})?(?![\w-])"
LINK = r"[^\s<>\[\]\"]*[^\s<>\[\]\".,;:!?)']"

RECOGNIZERS: dict[str, list[str]] = {
    "EMAIL": [r"(?<![\w.+%-])(?P<x>[\w.+%-]+@[\w.-]+\.[^\W\d_]{2,})"],
    "URL": [
        rf"(?<!\w)(?P<x>(?:https?://|www\.){LINK})",
        rf"(?<![\w.@-])(?P<x>[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov)\b(?:/{LINK})?)",
    ],
    "ID": [
        rf"{EDGE}(?P<x>\d{{3}}{DASH}\d\d{DASH}\d{{4}}|\d{{9}}|1\d{{9}}|[1-9]\d{{10}}|\d{{12,}})(?!\d)",
        rf"{EDGE}(?P<card>\d{{4}}(?:[ -]\d{{4}}){{3}}|\d{{4}}[ -]\d{{6}}[ -]\d{{5}})(?!\d)",
        r"\b(?:mrn|ssn|(?:social security|medical record|chart|account|acct|policy|member|claim|insurance|passport|nhs"
        r"|licen[cs]e|medicare|medicaid|patient id)s?)\b(?:\W{1,3}(?:number|num|no|id|card|is|was)\b){0,3}[^\w$€£]{1,3}"
        r"(?!(?:19|20)\d\d\b)(?P<x>(?=(?:[A-Z -]{0,4}\d){4})[A-Z]{0,4}-?\d[\dA-Z-]*(?: \d{2,})*)(?!\w)",
        rf"(?<![\w:.])(?P<x>(?:{OCTET}\.){{3}}{OCTET})(?!\w|\.\d)",
        r"(?<![\w:.])(?P<x>(?:[\da-f]{1,4}:){7}[\da-f]{1,4}|(?:[\da-f]{1,4}:){1,6}(?::[\da-f]{1,4}){1,6})(?![\w:])",
    ],
    "PHONE": [
        rf"(?<![\w+])(?P<x>\+\d(?:(?:[ .()]|{DASH}){{0,2}}\d){{6,14}})(?!\d)",
        rf"{EDGE}(?P<x>(?:\+?1(?:[ .]|{DASH}))?(?:\(\d{{3}}\) ?|\d{{3}}(?:[ .]|{DASH}))\d{{3}}(?:[ .]|{DASH})\d{{4}}"
        r"(?: ?(?:x|ext\.?|extension) ?\d{1,6})?)(?!\d)",
        rf"{EDGE}(?P<x>[2-9]\d{{9}}|0\d{{2,4}}[ -]?\d{{3,4}}[ -]?\d{{3,4}})(?!\d)",
        r"\b(?:(?:tele)?phone|tel|fax|cell(?! count)|mobile|pager|call|text|reach|contact|number is)\b[^\d\n]{0,30}"
        rf"{EDGE}(?P<x>\d{{3}}(?:[ .]|{DASH})\d{{4}}|\d{{1,4}}(?:(?:[ .]|{DASH})\d{{2,5}}){{2,5}})(?![\d/])",
    ],
    "DATE": [
        rf"{EDGE}(?P<x>{YYYY}([-/.]){M}\2{D}(?:T[\d:.]{{5,15}}Z?)?)(?![\w/-])",
        rf"(?<![\w/.])(?P<x>(?:{M}/{D}|{D}/{M})/(?:{YYYY}|\d\d)|{M}/{YYYY}|{M}/0\d|0[1-9]/\d\d)(?![\w/]|-?\d){NO_MEASURE}",
        rf"{EDGE}(?P<x>(?:{M}([-.]){D}\2|{D}([-.]){M}\3){YYYY}|[01]\d([-.])[0-3]\d\4\d\d)(?![\w/-]|\.\d){NO_MEASURE}",
        rf"\b(?:in|since|from|to|until|through|by) (?P<x>{M}/[6-9]\d)(?![\w/%-]){NO_MEASURE}",
        rf"\b(?:on|since|dated|until) (?P<x>{M}/(?:1[1-9]|2\d|3[01]))(?![\w/%-]| (?:of|tender)\b){NO_MEASURE}",
        rf"(?<!\w)(?P<x>{MONTH}[ -]?(?:the )?(?:{DAY}|{UPTO99}){YEAR}|{MONTH}{YEAR}"
        rf"|{MONTH} ?(?:the )?(?:{DAY}|(?:{TEEN}|(?:twenty|thirty)(?:[ -]{UNIT})?)\b)){NO_MEASURE}",
        rf"{EDGE}(?P<x>(?:{DAY} (?:of )?|{D}(?:st|nd|rd|th)?[ -]?){MONTH}(?:{YEAR}|-\d\d\b)?)",
    ],
    "AGE": [
        rf"{EDGE}(?P<x>{OLD})(?=[ -]{{0,2}}(?:(?:years?|yrs?)[ -]?(?:old|of age|young)|y\.?/?o\b))",
        rf"\bage[ds]?:?(?: of| is)?:? (?P<x>{OLD})(?![\w%/-]){NO_MEASURE}",
        rf"\b(?:{WHO}(?:['’](?:m|s|re|ll be)| am| is| are| was| will be)|turn(?:s|ed|ing)?)"
        rf"(?: (?:now|almost|nearly|about|already|just|only))? (?P<x>{OLD})\b{CLAUSE}",
    ],
    "ADDRESS": [
        rf"(?-i:{EDGE}(?P<x>\d[\d-]{{0,6}}[A-Za-z]? (?:{CAP} |[NSEW]\. |\d+(?:st|nd|rd|th) ){{1,3}}{STREET}(?!\w)"
        rf"(?:,? (?:Apt|Apartment|Suite|Unit|Ste)\.? ?#?\w+)?(?:(?:,? {CAP}){{1,6}},? {ZIP})?))",
        rf"{EDGE}(?P<x>\d{{1,6}} (?:{GO}[^\W\d_]+ ){{1,2}}{ROAD}|p\.? ?o\.? box \d+)\b",
        rf"(?-i:\b(?:on|at) (?P<x>(?:{CAP} ){{1,2}}(?=[A-Z])(?i:{ROAD}))\b)",
        rf"(?-i:(?<!\w)(?<!\w['’])(?P<x>{CAP}(?: {CAP})?, [A-Z]{{2}},? {ZIP}))",
        r"\b(?:zip|postal|post)[ -]?code\b(?:\W{1,3}(?:is|was|of)\b)?\W{1,3}"
        r"(?P<x>\d{4,6}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]\d[A-Z] ?\d[A-Z]\d)(?!\w)",
    ],
    "NAME": [
        rf"(?-i:(?<![\w-])(?<!\w['’])(?:(?:[Dd]r|DR\b(?=\.)|[Mm]rs?|MRS|Ms|Prof)\b(?:\.[ \t]?|[ \t])"
        r"|(?:Miss|MISS|Nurse|doctor(?![ \t][A-Z]{2})|Doctor|DOCTOR|[Mm]ister|[Pp]rofessor)[ \t])"
        rf"(?P<x>{FULL}))",
        r"(?-i:\b(?i:(?:my|his|her|their|your|full|first|last|patient(?:['’]s)?)(?: full| first| last)? name"
        rf"(?: is|['’]s|:)|(?<!\w )name:)[ \t](?P<x>{FULL}|{ANY}(?: {ANY}{ENDS})?))",
        rf"(?-i:\b(?i:hi|hello|hey|dear|good morning),?(?: there,?)? (?P<x>{TITLED}(?: {TITLED})?){ENDS})",
        rf"(?-i:\b(?i:this is|i am|i['’]m) (?P<x>{TITLED} (?:[A-Z]\.? )?{TITLED}){ENDS})",
        rf"(?-i:\b(?i:this is) (?P<x>{TITLED}(?: {TITLED})?)(?= (?:speaking|calling|here)\b))",
    ],
}
"""Patterns of each kind; the named group is what is replaced, `card` only where Luhn's checksum holds."""
PATTERNS = [(kind, re.compile(pattern, re.I)) for kind, patterns in RECOGNIZERS.items() for pattern in patterns]
PLACEHOLDER = re.compile(rf"(\[(?:{'|'.join(RECOGNIZERS)})\])")
# A word, with what stands before it where it opens a sentence; those in ORDINARY are names only inside one.
ALONE = re.compile(rf"(?P<opens>(?:\A|[.!?:;\n\"“])\s{{0,2}})?(?<!\w)(?P<x>{WORD})(?!\w)")
ORDINARY = re.compile("bill|black|brown|day|gr[ae]y|green|hand|hope|little|long|mark|may|short|small|white|will|young")
# Presidio's entities that are taken over; its dates are not, they hold "two weeks ago".
PRESIDIO = {"PERSON": "NAME", "LOCATION": "ADDRESS", "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "URL": "URL"}
PRESIDIO |= dict.fromkeys(["CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "US_PASSPORT"], "ID")


def redact(text: str) -> tuple[str, Counter[str]]:
    """`text` without what points to a person, and how much was replaced, by kind."""
    (redacted,), counts = redact_all([text])
    return redacted, counts


def redact_all(texts: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """The texts of one conversation, redacted together."""
    done, counts, known = list(texts), Counter[str](), set[str]()
    while True:
        before = counts.total()
        for i, text in enumerate(done):
            parts = PLACEHOLDER.split(text)
            parts[::2] = [_replaced(part, known, counts) if part.strip() else part for part in parts[::2]]
            done[i] = "".join(parts)
        if counts.total() == before:
            return done, counts


def redact_conversation(conversation: Conversation) -> tuple[Conversation, Counter[str]]:
    """Messages, goal and outcome redacted; id and group, which are keys, hashed where they give someone away."""
    said = conversation.messages
    texts = [conversation.goal or "", conversation.outcome or "", *(message.content for message in said)]
    (goal, outcome, *contents), counts = redact_all(texts)
    keys = {"id": redact_key(conversation.id), "group": redact_key(conversation.group)}
    told = {"goal": goal or None, "outcome": outcome or None, "messages": _saying(said, contents)}
    return conversation.model_copy(update={**keys, **told, "redacted": True}), counts


def redact_thread(thread: Thread) -> tuple[Thread, Counter[str]]:
    """Every text of a thread redacted; its keys, hashed where they give someone away."""
    fields = ("question", "answer", "outcome", "conclusion", "flair")
    texts = [getattr(thread, field) or "" for field in fields]
    texts += [*thread.hypotheses, *(message.content for message in thread.context)]
    done, counts = redact_all(texts)
    told: dict[str, object] = {field: text or None for field, text in zip(fields, done, strict=False)}
    rest, count = done[len(fields) :], len(thread.hypotheses)
    told |= {"hypotheses": tuple(rest[:count]), "context": _saying(thread.context, rest[count:])}
    keys = {key: redact_key(getattr(thread, key)) for key in ("id", "conversation_id", "group")}
    return thread.model_copy(update={**keys, **told, "redacted": True}), counts


def _saying(messages: tuple[Message, ...], contents: list[str]) -> tuple[Message, ...]:
    """The messages with other contents."""
    return tuple(
        message.model_copy(update={"content": content}) for message, content in zip(messages, contents, strict=True)
    )


def redact_key(key: str) -> str:
    """A key as it is, or its hash where it holds an e-mail address, a phone number or an identifier."""
    if any(kind in ("EMAIL", "PHONE", "ID") for _, _, kind in _by_pattern(key, set())):
        return hashlib.sha256(key.encode()).hexdigest()[:16]
    return key


def _replaced(text: str, known: set[str], counts: Counter[str]) -> str:
    """`text` with its spans replaced; spans that overlap are one, whose kind is that of the longest."""
    spans: list[Span] = []
    found = [*_by_pattern(text, known), *_by_name(text, known), *_by_presidio(text)]
    for start, end, kind in sorted(found, key=lambda span: (span[0], -span[1])):
        if spans and start < spans[-1][1]:
            first, last, longer = spans.pop()
            start, end, kind = first, max(last, end), kind if end - start > last - first else longer
        spans.append((start, end, kind))
    counts.update(kind for _, _, kind in spans)
    ends = [0, *(end for _, end, _ in spans)]
    kept = [f"{text[before:start]}[{kind}]" for before, (start, _, kind) in zip(ends, spans, strict=False)]
    return "".join(kept) + text[ends[-1] :]


def _by_pattern(text: str, known: set[str]) -> Iterator[Span]:
    """What patterns find; the words of names are known from then on, but for initials and abbreviations."""
    for kind, pattern in PATTERNS:
        for found in pattern.finditer(text):
            if found.lastgroup == "card" and not _luhn(found["card"]):
                continue
            start, end = found.span(found.lastgroup or 0)
            yield start, end, kind
            if kind == "NAME":
                words = re.findall(WORD, text[start:end])
                known.update(word.casefold() for word in words if len(word) > (3 if word.isupper() else 1))


def _luhn(text: str) -> bool:
    digits = [int(digit) for digit in reversed(text) if digit.isdecimal()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _by_name(text: str, known: set[str]) -> Iterator[Span]:
    """Known names that stand alone, with a capital."""
    for found in ALONE.finditer(text) if known else ():
        word = found["x"].casefold()
        ordinary = found["opens"] is not None and ORDINARY.fullmatch(word)
        if word in known and found["x"][0].isupper() and not ordinary:
            yield *found.span("x"), "NAME"


def _by_presidio(text: str) -> Iterator[Span]:
    engine = _presidio()
    found = engine.analyze(text=text, language="en", entities=list(PRESIDIO), score_threshold=0.5) if engine else ()
    for result in found:
        yield result.start, result.end, PRESIDIO[result.entity_type]


@functools.cache
def _presidio() -> Any:
    """Presidio's analyzer, None where it is not installed."""
    try:
        return importlib.import_module("presidio_analyzer").AnalyzerEngine()
    except ImportError:
        return None
