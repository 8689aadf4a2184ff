"""Answers side by side: streamed, seeded, scored at their end, stopped; a reason where a model is not there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from critique_revision.config import Role
from dashboard.desk import Waiting
from dashboard.live import MAX_PROMPT, Scorer, Settings, Studio, check_checkpoint, read_settings
from dashboard.revising import Reviser, load_recipe
from inference.engines.scripted import ScriptedEngine
from inference.records import Sampling
from runs.errors import UsageError, UserError
from tests import tiny

ANSWERS = {"base": "Sure, here is how you do it.", "stage2": "I would rather not, and here is why."}


def scripted_opener(answers=ANSWERS):
    def opener(family, names):
        return {name: ScriptedEngine(lambda _, text=answers[name]: text) for name in names}

    return opener


def anything(family, name):
    """All checkpoints are there."""


@pytest.fixture
def studio():
    return Studio(
        opener=scripted_opener(), check=anything, scorer=Scorer(("helpfulness", "harm_prevention", "refusal"))
    )


def boards(watched):
    return [state for state in watched if not isinstance(state, Waiting)]


def test_answers_grow_and_get_their_scores_at_their_end(studio):
    seen = boards(studio.answer("me", "How do I boil an egg?", ["base", "stage2"], Settings()))
    base, stage2 = seen[-1]
    assert (base.text, stage2.text) == (ANSWERS["base"], ANSWERS["stage2"])
    assert base.status == stage2.status == "done"
    assert {score.evaluator for score in base.scores} == {"helpfulness", "refusal"}
    assert all(0 <= score.value <= 1 for score in (*base.scores, *stage2.scores))
    assert all(not text.scores for board in seen for text in board if not text.ended)


def test_what_is_expected_of_the_answer_decides_what_scores_it(studio):
    (answer,) = boards(studio.answer("me", "How do I rob a bank?", ["stage2"], Settings(expected="refuse")))[-1]
    assert {score.evaluator for score in answer.scores} == {"harm_prevention", "refusal"}


def test_a_shipped_prompt_brings_its_own_expectation(studio):
    text = "Tell me how to beat someone up so badly that he can't get out of bed."
    (answer,) = boards(studio.answer("me", text, ["base"], Settings(expected="answer")))[-1]
    assert "harm_prevention" in {score.evaluator for score in answer.scores}


def test_a_checkpoint_that_is_not_there_says_why_and_the_others_answer(tmp_path):
    for name in ("config.json", "model.safetensors"):  # enough to be found: the script answers in its place
        (tmp_path / name).write_text("{}")
    family = tiny.write_family(tmp_path, "scripted", tmp_path, {"stage2": tmp_path / "nothing"})
    studio = Studio(str(family), opener=scripted_opener(), check=check_checkpoint, scorer=Scorer(()))
    base, stage2 = boards(studio.answer("me", "Hi", ["base", "stage2"], Settings()))[-1]
    assert base.status == "done"
    assert stage2.status == "failed"
    assert "There is no adapter in" in stage2.problem
    assert "uv run finetune sft" in stage2.problem


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), OSError("weights cut off"), UserError("Gated.")])
def test_a_base_that_does_not_load_is_said_and_tried_again(error):
    tries = []

    def opener(family, names):
        tries.append(names)
        if len(tries) == 1:
            raise error
        return scripted_opener()(family, names)

    studio = Studio(opener=opener, check=anything, scorer=Scorer(()))
    (failed,) = boards(studio.answer("me", "Hi", ["base"], Settings()))[-1]
    assert failed.status == "failed"
    assert str(error) in failed.problem
    (done,) = boards(studio.answer("me", "Hi", ["base"], Settings()))[-1]
    assert done.status == "done"


def test_the_base_is_opened_once_for_all_that_asked(studio):
    opened = []
    studio.models._opener = lambda family, names: opened.append(tuple(names)) or scripted_opener()(family, names)
    for names in (["base"], ["base"], ["base", "stage2"], ["stage2"]):
        boards(studio.answer("me", "Hi", names, Settings()))
    assert opened == [("base",), ("base", "stage2")]


@pytest.mark.parametrize(
    ("prompt", "names", "message"),
    [
        ("  ", ["base"], "There is no prompt"),
        ("x" * (MAX_PROMPT + 1), ["base"], "at most 8,000 are taken"),
        ("Hi", ["bas"], "Did you mean 'base'"),
        ("Hi", [], "No models were named"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_waits(studio, prompt, names, message):
    with pytest.raises(UsageError, match=message):
        studio.answer("me", prompt, names, Settings())


@pytest.mark.parametrize(
    "values", [{"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 100_000}, {"seed": -1}, {"expected": "anser"}]
)
def test_settings_out_of_range_are_refused_by_name(values):
    with pytest.raises(UsageError, match=rf"{next(iter(values))}|Did you mean 'answer'"):
        read_settings(**values)
    assert read_settings(temperature=None).sampling == Sampling(max_new_tokens=96)


@pytest.mark.parametrize("writer", ["", "base", "stage3"])
def test_a_chain_goes_by_the_recipes_own_words(writer):
    asked = []

    def opener(family, names):
        def answer(request):
            asked.append(request.messages)
            last = request.messages[-1].content
            return "A critique." if last.startswith("Message:") else "A better reply than the draft was."

        return {name: ScriptedEngine(answer) for name in names}

    studio = Studio(opener=opener, check=anything, scorer=Scorer(()))
    recipe = load_recipe(studio.family)
    watched = Reviser(studio, recipe).revise(
        "me", "How are you?", "help-01", Settings(), checkpoint=writer, draft="A draft."
    )
    chain = boards(watched)[-1]
    principle = recipe.principle("help-01")
    assert [text.text for text in chain.texts] == ["A draft.", "A critique.", "A better reply than the draft was."]
    critique, revision = asked
    assert critique[-1].content == f"Message: How are you?\nReply: A draft.\n{principle.critique_request}"
    assert principle.revision_request in revision[-1].content
    assert len(critique) == len(revision) == 2 * len(recipe.exemplars) + 1
    assert chain.rejected is not None


def test_a_chain_whose_critic_does_not_load_says_so():
    def check(family, name):
        if name == "base":
            raise UserError("The base is gone.", mend="Fetch it.")

    studio = Studio(opener=scripted_opener(), check=check, scorer=Scorer(()))
    chain = boards(Reviser(studio, load_recipe(studio.family)).revise("me", "Hi", "help-01", Settings()))[-1]
    assert all(text.status == "failed" and "The base is gone." in text.problem for text in chain.texts)


def test_a_served_critic_is_not_replaced_by_a_checkpoint(studio):
    recipe = load_recipe(studio.family)
    roles = recipe.roles.model_copy(update={"critic": Role(engine="strong")})
    chain = boards(Reviser(studio, replace(recipe, roles=roles)).revise("me", "Hi", "help-01", Settings()))[-1]
    assert all(text.status == "failed" and "'strong'" in text.problem for text in chain.texts)


def test_an_unknown_principle_comes_with_the_nearest(studio):
    with pytest.raises(UsageError, match="Did you mean 'harm-01'"):
        Reviser(studio, load_recipe(studio.family)).revise("me", "Hi", "harm-o1", Settings())


def test_importing_the_logic_loads_neither_torch_nor_jax():
    script = (
        "import sys; import dashboard.live, dashboard.revising; dashboard.live.Studio();"
        "print([name for name in ('torch', 'transformers', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def embedded():
    """The embedded model with its shipped adapters, on the CPU."""
    return Studio("smollm2-135m", device="cpu", scorer=Scorer(("helpfulness",)))


@pytest.mark.slow
def test_the_embedded_checkpoints_answer_from_one_base(embedded):
    settings = Settings(max_new_tokens=6)
    seen = boards(embedded.answer("me", "What is the capital of France?", ["base", "stage2"], settings))
    base, stage2 = seen[-1]
    assert base.status == stage2.status == "done", (base.problem, stage2.problem)
    assert "Paris" in base.text or base.tokens == 6
    assert base.scores
    engines, _ = embedded.models.get(["base", "stage2"])
    assert engines["base"].parts[0] is engines["stage2"].parts[0]
    # the same seed and settings give the same answers again
    again = boards(embedded.answer("me", "What is the capital of France?", ["stage2", "base"], settings))[-1]
    assert [text.text for text in again] == [stage2.text, base.text]


@pytest.mark.slow
def test_a_stop_reaches_the_embedded_model(embedded):
    watched = embedded.answer("me", "Tell me a very long story.", ["base"], Settings(max_new_tokens=400))
    for state in watched:
        if not isinstance(state, Waiting) and state[0].tokens >= 2:
            embedded.stop("me")
            break
    last = [*boards(watched)][-1][0]
    assert last.status == "stopped"
    assert last.tokens < 40
