import json

import pytest

from finetune import data
from finetune.config import DPOData, SFTData
from inference import chat
from inference.loading import load_tokenizer
from inference.records import Message
from inference.transcripts import RejectedRow
from runs.errors import UserError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"path": str(path)}]


def decoded(tokenizer, example):
    """The texts of the runs of tokens under the loss."""
    runs, current = [], []
    for label in [*example.columns["labels"], data.IGNORED]:
        if label != data.IGNORED:
            current.append(label)
        elif current:
            runs.append(tokenizer.decode(current))
            current = []
    return runs


@pytest.mark.parametrize(
    ("fixture", "end"), [("tiny_llama_family", "<|im_end|>"), ("tiny_gemma_family", "<end_of_turn>")]
)
def test_every_assistant_turn_is_trained_with_its_end_and_nothing_else(fixture, end, request, tmp_path):
    tokenizer = load_tokenizer(request.getfixturevalue(fixture))
    text = "\n\nHuman: Hi there\n\nAssistant: Hello.\n\nHuman: Why is it blue?\n\nAssistant: Light scatters."
    rows = SFTData(sources=write(tmp_path / "rows.jsonl", [{"chosen": text}]), field="chosen", holdout_fraction=0.0)
    examples = data.sft_examples(rows, tokenizer)
    (example,) = examples.train
    assert [text.strip() for text in decoded(tokenizer, example)] == [f"Hello.{end}", f"Light scatters.{end}"]
    assert example.trained == sum(label != data.IGNORED for label in example.columns["labels"])
    assert 0 < examples.trained_fraction < 1


def test_a_long_conversation_keeps_the_whole_turns_that_fit(tokenizer, tmp_path):
    turns = "".join(f"\n\nHuman: question {n}\n\nAssistant: answer {n}" for n in range(6))
    sources = write(tmp_path / "rows.jsonl", [{"chosen": turns}])
    for limit in (80, 130, 180):
        (example,) = data.sft_examples(
            SFTData(sources=sources, field="chosen", max_tokens=limit, holdout_fraction=0.0), tokenizer
        ).train
        assert len(example.columns["input_ids"]) <= limit
        assert example.shortened
        assert all(text.strip().endswith("<|im_end|>") for text in decoded(tokenizer, example))


def test_rejects_are_counted_by_reason_and_every_row_is_accounted_for(tokenizer, tmp_path):
    good = "\n\nHuman: Hi\n\nAssistant: Hello"
    texts = [
        good,
        good,
        "\n\nAssistant: Hello",
        "\n\nHuman: a\n\nHuman: b\n\nAssistant: c",
        "\n\nHuman: a\n\nAssistant:",
        "\n\nHuman: a",
        "\n\nHuman: a\n\nAssistant: " + "word " * 400,
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}],
        [{"role": "user", "text": "a"}],
        7,
    ]
    sources = write(tmp_path / "rows.jsonl", [{"chosen": text} for text in texts])
    found = data.sft_examples(SFTData(sources=sources, field="chosen", max_tokens=100, holdout_fraction=0.0), tokenizer)
    assert dict(found.rejected) == {
        "duplicate": 1,
        "does_not_start_with_human": 1,
        "roles_do_not_alternate": 1,
        "empty_turn": 2,
        "no_assistant_turn": 1,
        "first_answer_too_long": 1,
        "not_a_conversation": 2,
    }
    assert found.read == len(texts) == len(found.train) + found.rejected.total()


def test_no_prompt_is_on_both_sides_and_every_stage_draws_the_same_line(tokenizer, tmp_path):
    prompts = [f"question {n}" for n in range(60)]
    twice = [{"chosen": f"\n\nHuman: {p}\n\nAssistant: answer {k}"} for p in prompts for k in range(2)]
    fraction = 0.3
    sft = data.sft_examples(
        SFTData(sources=write(tmp_path / "sft.jsonl", twice), field="chosen", holdout_fraction=fraction), tokenizer
    )
    pairs = [{"prompt": [{"role": "user", "content": p.upper()}], "chosen": "yes", "rejected": "no"} for p in prompts]
    dpo = data.dpo_examples(
        DPOData(sources=write(tmp_path / "dpo.jsonl", pairs), holdout_fraction=fraction, seed=5), tokenizer
    )

    def questions(examples, column):
        texts = (tokenizer.decode(example.columns[column]).casefold() for example in examples)
        return {text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0] for text in texts}

    train, held = questions(sft.train, "input_ids"), questions(sft.holdout, "input_ids")
    assert train | held == set(prompts)
    assert not train & held
    assert held
    assert questions(dpo.train, "prompt_ids") == train  # letter case does not move a prompt across
    assert questions(dpo.holdout, "prompt_ids") == held


