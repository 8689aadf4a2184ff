import json
import subprocess
import sys

import pytest
import yaml

from finetune import sweep
from finetune.cli import main
from finetune.config import DPORun, RLRun, SFTRun
from runs.errors import UsageError


@pytest.mark.parametrize(
    ("model", "key", "expected"),
    [
        (SFTRun, "train.learning_rate", False),
        (SFTRun, "train.eval_steps", False),
        (SFTRun, "lora.target_modules", True),
        (DPORun, "train.loss_type", True),
        (DPORun, "train.loss_weights", True),
        (DPORun, "lora.r", False),
        (RLRun, "watched", True),
        (SFTRun, "train.unknown", False),
    ],
)
def test_the_config_knows_where_it_has_lists(model, key, expected):
    assert sweep.takes_list(model, key) is expected


def test_lists_of_values_are_axes_and_their_product_is_run():
    asked = ["train.learning_rate=[1e-4, 2e-4]", "train.loss_type=[sigmoid, sft]", "train.seed=[0,1]", "train.beta=0.2"]
    found = sweep.read_sweep(DPORun, asked)
    assert found.fixed == ("train.loss_type=[sigmoid, sft]", "train.beta=0.2")
    assert [tuple(point.values()) for point in found.points()] == [
        ("1e-4", "0"),
        ("1e-4", "1"),
        ("2e-4", "0"),
        ("2e-4", "1"),
    ]
    assert sweep.folder_name(found.points()[0]) == "learning_rate=1e-4,seed=0"
    lists = sweep.read_sweep(DPORun, ["train.loss_type=[[sigmoid],[ipo, sft]]"])
    assert lists.points() == [{"train.loss_type": '["sigmoid"]'}, {"train.loss_type": '["ipo", "sft"]'}]
    assert "/" not in sweep.folder_name({"init_adapter": "../elsewhere"})
    assert sweep.read_sweep(DPORun, ["train.seed=1", "train.loss_type=[ipo]"]) is None


@pytest.mark.parametrize("asked", ["train.seed=[]", "train.seed=[1,1]", f"train.seed={list(range(65))}"])
def test_a_sweep_that_is_a_slip_is_refused(asked):
    with pytest.raises(UsageError):
        sweep.read_sweep(SFTRun, [asked])


def test_seeds_are_summed_up_by_setting():
    runs = [
        {"set": {"train.beta": beta, "train.seed": str(seed)}, "error": None, "metrics": {"eval_loss": loss}}
        for beta, seed, loss in (("0.1", 0, 1.0), ("0.1", 1, 3.0), ("0.2", 0, 5.0))
    ]
    runs.append({"set": {"train.beta": "0.2", "train.seed": "1"}, "error": "The loss is not a number", "metrics": {}})
    first, second = sweep.over_seeds(runs)
    assert first == {
        "set": {"train.beta": "0.1"},
        "runs": 2,
        "metrics": {"eval_loss": {"mean": 2.0, "sd": pytest.approx(2**0.5)}},
    }
    assert second["metrics"]["eval_loss"] == {"mean": 5.0, "sd": None}


def test_a_failed_runs_reason_is_what_its_panel_says():
    panel = "a warning\n╭─ error ─╮\n│ The loss is not  │\n│ a number.        │\n╰──────────╯\n"
    assert sweep._reason(panel) == "The loss is not a number."
    assert sweep._reason("Traceback …\n  File …\nRuntimeError: boom\n") == "RuntimeError: boom"
    assert sweep._reason("") == ""


@pytest.mark.slow
def test_a_sweep_runs_all_and_leaves_one_table(place, tmp_path):
    """Two rates, one of which ruins the run: the table has both, and the command fails with the reason."""
    run = place.sft(tmp_path / "out", max_steps=3, save_steps=5, eval_steps=None, max_grad_norm=0)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    words = ["-m", "finetune.cli", "sft", "--config", str(path), "--set", "train.learning_rate=[1e-3,1e8]"]
    words += ["--set", "train.logging_steps=1", "--set", "train.lr_scheduler_type=constant"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert "1 of 2 runs failed" in done.stderr
    value = json.loads((tmp_path / "out" / sweep.RESULTS).read_text())
    good, bad = value["runs"]
    assert good["error"] is None
    assert {"tokens_per_second", "minutes", "steps"} <= good["metrics"].keys()
    assert good["peak_memory_gib"] > 0
    assert good["seeds"] == {"train": 0, "data": 0}
    assert "not a number" in bad["error"]
    assert (tmp_path / "out" / "learning_rate=1e-3" / "manifest.json").is_file()


def test_the_plan_of_a_sweep_is_that_of_its_first_run(place, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(place.sft(tmp_path / "out").model_dump(mode="json")))
    words = [
        "finetune",
        "sft",
        "--config",
        str(path),
        "--set",
        "train.learning_rate=[1e-3,2e-3]",
        "--dry-run",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["config"]["train"]["learning_rate"] == 1e-3
