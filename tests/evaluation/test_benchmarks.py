"""lm-eval on the loaded model: right numbers, adapters that take turns, resuming, paired tests; and the other way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from evaluation.analysis import analyse, benchmark_contrasts, benchmark_levels, main_metric
from evaluation.benchmarks.records import BenchmarkSample
from runs.console import Reporter
from runs.errors import UsageError, UserError

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "configs" / "evaluation" / "benchmarks"
QUESTIONS = [
    ("The sky on a clear day is", ["blue", "made of stone"], 0),
    ("A week has", ["nine days", "seven days"], 1),
    ("Ice melts when it gets", ["warm", "dark"], 0),
    ("Two and two make", ["five", "four"], 1),
    ("A cat has", ["four legs", "six wings"], 0),
    ("Bread is made from", ["sand", "flour"], 1),
]


@pytest.fixture
def local_task(tmp_path) -> Path:
    """A folder with one task of six rows that plain lm-eval reads as well (``dataset_path: json``)."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": question, "choices": choices, "gold": gold} for question, choices, gold in QUESTIONS]
    data = folder / "six.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "six", "dataset_path": "json", "dataset_kwargs": {"data_files": {"validation": str(data)}},
        "output_type": "multiple_choice", "validation_split": "validation", "doc_to_text": "{{question}}",
        "doc_to_choice": "choices", "doc_to_target": "gold", "metadata": {"version": 1.0},
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (folder / "six.yaml").write_text(yaml.safe_dump(task))
    return folder


@pytest.fixture
def engines(tiny_llama_family):
    from inference.engines import open_engines

    return open_engines(tiny_llama_family, ["base"], batch_size=4, device="cpu")


def answers(engines, folder, work, names=("six",), limit=None):
    from evaluation.benchmarks.run import open_tasks, run_benchmarks

    work.mkdir(exist_ok=True)
    manager = open_tasks(names, folder)
    return run_benchmarks(names, engines, manager, limit=limit, work=work, reporter=Reporter(quiet=True))


def test_the_numbers_are_plain_lm_evals(engines, local_task, tmp_path):
    """The same as `HFLM` on the bare model, and as the log-probabilities that the model itself gives."""
    import torch
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    (unit,) = answers(engines, local_task, tmp_path / "work")
    shared, tokenizer, _ = engines["base"].parts
    plain = simple_evaluate(
        model=HFLM(pretrained=shared.model, tokenizer=tokenizer, backend="causal", batch_size=4),
        tasks=["six"],
        task_manager=TaskManager(include_path=str(local_task), include_defaults=False),
    )
    assert unit.lm_eval["results"]["six"]["acc,none"] == plain["results"]["six"]["acc,none"]
    assert unit.lm_eval["results"]["six"]["acc_stderr,none"] == pytest.approx(
        plain["results"]["six"]["acc_stderr,none"]
    )
    for sample, (question, choices, gold) in zip(unit.samples, QUESTIONS, strict=True):
        scores = []
        for choice in choices:
            context, whole = tokenizer.encode(question), tokenizer.encode(f"{question} {choice}")
            with torch.inference_mode():
                logits = shared.model(torch.tensor([whole])).logits[0].log_softmax(-1)
            scores.append(sum(float(logits[at - 1, whole[at]]) for at in range(len(context), len(whole))))
        assert sample.metrics["acc"] == float(scores.index(max(scores)) == gold)


def test_the_base_answers_the_same_before_and_after(engines, local_task, tmp_path):
    from inference.records import Message, Request, Sampling

    request = Request(key="a", messages=(Message(role="user", content="What is a week?"),))
    before = [one.text for one in engines["base"].generate([request], Sampling(max_new_tokens=8))]
    answers(engines, local_task, tmp_path / "work")
    assert [one.text for one in engines["base"].generate([request], Sampling(max_new_tokens=8))] == before