def test_max_rows_draws_the_same_rows_whatever_their_order_on_disk(tokenizer, tmp_path):
    rows = [{"chosen": f"\n\nHuman: q{n}\n\nAssistant: a{n}"} for n in range(30)]
    drawn = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        sources = write(tmp_path / f"{name}.jsonl", order)
        drawn.append(data.sft_examples(SFTData(sources=sources, field="chosen", max_rows=10), tokenizer).train)
    assert drawn[0] == drawn[1]
    assert [e.columns["input_ids"] for e in drawn[0]] != sorted(e.columns["input_ids"] for e in drawn[0])


def test_sources_are_mixed_by_parts_and_by_columns_of_their_own(tokenizer, tmp_path):
    reply = {"role": "assistant", "content": "An answer."}
    helpful = [{"chosen": f"\n\nHuman: Question {index}?\n\nAssistant: An answer."} for index in range(20)]
    revised = [{"messages": [{"role": "user", "content": f"Request {i}"}, reply]} for i in range(8)]
    (first,), (second,) = write(tmp_path / "a.jsonl", helpful), write(tmp_path / "b.jsonl", revised)
    sources = [{**first, "max_rows": 6}, {**second, "field": "messages"}]
    mixed = data.sft_examples(SFTData(sources=sources, field="chosen", holdout_fraction=0.0), tokenizer)
    texts = [tokenizer.decode(example.columns["input_ids"]) for example in mixed.train]
    assert sum("Question" in text for text in texts) == 6
    assert sum("Request" in text for text in texts) == 8
    fewer = SFTData(sources=[{**first, "max_rows": 3}], field="chosen", holdout_fraction=0.0)
    kept = [tokenizer.decode(example.columns["input_ids"]) for example in data.sft_examples(fewer, tokenizer).train]
    assert set(kept) < set(texts)  # a smaller part is a part of the larger one
    with pytest.raises(ValueError, match="pairs have prompt, chosen and rejected"):
        DPOData(sources=[{**second, "field": "messages"}])


@pytest.mark.parametrize("fixture", ["tiny_llama_family", "tiny_gemma_family"])
def test_a_pairs_ids_are_those_of_the_one_chat_format(fixture, request, tmp_path):
    tokenizer = load_tokenizer(request.getfixturevalue(fixture))
    prompt = (Message(role="user", content="Why is the sky blue?"),)
    row = {"prompt": [prompt[0].model_dump()], "chosen": "Light scatters.", "rejected": "No."}
    (example,) = data.dpo_examples(
        DPOData(sources=write(tmp_path / "p.jsonl", [row]), holdout_fraction=0.0), tokenizer
    ).train
    for column, text in (("chosen_ids", "Light scatters."), ("rejected_ids", "No.")):
        whole, _ = chat.training_ids((*prompt, Message(role="assistant", content=text)), tokenizer)
        ids = example.columns["prompt_ids"] + example.columns[column]
        assert whole[: len(ids)] == ids
        assert ids[-1] in chat.stop_ids(tokenizer)
        assert ids[0] == tokenizer.bos_token_id != ids[1]


def test_a_cut_rejected_answer_has_no_end_and_the_chosen_one_stays_whole(tokenizer, tmp_path):
    row = {
        "prompt": [{"role": "user", "content": "Count."}],
        "chosen": "one two three four five",
        "rejected": "six " * 9,
    }
    source = write(tmp_path / "p.jsonl", [row])
    (whole,) = data.dpo_examples(DPOData(sources=source, holdout_fraction=0.0), tokenizer).train
    (cut,) = data.dpo_examples(DPOData(sources=source, holdout_fraction=0.0, max_rejected_tokens=4), tokenizer).train
    assert cut.columns == whole.columns | {"rejected_ids": whole.columns["rejected_ids"][:4]}
    assert cut.columns["rejected_ids"][-1] not in chat.stop_ids(tokenizer)
    assert cut.trained == len(cut.columns["chosen_ids"]) + 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": "yes"}, "chosen_equals_rejected"),
        ({"chosen": " "}, "empty_turn"),
        ({"accepted": False}, "not_accepted"),
        ({"label_prob": 0.4}, "label_unsure"),
        (
            {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "prompt_does_not_end_with_user",
        ),
        ({"chosen": [{"role": "user", "content": "b"}]}, "not_one_answer"),
    ],
)
def test_pairs_that_teach_nothing_are_rejected(change, reason):
    row = {"prompt": [{"role": "user", "content": "a"}], "chosen": "yes", "rejected": "no"}
    assert data.pair(row, 0.5)[1:] == ("yes", "no")
    with pytest.raises(RejectedRow, match=reason):
        data.pair(row | change, 0.5)


def test_a_missing_column_and_empty_data_say_what_to_do(tokenizer, tmp_path):
    sources = write(tmp_path / "rows.jsonl", [{"text": "a"}])
    with pytest.raises(UserError, match="no column 'chosen'"):
        data.sft_examples(SFTData(sources=sources, field="chosen"), tokenizer)
    with pytest.raises(UserError, match="No row is left"):
        data.Examples().check(evaluated=False)
