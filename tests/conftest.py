"""For all tests: threads as under the command line, and no way out of this machine."""

import os
import socket

import hypothesis
import pytest

# Before any test loads torch: one thread each, for the models are so small that more only wait for one another, and
# waiting threads spin for a moment only, as under `askwell.cli.call`.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# How long an example takes says how busy the machine is, not whether it is right.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def loopback_only():
    """Connections to anything but this machine fail, in this process."""
    plain = socket.socket.connect

    def connect(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to connect to {address}")
        return plain(self, address)

    socket.socket.connect = connect
    yield
    socket.socket.connect = plain


@pytest.fixture(scope="session")
def world():
    """The simulated clinic."""
    from askwell.clinic.knowledge import load

    return load()


@pytest.fixture(scope="session")
def oracle(world):
    """Who reads what is said in it."""
    from askwell.clinic.language import oracle_of

    return oracle_of(world)
