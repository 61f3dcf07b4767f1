"""Where an endpoint is: on a server, or in this process as the simulated clinic or a checkpoint of one's own.

The last alone needs torch, and loads it when it is asked for.
"""

from pathlib import Path

from askwell import runs
from askwell.clinic.knowledge import load
from askwell.clinic.roles import Roles
from askwell.errors import RecipeError
from askwell.llm.transport import InProcess, Transport
from askwell.mock_endpoint import MockEndpoint
from askwell.recipes import CLINIC, LOCAL, Endpoint

IN_FLIGHT = 64
"""Calls of a checkpoint in flight at most: twice what it draws together, so that a batch is full when its turn comes
and nobody waits for more than one other."""


def inputs(endpoint: Endpoint) -> list[Path]:
    """The files that an endpoint answers from: a checkpoint's. Refuses one that cannot be read, and error rates of
    roles that the clinic does not play; loads no weights."""
    if endpoint.base_url == CLINIC:
        errors = endpoint.extra_body.get("errors", {})
        if not isinstance(errors, dict) or errors.keys() - set(Roles.NAMES):
            raise RecipeError(
                f"endpoint.extra_body.errors {errors!r}: the share of requests that the clinic gets wrong, by role, "
                f"such as {{enhance: 0.1}}; roles: {', '.join(Roles.NAMES)}"
            )
    if endpoint.base_url != LOCAL:
        return []
    from askwell import local_endpoint

    local_endpoint.check(endpoint.model)
    return files(endpoint)


def pinned(endpoint: Endpoint) -> Endpoint:
    """The endpoint as it is asked: of a checkpoint the body holds the hash of its files, so that no stored answer of
    other weights under its name is taken for its own, and a seed, so that samples differ."""
    if endpoint.base_url != LOCAL:
        return endpoint
    hashes = [runs.sha256(folder)[:16] for folder in files(endpoint)]
    body = {"seed": 0, **endpoint.extra_body, **({"checkpoint": hashes[0]} if hashes else {})}
    return endpoint.model_copy(update={"extra_body": body, "concurrency": min(endpoint.concurrency, IN_FLIGHT)})


def transport_of(endpoint: Endpoint) -> Transport | None:
    """How an endpoint in this process is reached; None for one that is reached over HTTP."""
    if endpoint.base_url == CLINIC:
        return InProcess(MockEndpoint(Roles(load()).answer, model=endpoint.model).send)
    if endpoint.base_url == LOCAL:
        from askwell import local_endpoint

        return local_endpoint.load(endpoint.model)
    return None


def files(endpoint: Endpoint) -> list[Path]:
    """The folder of a checkpoint; a model of the Hub has none here."""
    return [folder] if (folder := Path(endpoint.model)).is_dir() else []
