"""The Gemma path: a tiny Gemma v1 goes through SFT, DPO and evaluation by the same commands as the real one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluation.config import CORE_PROMPTS
from tests import tiny

pytestmark = pytest.mark.slow


def run(module: str, *arguments: object) -> str:
    script = f"from {module}.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def chain(tmp_path_factory, tiny_gemma) -> Path:
    """A folder with stage2, stage3 and an evaluation of all three checkpoints."""
    folder = tmp_path_factory.mktemp("gemma")
    adapters = {"stage2": folder / "stage2", "stage3": folder / "stage3"}
    family = tiny.write_family(folder, "gemma-tiny", tiny_gemma, adapters)
    talks = [
        f"\n\nHuman: What is number {n}?\n\nAssistant: It is {n}.\n\nHuman: And the next?\n\nAssistant: It is {n + 1}."
        for n in range(24)
    ]
    (folder / "talks.jsonl").write_text("".join(json.dumps({"chosen": talk}) + "\n" for talk in talks))
    pairs = [
        {
            "prompt": [{"role": "user", "content": f"Say {n}."}],
            "chosen": [{"role": "assistant", "content": f"Here it is: {n}."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        }
        for n in range(24)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    for kind, data in (("sft", "talks.jsonl"), ("dpo", "pairs.jsonl")):
        shipped = yaml.safe_load(Path(f"configs/finetune/gemma-2b-it-{kind}.yaml").read_text())
        shipped["family"] = str(family)
        shipped["output_dir"] = str(adapters["stage2" if kind == "sft" else "stage3"])
        shipped["model"] = {"dtype": "float32", "quantization": None, "device": "cpu"}
        shipped["data"] |= {"sources": [{"path": str(folder / data)}], "holdout_fraction": 0.2}
        shipped["train"] |= {
            "bf16": False,
            "max_steps": 8,
            "learning_rate": 0.1,
            "eval_steps": None,
            "save_steps": 2,
            "logging_steps": 1,
            "load_best_model_at_end": False,
        }
        shipped["train"] |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "report_to": "none"}
        if kind == "dpo":
            shipped["train"]["eval_steps"] = 4
            shipped["monitors"] |= {"prompts": 2, "max_new_tokens": 8}
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(shipped))
        run("finetune", kind, "--config", folder / f"{kind}.yaml")
    prompts = folder / "prompts.jsonl"
    prompts.write_text("\n".join(CORE_PROMPTS.read_text().splitlines()[::40]) + "\n")
    run(
        "evaluation", "--models", "base", "stage2", "stage3", "--family", family, "--prompts", prompts,
        "--max-new-tokens", 12, "--output-dir", folder / "run",
    )  # fmt: skip
    return folder


def test_dpo_starts_at_ln_2_with_stage2_as_its_reference(chain):
    metrics = json.loads((chain / "stage3" / "manifest.json").read_text())["metrics"]
    start = {name: value for name, value in metrics.items() if "before" in name or "step0" in name or "start" in name}
    assert any(abs(value) < 1e-6 for name, value in start.items() if "margin" in name), metrics


def test_every_checkpoint_answers_every_prompt(chain):
    samples = [json.loads(line) for line in (chain / "run" / "samples.jsonl").read_text().splitlines()]
    assert {sample["model"] for sample in samples} == {"base", "stage2", "stage3"}
    assert len(samples) == 3 * 7


def test_training_changed_the_answers_and_loading_adapters_left_the_base_alone(chain, tiny_gemma):
    samples = [json.loads(line) for line in (chain / "run" / "samples.jsonl").read_text().splitlines()]
    said = {name: [sample["response"] for sample in samples if sample["model"] == name] for name in ("base", "stage2")}
    assert said["base"] != said["stage2"]
    alone = chain / "alone"
    family = tiny.write_family(chain, "gemma-alone", tiny_gemma)
    run(
        "evaluation", "--models", "base", "--family", family, "--prompts", chain / "prompts.jsonl",
        "--max-new-tokens", 12, "--output-dir", alone,
    )  # fmt: skip
    by_itself = [json.loads(line)["response"] for line in (alone / "samples.jsonl").read_text().splitlines()]
    assert by_itself == said["base"]
