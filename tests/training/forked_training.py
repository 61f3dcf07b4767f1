"""SFT in processes of its own: `python forked_training.py` loads torch once, reads jobs and forks for each.

A job is a JSON line with `source` and `output`, and either `last`, the step after which the process kills itself, or
`together`, how many processes train as under torchrun. The answer is a line of their exit codes.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

from training_examples import recipe

import askwell.training.loop  # noqa: F401  # with torch, which sft loads only when it runs
from askwell import runs
from askwell.training import sft


def mortal(job):
    """Training that kills itself once a step is logged."""
    log = runs.Run.log

    def logged(run, **line):
        log(run, **line)
        if line["step"] == job["last"]:
            os.kill(os.getpid(), signal.SIGKILL)

    runs.Run.log = logged
    wanted = recipe(Path(job["source"]), Path(job["output"]))
    with runs.start(wanted, "train") as run:
        sft.run(wanted, run)


def one_of_several(job):
    """A process of those that train together."""
    wanted = recipe(Path(job["source"]), Path(job["output"]), batch=4, micro_batch=1)
    if runs.main_process():
        with runs.start(wanted, "train") as run:
            run.finish(sft.run(wanted, run))
    else:
        sft.run(wanted, runs.Run(wanted.output, resumed=False))


def forked(work, job, **environment):
    """The id of a process at work."""
    if child := os.fork():
        return child
    os.environ.update(environment)
    try:
        work(job)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def begun(job):
    """The processes of a job; several are told of one another as torchrun tells them."""
    if "last" in job:
        return [forked(mortal, job)]
    size = str(job["together"])
    world = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [forked(one_of_several, job, RANK=str(n), LOCAL_RANK=str(n), **world) for n in range(job["together"])]


def main():
    for line in sys.stdin:
        children = begun(json.loads(line))
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
