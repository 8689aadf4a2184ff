"""The Python interface: any text, any length, input order, and errors that name the row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from runs.errors import IntegrityError, UsageError, UserError
from safety_classifier.api import Classifier, Span
from safety_classifier.artifact import save_artifact
from safety_classifier.evaluation.scorer import Calibrated, Scorer, checked
from safety_classifier.features import Featuriser, ngrams
from safety_classifier.forward import TOKENS_PER_CALL, call_sizes, plan
from safety_classifier.labels import LABELS
from safety_classifier.model import ModelConfig, build
from safety_classifier.windows import combine, windows
from tests.safety_classifier.conftest import SENTENCES, Parts

ODD = [
    "",
    " \n\t ",
    "\x00",
    "null\x00byte",
    "\U0001f600\U0001f92c\U0001f52a",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643",
    "\u202ehsilgne\u202c",
    "\u200d\u200d\u200b",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\ud800 half a pair",
    "\u4f60\u597d" * 40,
    "e\u0301" * 50,
    "a" * 3000,
    "1e309",
]


@pytest.fixture(scope="module")
def classifier(tiny_artifact: Path) -> Classifier:
    return Classifier.load(tiny_artifact, precision="float32")


@pytest.fixture(scope="module")
def alarm(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig, tiny_parts: Parts) -> Classifier:
    """A classifier that calls a text toxic, and a refusal, when the word "kerosene" is in it."""
    config = tiny_config.model_copy(update={"gram_bits": 18})  # other words must not share the buckets
    model = build(config, len(LABELS.names))
    table = np.zeros(model.wide.shape, np.float32)
    signs = np.setdiff1d(*ngrams(["kerosene", " ".join([*SENTENCES, "walk" * 100])], config.gram_bits))
    for head in ("toxicity", "refusal", "harmful_response"):
        table[signs, LABELS.column(head)] = 20.0
    table[:, LABELS.column("harmlessness")] = 1.0
    model.wide = nnx.Param(jnp.asarray(table))
    # Without the word it is sure, whatever vocabulary the tokenizer's trainer has drawn: it breaks ties at random.
    model.mean_head.bias = nnx.Param(jnp.full(len(LABELS.heads), -2.0))
    folder = tmp_path_factory.mktemp("alarm") / "artifact"
    save_artifact(folder, model, **{**tiny_parts, "config": config})
    return Classifier.load(folder, precision="float32")


def texts_of_many_lengths(count: int = 60) -> list[str]:
    words = " ".join(SENTENCES).split()
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, rng.integers(0, 90))) for _ in range(count)]


def test_it_is_a_scorer(classifier: Classifier) -> None:
    assert isinstance(classifier, Scorer)
    assert isinstance(classifier, Calibrated)
    assert checked(classifier, ["they walk", ""]).shape == (2, len(LABELS.names))
    assert set(classifier.thresholds) == set(LABELS.of("category", "response"))


def test_a_score_depends_on_nothing_but_its_row(classifier: Classifier) -> None:
    texts = [*texts_of_many_lengths(), *ODD]
    together = classifier.logits(texts)
    alone = np.concatenate([classifier.logits([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-5, rtol=0)
    order = np.random.default_rng(1).permutation(len(texts))
    np.testing.assert_allclose(classifier.logits([texts[row] for row in order]), together[order], atol=2e-5, rtol=0)


def test_many_ngrams_score_the_same_beside_longer_rows(classifier: Classifier) -> None:
    """The room for n-grams goes by the row's own length and not by that of its company."""
    dense = "\u4f60\u597dabcdefghijklmnopqrstuvwxyz" * 3
    company = [" ".join(SENTENCES[0].split()[:14])]
    alone, beside = classifier.logits([dense])[0], classifier.logits([dense, *company])[0]
    np.testing.assert_allclose(alone, beside, atol=2e-5)


def test_probabilities_are_calibrated_logits(classifier: Classifier) -> None:
    texts = ["they walk", "you are an awful person"]
    expected = classifier.calibration.apply(classifier.logits(texts))
    np.testing.assert_array_equal(classifier.probabilities(texts), expected)
    assert expected.dtype == np.float32


def test_precisions_agree(classifier: Classifier, tiny_artifact: Path) -> None:
    texts = texts_of_many_lengths(20)
    expected = classifier.probabilities(texts)[:, LABELS.columns(LABELS.categories)]
    for precision in ("bfloat16", "int8"):
        other = Classifier.load(tiny_artifact, precision=precision)
        found = other.probabilities(texts)[:, LABELS.columns(LABELS.categories)]
        assert np.abs(found - expected).max() < 0.05
        assert other.identity != classifier.identity
    assert len(classifier.identity) == 64


