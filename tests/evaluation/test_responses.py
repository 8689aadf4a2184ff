"""Answers made elsewhere, scored again, merged from shards, compared between runs. No model anywhere."""

from __future__ import annotations

import csv
import json

import pytest

from evaluation import run as evaluation_run
from evaluation.answered import evaluate_responses
from evaluation.between import check_two, compare_runs, join, pick_model
from evaluation.config import EvaluationRun
from evaluation.evaluators import registry
from evaluation.report.data import load_run
from evaluation.rescore import rescore, shard_folders
from evaluation.responses import read_responses
from runs import config as configs
from runs.console import Reporter
from runs.errors import UsageError, UserError
from tests.evaluation.made_runs import EVALUATORS, REFUSAL, answer, made_run, prompts

ASKED = prompts(24)


@pytest.fixture(autouse=True)
def small_evaluators(monkeypatch):
    """The tests' own evaluators in the place of the registry's."""
    by_name = {evaluator.name: evaluator for evaluator in EVALUATORS}
    monkeypatch.setattr(registry, "get", lambda wanted=None: [by_name[name] for name in wanted or by_name])


def row(prompt, model: str, **more):
    text = REFUSAL if model == "careful" and prompt.expected == "refuse" else answer(prompt)
    return {"prompt": prompt.text, "response": text, "model": model, **more}


def write(path, rows):
    path.write_text("".join(json.dumps(line) + "\n" for line in rows), encoding="utf-8")
    return path


def score_file(path, tmp_path, *, models=(), name="run", **options):
    options = {"all_prompts": False, "allow_different_settings": False, "resume": True, **options}
    return evaluate_responses(
        EvaluationRun(models=models), path, output_dir=tmp_path / name, results_root=tmp_path,
        reporter=Reporter(quiet=True), command="a test", **options,
    )  # fmt: skip


def test_answers_of_two_models_are_scored_and_compared(tmp_path):
    path = write(tmp_path / "answers.jsonl", [row(p, model) for p in ASKED for model in ("bold", "careful")])
    folder, results = score_file(path, tmp_path)
    assert list(results.results) == ["bold", "careful"]
    assert results.n_samples["prompts"] == 24
    assert not results.stamp
    run = load_run(folder)
    assert run.prompts[ASKED[0].id].category == ASKED[0].category  # what the prompts file knows is kept
    safer = next(v for v in run.analysis.primary if v.contrast.metric == "harm_prevention")
    assert (safer.contrast.treatment, safer.contrast.control) == ("careful", "bold")
    assert safer.contrast.estimate > 0.5
    before = (folder / "results.json").read_bytes()
    assert score_file(path, tmp_path)[1] == results
    assert (folder / "results.json").read_bytes() == before


def test_csv_reads_like_json_lines(tmp_path):
    rows = [row(prompt, "bold", temperature="0.7") for prompt in ASKED]
    path = tmp_path / "answers.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows([*rows[:-1], {**rows[-1], "response": ""}])
    read = read_responses(path)
    assert [found.response for found in read] == [*(line["response"] for line in rows[:-1]), None]
    assert read[0].settings == {"temperature": 0.7}


def test_missing_answers_are_listed_and_pairs_are_complete(tmp_path, capsys):
    rows = [row(prompt, "bold") for prompt in ASKED]
    rows += [row(prompt, "careful") for prompt in ASKED[:-5]]
    rows.append({**row(ASKED[-5], "careful"), "response": None})
    _, results = score_file(write(tmp_path / "answers.jsonl", rows), tmp_path)
    assert results.missing == {"careful": [prompt.id for prompt in ASKED[-5:]]}
    told = " ".join(capsys.readouterr().err.split())
    assert "careful has no answer to 5 of 24 prompts" in told
    analysis = load_run(tmp_path / "run").analysis
    harmful = sum(prompt.expected == "refuse" for prompt in ASKED)
    absent = sum(prompt.expected == "refuse" for prompt in ASKED[-5:])
    contrast = next(v.contrast for v in analysis.primary if v.contrast.metric == "harm_prevention")
    assert (contrast.n_pairs, contrast.n_missing) == (harmful - absent, absent)


def test_prompts_that_nobody_answered_count_as_missing_when_a_file_is_named(tmp_path):
    path = write(tmp_path / "answers.jsonl", [row(prompt, "bold") for prompt in ASKED])
    _, results = score_file(path, tmp_path, all_prompts=True)
    assert results.n_samples["prompts"] == 248
    assert len(results.missing["bold"]) == 224


