from __future__ import annotations

import pytest
import torch

from inference.chat import prompt_ids
from inference.engines import open_engine
from inference.families import Family
from inference.records import Message, Request
from runs.errors import UserError


def test_labels_have_the_models_own_probabilities(tiny_llama_family: Family) -> None:
    engine = open_engine(tiny_llama_family, "base", batch_size=2)
    requests = [
        Request(key=text, messages=(Message(role="user", content=text),)) for text in ("A or B?", "Which one?", "Say.")
    ]
    scores = {row.key: row for row in engine.label_logprobs(requests, ["A", "B"], skip=frozenset({"Say."}))}
    assert scores.keys() == {"A or B?", "Which one?"}
    shared, tokenizer, _ = engine.parts
    for request in requests[:2]:
        ids = torch.tensor([prompt_ids(request.messages, tokenizer)])
        with torch.inference_mode():
            probabilities = shared.model(input_ids=ids).logits[0, -1].double().softmax(dim=-1)
        for label, found in scores[request.key].logprobs.items():
            spelled = [token for token in range(len(tokenizer)) if tokenizer.decode([token]).strip() == label]
            assert found == pytest.approx(float(probabilities[spelled].sum().log()), abs=1e-4)
        assert scores[request.key].prompt_tokens == ids.shape[1]


def test_a_label_that_is_no_token_is_an_error(tiny_llama_family: Family) -> None:
    engine = open_engine(tiny_llama_family, "base", batch_size=2)
    with pytest.raises(UserError, match="No token of the model spells"):
        list(engine.label_logprobs([], ["neither of these"]))
