"""The clinic where a recipe names it as its endpoint, `base_url: clinic:`, in this process and without a socket."""

from askwell.clinic.knowledge import load
from askwell.clinic.roles import Roles
from askwell.llm.transport import InProcess, Transport
from askwell.mock_endpoint import MockEndpoint
from askwell.recipes import CLINIC, Endpoint


def transport_of(endpoint: Endpoint) -> Transport | None:
    """How the endpoint is reached where it is the clinic; None where it is another, over HTTP."""
    if endpoint.base_url != CLINIC:
        return None
    return InProcess(MockEndpoint(Roles(load()).answer, model=endpoint.model).send)
