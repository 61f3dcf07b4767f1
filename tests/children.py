"""Commands in processes of their own, to be killed: forked from one that has loaded what takes long to load."""

import multiprocessing
import sys

from askwell import cli

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "askwell.cli",
        "askwell.clinic.logs",
        "askwell.evaluation.interviews",
        "askwell.evaluation.questions",
        "askwell.grading.fit",
        "askwell.grading.linear",
        "askwell.labelling.extraction",
        "askwell.labelling.hindsight",
        "askwell.labelling.synthesis",
        "askwell.sources.ingest",
    ]
)


def askwell(*words):
    """`askwell WORDS` in a process that has begun."""
    process = FORKED.Process(target=call, args=(list(map(str, words)),), daemon=True)
    process.start()
    return process


def call(words):
    sys.exit(cli.main(words))