def test_other_settings_are_refused_or_stamped(tmp_path):
    rows = [row(p, "bold", temperature=0.7) for p in ASKED] + [row(p, "careful", temperature=0.0) for p in ASKED]
    path = write(tmp_path / "answers.jsonl", rows)
    with pytest.raises(UsageError, match=r"not made under the same generation settings") as refused:
        score_file(path, tmp_path)
    assert "temperature" in refused.value.why
    _, results = score_file(path, tmp_path, allow_different_settings=True)
    assert "Generation settings differ" in results.stamp
    assert "temperature" in results.stamp


def test_one_model_under_two_settings_is_refused(tmp_path):
    rows = [row(prompt, "bold", temperature=0.1 * (number % 2)) for number, prompt in enumerate(ASKED)]
    with pytest.raises(UsageError, match="under more than one setting"):
        score_file(write(tmp_path / "answers.jsonl", rows), tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"prompt": "a", "response": "b"', "{}"], "line 1: not valid JSON"),
        (["[1]"], "line 1: expected an object"),
        (['{"response": "b"}'], "line 1: give either 'prompt' or 'messages'"),
        (['{"prompt": "a"}'], "response"),
        (['{"prompt": " ", "response": "b"}'], "the prompt is empty"),
        (['{"prompt": "a", "response": "b", "colour": 1}'], "line 1: colour"),
        (['{"prompt": "a", "response": "b"}', '{"prompt": "A ", "response": "c"}'], "same prompt as on line 1"),
        (['{"prompt": "a", "response": "b", "settings": 3}'], "line 1: settings"),
        ([""], "holds no responses"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(tmp_path, lines, message):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=message):
        read_responses(path)


def test_unknown_models_and_files_are_named(tmp_path):
    path = write(tmp_path / "answers.jsonl", [row(prompt, "bold") for prompt in ASKED[:3]])
    with pytest.raises(UsageError, match="Did you mean 'bold'"):
        score_file(path, tmp_path, models=("bolt",))
    with pytest.raises(UsageError, match="no responses file"):
        read_responses(tmp_path / "absent.jsonl")


def again(folders, tmp_path, **options):
    options = {"evaluators": None, "output_dir": tmp_path / "scored", "resume": True, **options}
    return rescore(folders, results_root=tmp_path, reporter=Reporter(quiet=True), command="a test", **options)


def test_stored_answers_are_scored_again_with_other_evaluators(tmp_path, monkeypatch):
    first = made_run(tmp_path / "run", models=("base", "stage2"), asked=ASKED)
    folder, results = again([first], tmp_path)
    assert results.summaries == load_run(first).results.summaries
    monkeypatch.setattr(EVALUATORS[0], "version", "stub-2", raising=False)
    monkeypatch.setattr(EVALUATORS[0], "_values", {}, raising=True)
    changed, other = again([first], tmp_path, output_dir=tmp_path / "other")
    assert changed != folder
    assert other.run_id != results.run_id
    assert other.summaries != results.summaries
    assert [s.response for s in load_run(changed).samples] == [s.response for s in load_run(first).samples]


def shard(tmp_path, index: int, count: int):
    part = ASKED[index * len(ASKED) // count : (index + 1) * len(ASKED) // count]
    folder = made_run(tmp_path / "shards" / f"shard-{index}", models=("base", "stage2"), asked=part, seed=index)
    run = configs.load(EvaluationRun, folder / "config.yaml").model_copy(update={"shard": f"{index}/{count}"})
    configs.save(run, folder / "config.yaml")
    manifest = json.loads((folder / "manifest.json").read_text())
    from runs.identity import file_digest

    path = folder / "config.yaml"
    manifest["files"]["config.yaml"] = {"sha256": file_digest(path), "size": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_shards_become_one_run_in_the_order_of_the_prompts(tmp_path):
    parts = [shard(tmp_path, index, 3) for index in range(3)]
    assert shard_folders([tmp_path / "shards"]) == parts
    folder, results = again(parts[::-1], tmp_path)
    assert [sample.prompt_id for sample in load_run(folder).samples[::2]] == [prompt.id for prompt in ASKED]
    assert not results.stamp
    _, partial = again(parts[:2], tmp_path, output_dir=tmp_path / "partial")
    assert "Shards are missing: 2/3" in partial.stamp
    with pytest.raises(UsageError, match="Two of the runs answer the prompt"):
        again([parts[0], parts[0]], tmp_path, output_dir=tmp_path / "twice")


def test_runs_of_other_models_are_no_shards(tmp_path):
    first = made_run(tmp_path / "a", models=("base",), asked=ASKED[:12])
    second = made_run(tmp_path / "b", models=("base",), asked=ASKED[12:], revision="2")
    with pytest.raises(UsageError, match="not a shard of the same run"):
        again([first, second], tmp_path)
    with pytest.raises(UserError, match="holds no finished run"):
        shard_folders([tmp_path / "nothing"])


def test_two_runs_are_compared_on_their_common_prompts(tmp_path):
    first = load_run(made_run(tmp_path / "a", models=("base",), asked=ASKED[:20]))
    second = load_run(made_run(tmp_path / "b", models=("stage3",), asked=ASKED[4:]))
    joined = join(first, second, ("base", "stage3"), allow_different_settings=False)
    assert joined.dropped == {"base": 4, "stage3": 4}
    config = configs.load(EvaluationRun, first.folder / "config.yaml")
    folder, results = compare_runs(joined, config, output_dir=tmp_path / "c", results_root=tmp_path, command="a test")
    assert results.n_samples["prompts"] == 16
    assert "4 prompts of base are not in the other run" in results.stamp
    assert {(v.contrast.treatment, v.contrast.control) for v in load_run(folder).analysis.primary} == {
        ("stage3", "base")
    }


def test_one_model_of_two_runs_gets_two_names(tmp_path):
    runs = [
        load_run(made_run(tmp_path / name, models=("stage3",), asked=ASKED, revision=name, seed=number))
        for number, name in enumerate("ab")
    ]
    joined = join(*runs, ("stage3", "stage3"), allow_different_settings=False)
    assert joined.control == f"stage3@{runs[0].results.run_id[:6]}"
    assert joined.control != joined.treatment
    assert not joined.same
    with pytest.raises(UsageError, match="the same model of the same run"):
        check_two("x", "x")
    with pytest.raises(UsageError, match="Did you mean 'stage3'"):
        pick_model(runs[0], "stage2")


def test_runs_that_differ_in_more_than_the_model_are_refused_or_stamped(tmp_path):
    first = load_run(made_run(tmp_path / "a", models=("base",), asked=ASKED))
    second = load_run(made_run(tmp_path / "b", models=("base",), asked=ASKED, temperature=0.7))
    with pytest.raises(UsageError, match="not made under the same"):
        join(first, second, ("base", "base"), allow_different_settings=False)
    assert "temperature" in join(first, second, ("base", "base"), allow_different_settings=True).stamp
    third = load_run(made_run(tmp_path / "c", models=("base",), asked=prompts(60)[40:]))
    with pytest.raises(UsageError, match="no prompt in common"):
        join(first, third, ("base", "base"), allow_different_settings=False)


def test_other_evaluator_versions_are_refused(tmp_path, monkeypatch):
    first = load_run(made_run(tmp_path / "a", models=("base",), asked=ASKED))
    monkeypatch.setattr(EVALUATORS[0], "version", "stub-2", raising=False)
    second = load_run(made_run(tmp_path / "b", models=("stage2",), asked=ASKED))
    with pytest.raises(UsageError, match="not scored by the same evaluators"):
        join(first, second, ("base", "stage2"), allow_different_settings=False)


def test_a_shard_is_whole_batches_of_the_prompts_and_all_shards_are_the_whole():
    class InThrees:
        def batches(self, requests):
            keys = sorted(request.key for request in requests)
            return [keys[start : start + 3] for start in range(0, len(keys), 3)]

    whole = evaluation_run.choose_prompts(EvaluationRun(models=("base",)))
    place = {prompt.id: index for index, prompt in enumerate(whole)}
    found = []
    for index in range(7):
        run = EvaluationRun(models=("base",), shard=f"{index}/7")
        part = evaluation_run.own_prompts(run, whole, InThrees())
        assert [place[prompt.id] for prompt in part] == sorted(place[prompt.id] for prompt in part)
        found += part
    assert len(found) == len(whole)
    assert {prompt.id for prompt in found} == {prompt.id for prompt in whole}
    with pytest.raises(UsageError, match="smaller batch size"):
        evaluation_run.own_prompts(EvaluationRun(models=("base",), shard="0/99"), whole[:30], InThrees())
    with pytest.raises(ValueError, match="starts at 0"):
        EvaluationRun(shard="7/7")
