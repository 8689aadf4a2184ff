from __future__ import annotations

from collections.abc import Iterator

import pytest

from inference.engines.transformers import TransformersEngine
from tests.inference.openai_server import Loopback, serving


@pytest.fixture
def loopback(local_engine: TransformersEngine) -> Iterator[Loopback]:
    """A real server on loopback that asks for no key."""
    with serving(Loopback(local_engine)) as running:
        yield running
