"""Bases and adapters: what is refused, what is converted, and that adapters leave the base alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from inference.adapters import check_adapter
from inference.engines import open_engines
from inference.families import BaseModelSource, load_family
from inference.loading import load_base, resolve_device
from inference.records import Message, Request, Sampling
from inference.sources import base_folder, base_identity
from runs.errors import IntegrityError, UsageError, UserError
from tests import tiny


def test_unknown_family_comes_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'gemma-2b-it'"):
        load_family("gemma-2b")


def test_a_family_file_with_an_unknown_key_is_refused(tmp_path, tiny_llama):
    path = tiny.write_family(tmp_path, "x", tiny_llama)
    path.write_text(path.read_text() + "dtyp: float32\n")
    with pytest.raises(UsageError, match="did you mean 'dtype'"):
        load_family(str(path))


def test_a_base_has_exactly_one_source():
    with pytest.raises(ValueError, match="exactly one of hub, path and wheel"):
        BaseModelSource(public_id="x", hub="a/b", path="c")


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    family = load_family(str(tiny.write_family(tmp_path, "pickled", tmp_path)))
    with pytest.raises(UserError, match="never loaded"):
        base_folder(family)


def test_a_gated_model_names_licence_page_login_and_the_way_around():
    """HF_HUB_OFFLINE is set for tests: the hub cannot be reached, which is one of the two ways to fail."""
    script = (
        "from inference.sources import *; from inference.families import *; base_folder(load_family('gemma-2b-it'))"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=offline)
    assert "https://huggingface.co/google/gemma-2b-it" in done.stderr
    assert "hf auth login" in done.stderr
    assert "smollm2-135m" in done.stderr


@pytest.mark.parametrize(
    ("device", "message"), [("tpu", "Unknown device 'tpu'"), ("cuda:99x", "not available|invalid")]
)
def test_devices_that_are_not_there(device, message):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available() and device.startswith("cuda"):
        pytest.skip("this machine has CUDA")
    with pytest.raises(UsageError, match=message):
        resolve_device(device)


def test_8_bit_on_a_cpu_is_refused_with_the_alternatives(tiny_llama_family):
    with pytest.raises(UsageError, match=r"8bit loading is not usable on cpu(.|\n)*4bit on the CPU"):
        load_base(tiny_llama_family, device="cpu", quantization="8bit")


def test_4_bit_loads_on_a_cpu(tiny_llama_family):
    pytest.importorskip("bitsandbytes")
    model = load_base(tiny_llama_family, device="cpu", quantization="4bit")
    assert any(parameter.dtype.itemsize == 1 for parameter in model.parameters())


def test_gemma_in_float16_is_refused(tiny_gemma_family):
    with pytest.raises(UsageError, match="overflows in float16"):
        load_base(tiny_gemma_family, device="cpu", dtype="float16")


@pytest.fixture
def adapter(tmp_path, tiny_llama_family):
    """A stage2 for the tiny Llama: random LoRA weights with a valid manifest."""
    import torch
    from peft import LoraConfig, get_peft_model

    from runs.manifest import write_manifest

    folder = tmp_path / "stage2"
    model = load_base(tiny_llama_family, device="cpu")
    torch.manual_seed(3)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    tuned.save_pretrained(folder)
    write_manifest(
        folder, kind="adapter", run_id="r", command="uv run finetune sft --config mine.yaml", config={},
        inputs={"base": base_identity(tiny_llama_family)}, seeds={}, counts={}, metrics={}, wall_seconds=0.0,
    )  # fmt: skip
    return folder


def family_with(adapter, tmp_path, base, name="tiny-llama"):
    return load_family(str(tiny.write_family(tmp_path, name, base, {"stage2": adapter})))


def test_adapters_leave_the_base_alone_and_engines_may_be_read_in_turn(
    adapter, tmp_path, tiny_llama, tiny_llama_family
):
    requests = [Request(key=str(n), messages=(Message(role="user", content=f"Say {n}"),)) for n in range(6)]
    sampling = Sampling(max_new_tokens=8)
    bare = list(open_engines(tiny_llama_family, ["base"], batch_size=2)["base"].generate(requests, sampling))
    engines = open_engines(family_with(adapter, tmp_path, tiny_llama), ["base", "stage2"], batch_size=2)
    tuned = list(engines["stage2"].generate(requests, sampling))
    assert [c.text for c in tuned] != [c.text for c in bare]
    assert list(engines["base"].generate(requests, sampling)) == bare
    in_turn = list(
        zip(engines["base"].generate(requests, sampling), engines["stage2"].generate(requests, sampling), strict=True)
    )
    assert sorted((one for one, _ in in_turn), key=lambda c: c.key) == sorted(bare, key=lambda c: c.key)
    assert sorted((two for _, two in in_turn), key=lambda c: c.key) == sorted(tuned, key=lambda c: c.key)


def test_an_adapters_bytes_are_part_of_the_identity(adapter, tmp_path, tiny_llama):
    engines = open_engines(family_with(adapter, tmp_path, tiny_llama), ["base", "stage2"], batch_size=2)
    assert engines["base"].identity["adapter"] == "none"
    assert engines["base"].identity != engines["stage2"].identity


def test_an_adapter_of_another_base_is_refused_by_both_names(adapter, tmp_path, tmp_path_factory):
    other = tiny.build_llama(tmp_path_factory.mktemp("other"), seed=9)
    with pytest.raises(IntegrityError, match=r"belongs to another base model(.|\n)*trained on test/tiny-llama"):
        open_engines(family_with(adapter, tmp_path, other), ["stage2"], batch_size=1)


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damaged_weights_are_refused_with_the_command_that_rebuilds(adapter, damage):
    path = adapter / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data = data[:-10] if damage == "truncate" else data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors does not match") as caught:
        check_adapter(adapter, base_identity="whatever")
    assert "uv run finetune sft --config mine.yaml" in caught.value.mend


def test_an_adapter_that_was_never_trained_says_how(tmp_path):
    with pytest.raises(UserError, match=r"There is no adapter in(.|\n)*uv run finetune sft"):
        check_adapter(tmp_path / "absent", base_identity="x")


@pytest.mark.slow
def test_the_embedded_model_knows_the_capital_of_france():
    """Real weights: converted from the wheel's GGUF, loaded from the cache."""
    engine = open_engines(load_family("smollm2-135m"), ["base"], batch_size=1)["base"]
    asked = Request(key="q", messages=(Message(role="user", content="What is the capital of France?"),))
    (completion,) = engine.generate([asked], Sampling(max_new_tokens=24))
    assert "Paris" in completion.text
    assert completion.finish_reason == "stop"
    folder = base_folder(load_family("smollm2-135m"))
    assert json.loads((folder / "manifest.json").read_text())["kind"] == "model"
