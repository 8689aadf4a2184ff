"""The transformers engine against the library's own generate, and what engines promise to callers."""

import pytest
import torch

from inference.chat import prompt_ids, stop_ids
from inference.engines import open_engines
from inference.engines.scripted import ScriptedEngine
from inference.engines.transformers import MIN_SHARED_PREFIX, _shared_prefix
from inference.loading import load_base, load_tokenizer
from inference.records import Message, Request, Sampling
from runs.errors import UsageError, UserError

QUESTIONS = [
    "Hi",
    "How do I boil an egg so that the yolk stays soft?",
    "Name three rivers.",
    "Why is the sky blue, and why is it red in the evening? Explain it to a child of seven.",
    "What is 2 + 2?",
    "Tell me a story about a lighthouse keeper who is afraid of the dark.",
    "List the planets.",
]


def ask(question: str, sample: int = 0) -> Request:
    return Request(key=f"{question}:{sample}", messages=(Message(role="user", content=question),), sample=sample)


def answers(engine, requests, sampling, **options):
    return {completion.key: completion for completion in engine.generate(requests, sampling, **options)}


@pytest.fixture(params=["tiny_llama_family", "tiny_gemma_family"])
def family(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_the_librarys_generate(family, penalty):
    sampling = Sampling(max_new_tokens=24, repetition_penalty=penalty)
    ours = answers(open_engines(family, ["base"], batch_size=4)["base"], [ask(q) for q in QUESTIONS], sampling)
    model, tokenizer = load_base(family, device="cpu"), load_tokenizer(family)
    stops = sorted(stop_ids(tokenizer))
    for question in QUESTIONS:
        ids = torch.tensor([prompt_ids(ask(question).messages, tokenizer)])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            repetition_penalty=penalty,
            eos_token_id=stops,
            pad_token_id=tokenizer.pad_token_id,
        )[0, ids.shape[1] :].tolist()
        kept = [token for token in output if token not in stops]
        assert ours[f"{question}:0"].text == tokenizer.decode(kept, skip_special_tokens=True).strip()
        assert ours[f"{question}:0"].finish_reason == ("stop" if len(kept) < 24 else "length")


def test_a_shared_prefix_changes_nothing(family):
    shots = (
        Message(role="user", content="A long example that every request of this job begins with, word for word."),
        Message(role="assistant", content="And a long answer to it, which is shared as well by all of them."),
    )
    requests = [
        Request(key=question, messages=(*shots, Message(role="user", content=question))) for question in QUESTIONS
    ]
    tokenizer = load_tokenizer(family)
    ids = [prompt_ids(request.messages, tokenizer) for request in requests]
    assert _shared_prefix(ids) > MIN_SHARED_PREFIX
    together = answers(open_engines(family, ["base"], batch_size=7)["base"], requests, Sampling(max_new_tokens=16))
    alone = answers(open_engines(family, ["base"], batch_size=1)["base"], requests, Sampling(max_new_tokens=16))
    assert {key: one.text for key, one in together.items()} == {key: one.text for key, one in alone.items()}


def test_a_rows_seed_does_not_depend_on_batch_order_or_company(tiny_llama_family):
    sampling = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=7)
    requests = [ask(question) for question in QUESTIONS]
    engine = open_engines(tiny_llama_family, ["base"], batch_size=3)["base"]
    forward, backward = answers(engine, requests, sampling), answers(engine, requests[::-1], sampling)
    alone = answers(engine, requests[2:3], sampling)
    assert forward == backward
    assert alone[requests[2].key].text == forward[requests[2].key].text


def test_samples_of_one_prompt_differ_and_repeat_under_their_seed(tiny_llama_family):
    engine = open_engines(tiny_llama_family, ["base"], batch_size=4)["base"]
    requests = [ask("Name three rivers.", sample) for sample in range(4)]
    first = answers(engine, requests, Sampling(max_new_tokens=12, temperature=1.0, seed=1))
    again = answers(engine, requests, Sampling(max_new_tokens=12, temperature=1.0, seed=1))
    other = answers(engine, requests, Sampling(max_new_tokens=12, temperature=1.0, seed=2))
    assert first == again
    assert len({completion.text for completion in first.values()}) > 1
    assert {c.text for c in first.values()} != {c.text for c in other.values()}