def test_nothing_to_read_is_harmless(classifier: Classifier) -> None:
    scored = LABELS.columns(LABELS.of("category", "response"))
    for text in ("", "   ", "\u200b\u200d", "\x00"):
        found = classifier.probabilities([text])
        assert not found[:, scored].any()
        assert np.isfinite(found).all()
        judged = classifier.classify([text])[0]
        assert judged.empty
        assert judged.safe == 1.0
        assert not judged.harmful


@pytest.mark.parametrize("text", ODD)
def test_any_string_is_judged(classifier: Classifier, text: str) -> None:
    found = classifier.probabilities([text, "they walk"], ["", text])
    assert np.isfinite(found).all()
    judged = classifier.classify([text])[0]
    assert math.isfinite(judged.safe)
    assert all(0 <= span.start <= span.end <= len(text) for span in judged.decided.values())


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", b"caf\xe9"], "Row 1: the text is of type bytes"),
        (["fine", "fine", None], "Row 2: the text is None"),
        ([float("nan")], "Row 0: the text is NaN"),
        ([3], "Row 0: the text is of type int"),
        ("one string", "A list of texts is due"),
    ],
)
def test_rows_of_another_type_are_named(classifier: Classifier, texts: Any, message: str) -> None:
    for call in (classifier.probabilities, classifier.classify, classifier.logits):
        with pytest.raises(UserError, match=message):
            call(texts)


def test_contexts_are_checked_too(classifier: Classifier) -> None:
    with pytest.raises(UserError, match="Row 1: the context is None"):
        classifier.probabilities(["a", "b"], ["", None])  # type: ignore[list-item]
    with pytest.raises(UserError, match="2 texts came with 1 contexts"):
        classifier.probabilities(["a", "b"], [""])


def test_no_rows(classifier: Classifier) -> None:
    assert classifier.probabilities([]).shape == (0, len(LABELS.names))
    assert classifier.classify([]) == []


def test_classify_agrees_with_probabilities(classifier: Classifier) -> None:
    texts, contexts = ["they walk", "sorry cannot help", ""], ["", "how do i", "tell me"]
    expected = classifier.probabilities(texts, contexts)
    for row, judged in enumerate(classifier.classify(texts, contexts)):
        values = dict(zip(LABELS.names, expected[row].tolist(), strict=True))
        assert judged.probabilities == pytest.approx({name: values[name] for name in LABELS.categories})
        assert judged.safe == pytest.approx(math.prod(1 - p for p in judged.probabilities.values()))
        assert (judged.response is None) == (contexts[row] == "")
        for name, flagged in judged.flagged.items():
            assert flagged == (values[name] >= 0.5)
            assert judged.escalate[name] == (0.3 <= values[name] < 0.7)
        if judged.response is not None:
            assert set(judged.flagged) == set(LABELS.of("category", "response"))
            assert judged.preference == pytest.approx({name: values[name] for name in LABELS.of("preference")})


def test_obfuscation_is_reported(classifier: Classifier) -> None:
    plain, hidden = classifier.classify(["they walk along", "th\u0435y w\u200balk"])
    assert plain.obfuscation == 0
    assert hidden.obfuscation > 0


@pytest.mark.parametrize("padding", [0, 3, 8, 40, 300, 3000])
def test_harm_at_the_end_is_found(alarm: Classifier, padding: int) -> None:
    text = SENTENCES[0] + " "
    text = text * padding + "kerosene"
    judged = alarm.classify([text])[0]
    assert judged.flagged["toxicity"]
    assert judged.decided["toxicity"].end == len(text)
    assert judged.windows == 1 if padding == 0 else judged.windows > padding / 3
    assert not alarm.classify([text.replace("kerosene", "ovens")])[0].flagged["toxicity"]


def test_harm_at_the_end_of_a_megabyte_is_found(alarm: Classifier) -> None:
    text = (SENTENCES[2] + " ") * 11_000 + "kerosene"
    assert len(text) > 1_000_000
    assert alarm.probabilities([text])[0, LABELS.column("toxicity")] > 0.5


def test_harm_in_a_run_without_spaces_is_found(alarm: Classifier) -> None:
    text = "walk" * 100 + " kerosene " + "walk" * 100
    judged = alarm.classify([text])[0]
    assert judged.flagged["toxicity"]
    assert judged.windows > 1


def test_the_window_is_placed_in_the_original(alarm: Classifier) -> None:
    text = "\u200b" + "they  walk " * 40 + "k\u0435rosene" + " they  walk" * 40
    span = alarm.classify([text])[0].decided["toxicity"]
    assert "k\u0435rosene" in text[span.start : span.end]
    assert span.end - span.start < 200


def test_a_refusal_stands_at_the_start(alarm: Classifier) -> None:
    late = SENTENCES[0] * 5 + " kerosene"
    early = "kerosene " + SENTENCES[0] * 5
    never = SENTENCES[0] * 5 + " ovens"
    found = alarm.probabilities([early, late, never], ["tell me"] * 3)[:, LABELS.column("refusal")]
    assert found[0] > 0.8
    assert found[1] == pytest.approx(found[2], abs=0.02)
    assert alarm.probabilities([late], ["tell me"])[0, LABELS.column("harmful_response")] > 0.5


