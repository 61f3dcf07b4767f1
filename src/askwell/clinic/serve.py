"""`askwell clinic serve`: the clinic as an OpenAI-compatible endpoint over HTTP, on this machine alone.

Plays every role from the prompts that a large model would get (`clinic.roles`), with stated error rates, latencies and
faults (`mock_endpoint`). Serves until it is interrupted, then writes its own account of what was asked to report.json.
"""

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any, cast

from askwell import runs
from askwell.clinic.comparing import BIASES
from askwell.clinic.knowledge import FOLDER, load
from askwell.clinic.roles import Roles
from askwell.errors import RecipeError
from askwell.mock_endpoint import FAULTS, Faults, MockEndpoint
from askwell.recipes import ClinicServeRecipe
from askwell.runs import Run

log = logging.getLogger(__name__)


def inputs(recipe: ClinicServeRecipe) -> list[Path]:
    """The clinic's knowledge; refuses faults and roles that it does not know."""
    known = {"faults": set(FAULTS), "errors": set(Roles.NAMES), "biases": set(BIASES)}
    for field, names in known.items():
        if unknown := sorted(getattr(recipe, field).keys() - names):
            raise RecipeError(f"{field}: unknown {', '.join(map(repr, unknown))}; known: {', '.join(sorted(names))}")
    if sum(recipe.faults.values()) > 1:
        raise RecipeError(f"faults: rates sum to {sum(recipe.faults.values()):.2f}; a request meets at most one fault")
    return [FOLDER]


def plan(recipe: ClinicServeRecipe) -> dict[str, object]:
    """What would be served."""
    inputs(recipe)
    world = load()
    return {"roles": ", ".join(Roles.NAMES), "findings": len(world.findings), "conditions": len(world.conditions)}


def run(recipe: ClinicServeRecipe, run: Run) -> dict[str, object]:
    """Serve until SIGINT or SIGTERM; returns the endpoint's account."""
    roles = Roles(load(), errors=recipe.errors, biases=recipe.biases, seed=recipe.seed)
    endpoint = MockEndpoint(
        roles.answer,
        latency=recipe.latency,
        tail=recipe.tail,
        slots=recipe.slots,
        context=recipe.context,
        faults=Faults(**cast(Any, recipe.faults)),
        seed=recipe.seed,
        model="clinic",
    )
    asyncio.run(serve(endpoint, recipe.port))
    account = endpoint.ledger.summary()
    runs.write_json(run.report, account)
    return {**account, "paid_again": len(account["paid_again"])}


async def serve(endpoint: MockEndpoint, port: int) -> None:
    """Until a signal comes."""
    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with endpoint.serve(port) as base_url:
        log.info("serving the clinic: --endpoint.base_url %s --endpoint.model clinic (Ctrl-C ends it)", base_url)
        await stopped.wait()
