"""Streams end in what `generate` gives, may be read in turn, and stop when they are told to."""

from itertools import pairwise

import pytest

from inference.adapters import SharedModel
from inference.chat import prompt_ids
from inference.engines import open_engines
from inference.engines.scripted import ScriptedEngine
from inference.engines.transformers import TransformersEngine
from inference.families import load_family
from inference.loading import load_base, load_tokenizer
from inference.records import Message, Request, Sampling
from runs.errors import UserError

QUESTIONS = ["Hi", "Why is the sky blue? Explain it to a child of seven.", "Say it in Chinese, with emoji: 你好 🌍"]


def ask(question: str, sample: int = 0) -> Request:
    return Request(key=f"{question}:{sample}", messages=(Message(role="user", content=question),), sample=sample)


@pytest.fixture(params=["tiny_llama_family", "tiny_gemma_family"])
def family(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=24),
        Sampling(max_new_tokens=24, repetition_penalty=1.3),
        Sampling(max_new_tokens=24, temperature=0.9, top_p=0.8, seed=5),
    ],
    ids=["greedy", "penalty", "sampled"],
)
def test_a_stream_ends_in_the_answer_of_generate_token_for_token(family, sampling):
    engine = open_engines(family, ["base"], batch_size=1)["base"]
    for question in QUESTIONS:
        (whole,) = engine.generate([ask(question)], sampling)
        steps = list(engine.stream(ask(question), sampling))
        assert steps[-1].completion == whole
        assert all(step.completion is None for step in steps[:-1])
        assert [step.tokens for step in steps[:-1]] == list(range(1, len(steps)))
        assert steps[-1].text == whole.text


def test_what_is_shown_only_grows_and_holds_no_half_characters(family):
    engine = open_engines(family, ["base"], batch_size=1)["base"]
    sampling = Sampling(max_new_tokens=40, temperature=1.5, seed=1)
    texts = [step.text for step in engine.stream(ask("Hi"), sampling)]
    assert len(texts) > 5
    assert not any(text.endswith("\ufffd") for text in texts[:-1])
    assert all(later.startswith(earlier.rstrip()) for earlier, later in pairwise(texts))


def test_a_stop_is_asked_for_before_every_forward_pass(tiny_llama_family):
    model, tokenizer = load_base(tiny_llama_family, device="cpu"), load_tokenizer(tiny_llama_family)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    engine = TransformersEngine(SharedModel(model), tokenizer, adapter=None, identity={}, batch_size=1)
    seen = []

    def stopped() -> bool:
        return len(seen) == 3

    for step in engine.stream(ask("Tell me a story."), Sampling(max_new_tokens=50), stopped=stopped):
        seen.append(step)
    assert len(seen) == len(passes) == 3
    assert seen[-1].completion is None
    assert list(engine.stream(ask("Hi"), Sampling(), stopped=lambda: True)) == []
    assert len(passes) == 3


def test_streams_of_two_checkpoints_may_be_read_in_turn(tmp_path, tiny_llama, tiny_llama_family):
    import torch
    from peft import LoraConfig, get_peft_model

    from inference.sources import base_identity
    from runs.manifest import write_manifest
    from tests import tiny

    folder = tmp_path / "stage2"
    torch.manual_seed(3)
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(load_base(tiny_llama_family, device="cpu"), settings).save_pretrained(folder)
    write_manifest(
        folder, kind="adapter", run_id="r", command="c", config={}, inputs={"base": base_identity(tiny_llama_family)},
        seeds={}, counts={}, metrics={}, wall_seconds=0.0,
    )  # fmt: skip
    family = load_family(str(tiny.write_family(tmp_path, "tiny-llama", tiny_llama, {"stage2": folder})))
    engines = open_engines(family, ["base", "stage2"], batch_size=1)
    sampling, request = Sampling(max_new_tokens=10), ask("Name three rivers.")
    alone = {name: list(engine.stream(request, sampling)) for name, engine in engines.items()}
    streams = [engine.stream(request, sampling) for engine in engines.values()]
    turns = list(zip(*streams, strict=False))
    assert [one for one, _ in turns] == alone["base"][: len(turns)]
    assert [two for _, two in turns] == alone["stage2"][: len(turns)]
    assert alone["base"][-1].text != alone["stage2"][-1].text


def test_a_prompt_beyond_the_context_is_named(tiny_llama_family):
    engine = open_engines(tiny_llama_family, ["base"], batch_size=1)["base"]
    with pytest.raises(UserError, match="exceed the model's context of 1024"):
        list(engine.stream(ask("word " * 2000), Sampling()))


def test_the_scripted_engine_streams_words():
    steps = list(ScriptedEngine({"Hi": "one two three"}).stream(ask("Hi"), Sampling()))
    assert [step.text for step in steps] == ["one", "one two", "one two three", "one two three"]
    assert steps[-1].completion is not None


@pytest.mark.slow
def test_the_embedded_model_streams_what_it_generates():
    """Real weights: greedy, token for token."""
    engine = open_engines(load_family("smollm2-135m"), ["base"], batch_size=1)["base"]
    request, sampling = ask("What is the capital of France?"), Sampling(max_new_tokens=24)
    (whole,) = engine.generate([request], sampling)
    *_, last = engine.stream(request, sampling)
    assert last.completion == whole
    _, tokenizer, _ = engine.parts
    assert len(prompt_ids(request.messages, tokenizer)) == whole.prompt_tokens
