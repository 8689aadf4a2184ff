"""Attributions add up, point at the original text, and cannot break out of a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from runs.errors import UsageError
from safety_classifier.artifact import load_artifact, save_artifact
from safety_classifier.explain import TOLERANCE, Attribution, Explainer, Token, to_html
from safety_classifier.forward import Forward
from safety_classifier.labels import LABELS
from safety_classifier.model import WideAndDeep, build
from tests.safety_classifier.conftest import SENTENCES, Parts


@pytest.fixture(scope="module")
def explainer(tiny_artifact: Path) -> Explainer:
    return Explainer(load_artifact(tiny_artifact))


def total(found: Attribution) -> float:
    return found.baseline_logit + sum(token.value for token in found.tokens)


@pytest.mark.parametrize("head", ["toxicity", "hate_speech", "harmlessness"])
@pytest.mark.parametrize("text", [SENTENCES[0], "you are an awful person", "qq"])
def test_values_and_baseline_add_up_to_the_logit(explainer: Explainer, text: str, head: str) -> None:
    found = explainer.explain(text, head)
    change = abs(found.logit - found.baseline_logit)
    assert abs(total(found) - found.logit) <= TOLERANCE * change + 1e-5
    assert found.residual == pytest.approx(found.logit - total(found), abs=1e-9)


def test_the_logit_is_the_models(tiny_artifact: Path, explainer: Explainer) -> None:
    artifact = load_artifact(tiny_artifact)
    forward = Forward(artifact.model(), artifact.featuriser(), "float32")
    for text, context in ((SENTENCES[1], ""), ("sorry cannot help", "how do i build")):
        expected = forward(artifact.featuriser().encode([text], [context]))[0]
        for head in ("self_harm", "refusal"):
            found = explainer.explain(text, head, context)
            assert found.logit == pytest.approx(expected[LABELS.column(head)], abs=1e-4)


def test_tokens_are_words_of_the_original(explainer: Explainer) -> None:
    text = "They  walk, w\u200bith my fr1ends \U0001f92c along!"
    found = explainer.explain(text, "toxicity")
    assert [token.text for token in found.tokens] == [
        "They",
        "walk",
        ",",
        "w\u200bith",
        "my",
        "fr1ends",
        "\U0001f92c",
        "along",
        "!",
    ]
    assert all(text[token.start : token.end] == token.text for token in found.tokens)


def test_the_wide_part_is_exact(
    tmp_path: Path, tiny_model: WideAndDeep, tiny_parts: Parts, tiny_config: object
) -> None:
    """With a blank deep branch, all of the change is the n-grams' and belongs to the word that has them."""
    model = build(tiny_parts["config"], len(LABELS.names))
    model.mean_head.kernel = nnx.Param(0 * model.mean_head.kernel[...])
    model.attention_head = nnx.Param(0 * model.attention_head[...])
    model.wide = nnx.Param(tiny_model.wide[...])
    save_artifact(tmp_path / "a", model, **tiny_parts)
    found = Explainer(load_artifact(tmp_path / "a")).explain("you are an awful person", "sexual")
    assert found.baseline_logit == pytest.approx(0, abs=1e-6)
    assert found.residual == pytest.approx(0, abs=1e-5)
    assert [token.value for token in found.tokens] == pytest.approx([token.wide for token in found.tokens], abs=1e-6)
    assert found.logit != pytest.approx(0, abs=1e-2)


def test_the_prompt_stays_fixed(explainer: Explainer) -> None:
    text, prompt = "sorry cannot help with that", "how do i build something dangerous"
    found = explainer.explain(text, "refusal", prompt)
    assert [token.text for token in found.tokens] == text.split()
    assert found.baseline_logit != pytest.approx(explainer.explain(text, "refusal").baseline_logit, abs=1e-4)


@pytest.mark.parametrize("head", ["toxicity", "refusal", "helpfulness"])
def test_long_texts_add_up_as_well(explainer: Explainer, head: str) -> None:
    text = " ".join(SENTENCES * 3)
    found = explainer.explain(text, head)
    assert abs(found.residual) <= TOLERANCE * abs(found.logit - found.baseline_logit) + 1e-4
    reach = found.tokens[0].start, found.tokens[-1].end
    if head == "refusal":
        assert reach[0] == 0
        assert reach[1] < len(text)
    if head == "helpfulness":
        assert reach == (0, len(text))


def test_a_run_without_spaces_is_explained(explainer: Explainer) -> None:
    text = "walkwith" * 40
    found = explainer.explain(text, "toxicity")
    assert "".join(token.text for token in found.tokens) in text
    assert abs(found.residual) <= TOLERANCE * abs(found.logit - found.baseline_logit) + 1e-4


@pytest.mark.parametrize("text", ["", "   ", "\u200b\u200d"])
def test_nothing_to_explain(explainer: Explainer, text: str) -> None:
    found = explainer.explain(text, "toxicity")
    assert found.tokens == ()
    assert found.logit == pytest.approx(found.baseline_logit)


def test_unknown_head(explainer: Explainer) -> None:
    with pytest.raises(UsageError, match="Did you mean 'toxicity'"):
        explainer.explain("they walk", "toxicty")


def test_html_shows_every_character_and_escapes_it() -> None:
    text = '<script>alert("x")</script> & you'
    tokens = (
        Token(start=0, end=8, text="<script>", value=-1.0, wide=0.0),
        Token(start=30, end=33, text="you", value=0.5, wide=0.5),
    )
    page = to_html(
        Attribution(head="toxicity", tokens=tokens, baseline_logit=0, logit=-0.5, residual=0, steps=32), text
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&amp; <span" in page
    assert 'title="+0.500">you</span>' in page
    assert "0.80" in page


def test_html_without_words() -> None:
    empty = Attribution(head="toxicity", tokens=(), baseline_logit=0, logit=0, residual=0, steps=32)
    assert to_html(empty, "<b>") == '<span class="attribution">&lt;b&gt;</span>'


def test_gauss_legendre_needs_few_nodes(explainer: Explainer) -> None:
    assert explainer.explain(SENTENCES[2], "violence").steps <= 64
    assert np.isfinite(total(explainer.explain(SENTENCES[2], "violence")))
