import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Threads cost a tiny model more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