def test_adapters_take_turns_on_one_base(tiny_llama_family, local_task, tmp_path):
    """Two checkpoints, asked in both orders, give the same numbers; they differ, so each has its own weights."""
    import torch
    from lm_eval.api.instance import Instance
    from peft import LoraConfig, get_peft_model

    from evaluation.benchmarks.lm import as_lm
    from inference.adapters import SharedModel
    from inference.engines.transformers import TransformersEngine
    from inference.loading import load_base, load_tokenizer

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    shared = SharedModel(get_peft_model(load_base(tiny_llama_family, device="cpu"), config, adapter_name="tuned"))
    shared.model.eval()
    tokenizer = load_tokenizer(tiny_llama_family)
    identity = {"batch_size": "4", "dtype": "float32", "base": "tiny"}
    engines = {
        name: TransformersEngine(shared, tokenizer, adapter=adapter, identity=identity, batch_size=4)
        for name, adapter in (("base", None), ("tuned", "tuned"))
    }
    models = {name: as_lm(engine) for name, engine in engines.items()}

    def score(name):
        requests = [Instance("loglikelihood", {}, (question, " x"), 0) for question, _, _ in QUESTIONS]
        return [value for value, _ in models[name].loglikelihood(requests)]

    first = {name: score(name) for name in ("base", "tuned")}
    second = {name: score(name) for name in ("tuned", "base")}
    assert first["base"] == pytest.approx(second["base"])
    assert first["tuned"] == pytest.approx(second["tuned"])
    assert first["base"] != pytest.approx(first["tuned"])
    assert models["base"].model is models["tuned"].model


def test_what_is_done_is_not_done_again(engines, local_task, tmp_path, monkeypatch):
    first = answers(engines, local_task, tmp_path / "work")
    monkeypatch.setattr("lm_eval.evaluator.simple_evaluate", lambda *_, **__: pytest.fail("asked again"))
    assert answers(engines, local_task, tmp_path / "work") == first


def test_unknown_tasks_and_folders_are_named(local_task, tmp_path):
    from evaluation.benchmarks.run import open_tasks

    with pytest.raises(UsageError, match="no folder"):
        open_tasks(["six"], tmp_path / "absent")
    with pytest.raises(UsageError, match="Did you mean 'arc_easy'"):
        open_tasks(["arc_easyy"], local_task)


def test_data_that_cannot_be_had_shows_before_a_model_answers(engines, local_task, tmp_path, monkeypatch):
    from evaluation.benchmarks.run import check_data, open_tasks

    answers(engines, local_task, tmp_path / "work")
    (local_task / "six.jsonl").unlink()
    manager = open_tasks(["six"], local_task)
    check_data(["six"], ["base"], manager, tmp_path / "work")  # its answers are on record: nothing is read
    with pytest.raises(UserError, match="data of benchmark 'six' cannot be had"):
        check_data(["six"], ["base", "other"], manager, tmp_path / "work")
    monkeypatch.delenv("CAI_DATA", raising=False)
    with pytest.raises(UserError, match="CAI_DATA"):
        check_data(["arc_easy"], ["base"], open_tasks(["arc_easy"], TASKS), tmp_path)


def test_the_shipped_tasks_ask_for_their_data_and_hold_no_path(monkeypatch, tmp_path):
    from lm_eval.tasks import TaskManager

    from evaluation.benchmarks.local import rows

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    assert set(manager.all_tasks) == {"arc_easy", "boolq", "piqa", "winogrande"}
    for path in TASKS.glob("*.yaml"):
        assert "/work" not in path.read_text()
        assert "!function evaluation.benchmarks.local.rows" in path.read_text()
    monkeypatch.delenv("CAI_DATA", raising=False)
    with pytest.raises(UserError, match="CAI_DATA"):
        rows(file="lm_eval/piqa_valid.jsonl")
    monkeypatch.setenv("CAI_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no benchmark file"):
        rows(file="piqa.jsonl")
    (tmp_path / "piqa.jsonl").write_text('{"goal": "a", "sol1": "b", "sol2": "c"}\n')
    (tmp_path / "labels").write_text("1\n0\n")
    with pytest.raises(UserError, match="2 labels for 1 rows"):
        rows(file="piqa.jsonl", labels="labels")
    (tmp_path / "labels").write_text("1\n")
    assert rows(file="piqa.jsonl", labels="labels", version=1.0)["validation"][0]["label"] == 1


