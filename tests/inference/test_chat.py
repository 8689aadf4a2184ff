"""One chat format: what is rendered, tokenised, masked, and where a turn ends."""

import pytest

from inference.chat import check_bos, completion_ids, prompt_ids, render, stop_ids, training_ids
from inference.loading import load_tokenizer
from inference.records import Message
from runs.errors import UserError


def talk(*turns: str, system: str | None = None) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    messages = tuple(Message(role=roles[index % 2], content=turn) for index, turn in enumerate(turns))
    return (Message(role="system", content=system), *messages) if system else messages


@pytest.fixture(params=["tiny_llama_family", "tiny_gemma_family"])
def tokenizer(request):
    return load_tokenizer(request.getfixturevalue(request.param))


@pytest.fixture
def gemma(tiny_gemma_family):
    return load_tokenizer(tiny_gemma_family)


def test_gemma_text_is_the_template_of_its_model_card(gemma):
    text = render(talk("Hi", "Hello.", "Bye"), gemma, add_generation_prompt=True)
    assert text == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )


def test_system_text_folds_into_the_first_user_turn_without_a_system_role(gemma):
    text = render(talk("Hi", system="Be kind."), gemma, add_generation_prompt=True)
    assert "<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>" in text


def test_system_text_keeps_its_role_where_there_is_one(tiny_llama_family):
    text = render(talk("Hi", system="Be kind."), load_tokenizer(tiny_llama_family), add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>")


def test_exactly_one_bos(gemma):
    ids = prompt_ids(talk("Hi", "Hello.", "Bye"), gemma)
    assert ids.count(gemma.bos_token_id) == 1
    assert ids[0] == gemma.bos_token_id


def test_doubled_bos_is_refused(gemma):
    with pytest.raises(UserError, match="begins with two <bos>"):
        check_bos([gemma.bos_token_id, gemma.bos_token_id, 7], gemma)


def test_every_assistant_turn_and_its_end_is_trained_and_nothing_else(tokenizer):
    ids, mask = training_ids(talk("Hi there", "Hello you.", "What?", "Nothing  \nelse."), tokenizer)
    trained = tokenizer.decode([token for token, on in zip(ids, mask, strict=True) if on])
    end = tokenizer.decode(sorted(stop_ids(tokenizer))[-1:])
    assert trained == f"Hello you.{end}Nothing  \nelse.{end}"


def test_prompt_and_completion_join_to_the_whole_conversation(tokenizer):
    prompt = talk("Hi there", "Hello you.", "What?")
    ids, mask = training_ids((*prompt, Message(role="assistant", content="Nothing.")), tokenizer)
    joined = prompt_ids(prompt, tokenizer) + completion_ids(prompt, "Nothing.", tokenizer)
    assert joined == ids[: len(joined)]
    assert not any(mask[len(joined) :])


def test_a_turn_ends_at_the_templates_own_token(gemma):
    end_of_turn = gemma.convert_tokens_to_ids("<end_of_turn>")
    assert stop_ids(gemma) == {end_of_turn, gemma.eos_token_id}


def test_roles_that_do_not_alternate_are_refused_with_the_roles(gemma):
    messages = (Message(role="user", content="a"), Message(role="user", content="b"))
    with pytest.raises(UserError, match="user, user"):
        render(messages, gemma, add_generation_prompt=True)
