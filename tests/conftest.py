"""Fixtures that every package's tests share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inference.families import Family, load_family
from tests import tiny

if TYPE_CHECKING:
    from inference.engines.transformers import TransformersEngine


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama."""
    return tiny.build_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Gemma v1."""
    return tiny.build_gemma(tmp_path_factory.mktemp("tiny-gemma"))


@pytest.fixture
def tiny_llama_family(tiny_llama: Path, tmp_path: Path) -> Family:
    """A family over the tiny Llama, without adapters."""
    return load_family(str(tiny.write_family(tmp_path, "tiny-llama", tiny_llama)))


@pytest.fixture
def tiny_gemma_family(tiny_gemma: Path, tmp_path: Path) -> Family:
    """A family over the tiny Gemma, without adapters."""
    return load_family(str(tiny.write_family(tmp_path, "tiny-gemma", tiny_gemma)))


@pytest.fixture(scope="session")
def local_engine(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    """The tiny Llama in this process, one row at a time: what the loopback server answers with."""
    from inference.engines import open_engine

    family = load_family(str(tiny.write_family(tmp_path_factory.mktemp("family"), "tiny-llama", tiny_llama)))
    return open_engine(family, "base", batch_size=1)