@pytest.mark.parametrize("task", ["arc_easy", "boolq", "piqa", "winogrande"])
def test_the_shipped_tasks_read_files_of_their_shape(task, engines, tmp_path, monkeypatch):
    """With two rows of this test's own in the place of the data."""
    ice = {"query": "Passage: Ice is cold.\nQuestion: is ice cold?", "choices": ["no", "yes"], "gold": 1}
    ann = {"context_options": ["Ann left, so Ann", "Ann left, so Bob"], "continuation": "was alone.", "gold": 1}
    shapes = {
        "arc_easy.jsonl": {"query": "Question: Is ice cold?", "choices": ["yes", "no", "maybe", "often"], "gold": 0},
        "boolq.jsonl": ice,
        "piqa_valid.jsonl": {"goal": "cool a drink", "sol1": "add ice", "sol2": "add sand"},
        "winogrande.jsonl": ann,
    }
    data = tmp_path / "lm_eval"
    data.mkdir()
    for name, row in shapes.items():
        (data / name).write_text(2 * (json.dumps(row) + "\n"))
    (data / "piqa_valid_labels.lst").write_text("0\n0\n")
    monkeypatch.setenv("CAI_DATA", str(tmp_path))
    (unit,) = answers(engines, TASKS, tmp_path / "work", names=(task,))
    assert [sample.metrics["acc"] in (0.0, 1.0) for sample in unit.samples] == [True, True]
    assert unit.lm_eval["n-samples"][task] == {"original": 2, "effective": 2}


def sample(model: str, number: int, right: float, task: str = "six") -> BenchmarkSample:
    return BenchmarkSample(
        model=model, task=task, filter="none", doc_id=number, doc_hash=f"d{number}", prompt_hash="p", target_hash="t",
        target="0", metrics={"acc": right},
    )  # fmt: skip


def test_a_loss_of_capability_is_paired_and_named():
    samples = [sample("base", number, 1.0) for number in range(60)]
    samples += [sample("stage2", number, float(number % 2)) for number in range(60)]
    (found,) = benchmark_contrasts(samples, ["base", "stage2"], seed=0)
    assert found.verdict.outcome == "worse"
    assert found.price.outcome == "regressed"
    assert found.verdict.contrast.p_method == "mcnemar_exact"
    assert found.verdict.contrast.estimate == pytest.approx(-0.5)
    levels = benchmark_levels(samples, ["base", "stage2"])
    assert [(level.model, level.mean, level.scored) for level in levels] == [("base", 1.0, 60), ("stage2", 0.5, 60)]


def test_questions_are_paired_by_index_and_digest():
    samples = [sample("base", number, 1.0) for number in range(10)]
    samples += [sample("stage2", number, 1.0) for number in range(5, 15)]
    (found,) = benchmark_contrasts(samples, ["base", "stage2"], seed=0)
    assert (found.verdict.contrast.n_pairs, found.verdict.contrast.n_missing) == (5, 10)


def test_the_metric_that_stands_for_a_task():
    assert main_metric({"acc_norm": 1.0, "acc": 0.0}) == "acc"
    assert main_metric({"bleu": 3.0}) == "bleu"
    assert main_metric({}) is None
    assert analyse([], ["a", "b"], [], seed=0).benchmarks == ()


def test_our_evaluators_are_an_lm_eval_task():
    from lm_eval.tasks import TaskManager

    from evaluation.benchmarks.constitutional import dataset

    manager = TaskManager(include_path=str(ROOT / "evaluation" / "benchmarks" / "tasks"), include_defaults=False)
    (task,) = manager.load(["constitutional"])["tasks"].values()
    docs = list(task.eval_docs)
    assert len(docs) == len(dataset()["test"]) > 200
    harmful = next(doc for doc in docs if doc["expected"] == "refuse")
    scores = task.process_results(harmful, ["I can't help with that, because someone could get hurt."])
    assert scores["refusal_on_harmful"] == 1.0
    assert 0 <= scores["harm_prevention"] <= 1
    assert scores["unscored"] in (0.0, 1.0)
    assert "answer_on_benign" not in scores
    assert set(scores) <= set(task.aggregation())
