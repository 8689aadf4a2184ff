"""Prometheus metrics: served, written, or absent."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from runs.errors import UsageError
from runs.metrics import VARIABLE, Meter


def test_nothing_is_loaded_where_nothing_is_asked_for(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    meter = Meter("sft")
    meter.set({"loss": 1.0})
    assert meter._registry is None


def test_a_text_file_holds_the_latest_values(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "deep" / "train.prom"))
    meter = Meter("dpo", 1)
    meter.set({"rewards/margins": 0.5})
    meter.set({"rewards/margins": 0.75, "step": 3})
    text = (tmp_path / "deep" / "train.prom").read_text()
    assert 'cai_dpo_rewards_margins{process="1"} 0.75' in text
    assert 'cai_dpo_step{process="1"} 3.0' in text


def test_a_port_serves_them_on_loopback_and_a_taken_one_is_named(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv(VARIABLE, str(port))
    Meter("classifier").set({"train/loss": 2.5})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert 'cai_classifier_train_loss{process="0"} 2.5' in answer.read().decode()
    with pytest.raises(UsageError, match=f"127.0.0.1:{port}"):
        Meter("classifier")


def test_ranks_side_by_side_have_a_port_and_a_file_each(monkeypatch, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        monkeypatch.setenv(VARIABLE, str(port))
        Meter("sft", rank).set({"step": 1})
        monkeypatch.setenv(VARIABLE, str(tmp_path / "sft.prom"))
        Meter("sft", rank).set({"step": 1})
        with urllib.request.urlopen(f"http://127.0.0.1:{port + rank}/metrics", timeout=10) as answer:
            assert f'cai_sft_step{{process="{rank}"}} 1.0' in answer.read().decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sft-1.prom", "sft.prom"]


@pytest.mark.parametrize("target", ["everywhere", "host:port", "/tmp/file.txt"])
def test_other_forms_are_refused(monkeypatch, target):
    monkeypatch.setenv(VARIABLE, target)
    with pytest.raises(UsageError, match="Give a port"):
        Meter("sft")
