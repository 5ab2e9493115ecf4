"""Every task over symbols at a small size, made once a file."""

import pytest

import tasks
from tests.support.symbol_texts import SMALL


@pytest.fixture(scope="module", params=SMALL)
def task(request):
    return tasks.create(request.param, **SMALL[request.param])
