"""What the benchmarks of training share: their options, the clock, and how far apart two ways to one loss are."""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch


def options_of(description: str, *, data: str, quick: str) -> argparse.Namespace:
    """What a call says; torch has its threads, and nothing but the figures is printed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=data)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0: its own choice")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def seconds(work: Callable[[], Any]) -> float:
    """What a piece of work takes by the clock."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


class Found(NamedTuple):
    """A loss and its gradients, in one row."""

    loss: float
    gradients: torch.Tensor


def found_by(model: Any, way: Callable[[], torch.Tensor]) -> Found:
    """What a way to compute a loss on a model gives."""
    model.zero_grad(set_to_none=True)
    loss = way()
    loss.backward()
    return Found(float(loss.detach()), torch.cat([weight.grad.flatten().double() for weight in model.parameters()]))


def apart(one: Found, other: Found) -> float:
    """The larger relative error of loss and gradients, relative to the first."""
    off = float((one.gradients - other.gradients).norm() / one.gradients.norm())
    return max(off, abs(one.loss - other.loss) / max(abs(one.loss), 1e-3))