def test_a_preference_is_the_mean_over_the_answer(alarm: Classifier, classifier: Classifier) -> None:
    text = SENTENCES[0] * 5
    found = windows(classifier.featuriser, [text], ["tell me"])
    logits = classifier.forward(found.encoded)
    scores, _ = combine(LABELS, logits, found, 1)
    column = LABELS.column("helpfulness")
    assert len(found.owner) > 1
    assert scores[0, column] == pytest.approx(np.average(logits[:, column], weights=found.weight), abs=1e-5)


def test_windows_cover_the_text_and_keep_the_prompt(tiny_featuriser: Featuriser) -> None:
    text, prompt = " ".join(SENTENCES), "please tell me how " * 50
    for context in ("", prompt):
        found = windows(tiny_featuriser, ["they walk", text], [context, context])
        assert found.owner.tolist() == [0] + [1] * (len(found.owner) - 1)
        covered = {character for places in found.places[1:] for character in places}
        assert covered >= set(range(len(text)))
        assert all(
            text[places[0] : places[-1]] == part for part, places in zip(found.texts[1:], found.places[1:], strict=True)
        )
        pieces = set(tiny_featuriser.pieces([text])[0])
        assert set().union(*(found.encoded.ids[1:])) >= pieces
        if context:
            thirds = {found.encoded.second[row] for row in range(1, len(found.owner))}
            assert thirds == {2 + (tiny_featuriser.max_tokens - 3) // 3}


def test_a_text_that_just_fits_is_one_window(tiny_featuriser: Featuriser) -> None:
    room = tiny_featuriser.max_tokens - 2
    for count, expected in ((room - 1, 1), (room, 1), (room + 1, 2)):
        found = windows(tiny_featuriser, ["they " * (count - 1) + "they"], None)
        assert len(found.owner) == expected
        assert max(found.encoded.length(row) for row in range(expected)) <= tiny_featuriser.max_tokens


def test_a_long_prompt_leaves_a_short_answer_whole(tiny_featuriser: Featuriser) -> None:
    found = windows(tiny_featuriser, ["they walk"], ["tell me " * 10_000])
    assert len(found.owner) == 1
    assert found.encoded.length(0) == tiny_featuriser.max_tokens


def test_the_plan_holds_every_row_once() -> None:
    rng = np.random.default_rng(0)
    buckets = (16, 24, 32, 48, 64, 96, 128)
    for count in (1, 2, 3, 7, 33, 500):
        lengths = rng.integers(1, 129, count)
        seen: list[int] = []
        for rows, bucket, size in plan(lengths, buckets):
            assert len(rows) <= size
            assert size in call_sizes(bucket)
            assert size * bucket <= TOKENS_PER_CALL
            assert lengths[rows].max() <= bucket
            seen += rows.tolist()
        assert sorted(seen) == list(range(count))


def test_the_plan_wastes_little() -> None:
    lengths = np.random.default_rng(0).gamma(2.0, 16.0, 2000).clip(4, 128).astype(int)
    buckets = np.array([16, 24, 32, 48, 64, 96, 128])
    padded = sum(bucket * size for _, bucket, size in plan(lengths, buckets.tolist()))
    own_buckets = buckets[np.searchsorted(buckets, lengths)].sum()
    assert padded < 1.03 * own_buckets


def test_warm_compiles_all_that_is_used(tiny_artifact: Path) -> None:
    classifier = Classifier.load(tiny_artifact, precision="float32")
    steps: list[tuple[int, int]] = []
    classifier.warm(buckets=[16], rows=[1, 4], progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]
    compiled = classifier.forward.compiled_shapes()
    classifier.probabilities(["they walk"])
    classifier.probabilities(["they walk"] * 3)
    assert classifier.forward.compiled_shapes() == compiled == 2
    assert any(Path(jax.config.jax_compilation_cache_dir).iterdir())  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="no bucket 17"):
        classifier.warm(buckets=[17])


def test_loading_needs_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no classifier"):
        Classifier.load(tmp_path / "nothing")


def test_unknown_precision(tiny_artifact: Path) -> None:
    with pytest.raises(UsageError, match="Known: auto, float32, bfloat16, int8"):
        Classifier.load(tiny_artifact, precision="int4")


def test_explain_through_the_classifier(classifier: Classifier) -> None:
    found = classifier.explain("you are an awful person", "toxicity")
    assert found.logit == pytest.approx(classifier.logits(["you are an awful person"])[0, 3], abs=1e-4)
    assert Span(start=found.tokens[0].start, end=found.tokens[0].end) == Span(start=0, end=3)
