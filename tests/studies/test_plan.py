"""The plans that ship, and what a plan may say."""

from pathlib import Path

import pytest
import yaml

from runs import config as configs
from runs.errors import UsageError
from runs.paths import PROJECT_ROOT
from studies.plan import Study
from studies.run import checkpoint, family_with, pairs_file, select

PLANS = sorted((PROJECT_ROOT / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_shipped_plans_name_files_and_keys_that_exist(path: Path) -> None:
    study = configs.load(Study, path)
    for run in study.runs.values():
        assert (PROJECT_ROOT / run.config).is_file()
    values = yaml.safe_load((PROJECT_ROOT / study.train).read_text())
    for variant in study.variants.values():
        configs.apply_overrides(values, [*study.set, *variant.set])
    assert all("#" in line for line in path.read_text().splitlines() if line and not line.startswith(" "))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": {"a": {"run": "no", "licence": "MIT"}}}, "'no'"),
        ({"pairs": {"a": {"run": "r", "file": "rows.jsonl", "licence": "MIT"}}}, "either 'run' or 'file'"),
        ({"variants": {"v": {"pairs": ["b"]}}}, "'b'"),
        ({"variants": {"v": {"adapter": "there", "set": ["train.seed=1"]}}}, "an 'adapter' is finished"),
        ({"variants": {"stage2": {"pairs": ["a"]}}}, "the name is taken"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    plan = {
        "title": "x", "family": "f.yaml", "train": "t.yaml", "prompts": "p.jsonl", "output_dir": "out",
        "runs": {"r": {"config": "c.yaml"}}, "pairs": {"a": {"run": "r", "licence": "MIT"}},
        "variants": {"v": {"pairs": ["a"]}},
    }  # fmt: skip
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan | change))
    with pytest.raises(UsageError, match=message):
        configs.load(Study, path)


def test_the_family_keeps_its_own_checkpoints(tmp_path: Path) -> None:
    study = configs.load(Study, PROJECT_ROOT / "studies" / "seeds.yaml").model_copy(update={"output_dir": tmp_path})
    family = yaml.safe_load(family_with(study, {"seed1": Path("there")}).read_text())
    assert {"stage2", "stage3", "seed1"} <= set(family["adapters"])


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    study = Study.model_validate(
        {
            "title": "x", "family": "f.yaml", "train": "t.yaml", "prompts": "p.jsonl", "output_dir": tmp_path,
            "runs": {"r": {"config": "c.yaml"}},
            "pairs": {"kept": {"file": "rows.jsonl", "licence": "MIT"}, "made": {"run": "r", "licence": "MIT"}},
            "variants": {"v": {"adapter": "there"}, "w": {"pairs": ["kept", "made"]}},
        }
    )  # fmt: skip
    assert pairs_file(study, "kept") == Path("rows.jsonl")
    made = pairs_file(study, "made")
    assert made.is_relative_to(tmp_path)
    made.parent.mkdir(parents=True)
    (made.parent / "manifest.json").write_text("{}")
    select(study, "kept")  # a command would fail: none of the files exists
    select(study, "made")
    assert checkpoint(study, "v") == Path("there")