def test_a_resumed_job_gives_the_bytes_of_an_uninterrupted_one(tiny_llama_family):
    engine = open_engines(tiny_llama_family, ["base"], batch_size=3)["base"]
    requests, sampling = [ask(question) for question in QUESTIONS], Sampling(max_new_tokens=20)
    whole = answers(engine, requests, sampling)
    done = frozenset(list(whole)[:4])
    rest = answers(engine, requests, sampling, skip=done)
    assert set(rest) == set(whole) - done
    assert all(whole[key] == completion for key, completion in rest.items())


@pytest.mark.parametrize("count", [2, 3])
def test_a_job_cut_between_batches_gives_the_answers_of_one_machine(tiny_llama_family, count):
    from runs.job import Shard

    sampling = Sampling(max_new_tokens=12, temperature=0.9)
    engine = open_engines(tiny_llama_family, ["base"], batch_size=2)["base"]
    requests = [ask(question) for question in QUESTIONS]
    batches = engine.batches(requests)
    assert sorted(key for batch in batches for key in batch) == sorted(request.key for request in requests)
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]
    whole, shards = answers(engine, requests, sampling), {}
    for index in range(count):
        mine = {key for batch in Shard(index=index, count=count).of(batches) for key in batch}
        part = answers(engine, requests, sampling, skip=frozenset(request.key for request in requests) - mine)
        assert part.keys() == mine
        shards |= part
    assert shards == whole
    alone = [[r for r in requests if r.key in batch] for batch in batches]
    assert whole == {key: value for batch in alone for key, value in answers(engine, batch, sampling).items()}


def test_sampling_frequencies_follow_the_models_probabilities(tiny_llama_family):
    """Chi-square of 600 first tokens against the softmax of one forward pass."""
    from scipy import stats

    family, draws = tiny_llama_family, 600
    model, tokenizer = load_base(family, device="cpu"), load_tokenizer(family)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt_ids(ask("Hi").messages, tokenizer)])).logits[0, -1]
    chances: dict[str, float] = {}
    for token, chance in enumerate(torch.softmax(logits, dim=-1).tolist()):
        text = tokenizer.decode([token], skip_special_tokens=True).strip()
        chances[text] = chances.get(text, 0.0) + chance
    engine = open_engines(family, ["base"], batch_size=100)["base"]
    requests = [ask("Hi", sample) for sample in range(draws)]
    seen = [c.text for c in engine.generate(requests, Sampling(max_new_tokens=1, temperature=1.0))]
    likely = sorted(chances, key=lambda text: -chances[text])[:6]
    counts = [seen.count(text) for text in likely]
    expected = [draws * chances[text] for text in likely]
    assert stats.chisquare([*counts, draws - sum(counts)], [*expected, draws - sum(expected)]).pvalue > 0.001


def test_a_prompt_beyond_the_context_is_named(tiny_llama_family):
    engine = open_engines(tiny_llama_family, ["base"], batch_size=1)["base"]
    with pytest.raises(UserError, match="exceed the model's context of 1024"):
        list(engine.generate([ask("word " * 2000)], Sampling()))


def test_unknown_checkpoint_comes_with_the_nearest(tiny_llama_family):
    with pytest.raises(UsageError, match="Did you mean 'base'"):
        open_engines(tiny_llama_family, ["bases"], batch_size=1)


def test_scripted_answers_and_what_it_has_no_answer_for():
    engine = ScriptedEngine({"Hi": "one two three four"})
    (completion,) = engine.generate([ask("Hi")], Sampling(max_new_tokens=3))
    assert (completion.text, completion.finish_reason) == ("one two three", "length")
    with pytest.raises(UserError, match="no answer for: Bye"):
        list(engine.generate([ask("Bye")], Sampling()))
