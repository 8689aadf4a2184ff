"""Carry out a study: `uv run python -m studies.run configs/studies/smollm2-135m.yaml`.

Every step is a command of this project in a process of its own, and goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from evaluation.records import Sample
from runs import config as configs
from runs.atomic import write_text
from runs.errors import unknown_name
from runs.manifest import read_manifest
from runs.records import read_jsonl
from studies.measure import Outcome, Row, row
from studies.plan import Study

RESULT = "study.json"


def command(name: str, *words: object) -> None:
    """Run one of the project's commands; where it fails, `subprocess.CalledProcessError` after its own message."""
    line = [str(Path(sys.executable).parent / name), *map(str, words)]
    print("$", name, *map(str, words), flush=True)
    subprocess.run(line, check=True)


def overrides(values: Sequence[str]) -> list[str]:
    """``--set`` for each of ``values``."""
    return [word for value in values for word in ("--set", value)]


def generate(study: Study, name: str) -> None:
    """Carry out a generation, or go on with it."""
    run = study.runs[name]
    asked = ["--config", run.config, *overrides(run.set), "--output-dir", study.output_dir / "runs" / name]
    command("critique-revision", "generate", *asked, "--quiet")


def pairs_file(study: Study, name: str) -> Path:
    """Where the rows of a set of pairs are."""
    return study.pairs[name].file or study.output_dir / "pairs" / name / "dpo" / "pairs.jsonl"


def select(study: Study, name: str) -> None:
    """Filter a generation and export what is left, unless the rows are there already."""
    wanted = study.pairs[name]
    if wanted.run is None or pairs_file(study, name).with_name("manifest.json").is_file():
        return
    folder = study.output_dir / "runs" / wanted.run
    command("critique-revision", "filter", folder, *overrides(wanted.set), "--quiet")
    exported = study.output_dir / "pairs" / name
    command("critique-revision", "export", folder, "--formats", "dpo", "--output-dir", exported, "--quiet")


def checkpoint(study: Study, name: str) -> Path:
    """The folder of a variant's adapter; it is trained first on its pairs, unless it is there already."""
    variant = study.variants[name]
    if variant.adapter is not None:
        return variant.adapter
    folder = study.output_dir / "checkpoints" / name
    values: dict[str, Any] = yaml.safe_load(study.train.read_text(encoding="utf-8"))
    sources = [{"path": str(pairs_file(study, part)), "licence": study.pairs[part].licence} for part in variant.pairs]
    values |= {"output_dir": str(folder), "init_adapter": study.init}
    if sources:
        values["data"]["sources"] = sources
    values = configs.apply_overrides(values, [*study.set, *variant.set])
    resolved = study.output_dir / "configs" / f"{name}.yaml"
    resolved.parent.mkdir(parents=True, exist_ok=True)
    write_text(resolved, yaml.safe_dump(values, sort_keys=False))
    command("finetune", "dpo", "--config", resolved, "--quiet")
    return folder


def answers(study: Study, family: Path, model: str) -> list[Sample]:
    """Evaluate one checkpoint on the study's prompts."""
    folder = study.output_dir / "evaluations" / model
    words = ["--family", family, "--models", model, "--prompts", study.prompts, "--output-dir", folder]
    words += [] if study.limit is None else ["--limit", study.limit]
    command("evaluate", *words, "--max-new-tokens", study.max_new_tokens, "--no-report", "--quiet")
    return read_jsonl(folder / "samples.jsonl", Sample)


def family_with(study: Study, folders: Mapping[str, Path]) -> Path:
    """A family YAML with the study's checkpoints beside the family's own."""
    values = yaml.safe_load(study.family.read_text(encoding="utf-8"))
    values["adapters"] = {**values.get("adapters", {}), **{name: str(path) for name, path in folders.items()}}
    path = study.output_dir / "family.yaml"
    write_text(path, yaml.safe_dump(values, sort_keys=False))
    return path


def carry_out(study: Study, line: str, *, jobs: int = 1) -> Outcome:
    """All steps, ``jobs`` processes at once; the outcome is written to the study's folder as well."""
    study.output_dir.mkdir(parents=True, exist_ok=True)
    needed = list(dict.fromkeys(part for variant in study.variants.values() for part in variant.pairs))
    runs = list(dict.fromkeys(run for part in needed if (run := study.pairs[part].run) is not None))
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: generate(study, name), runs))
        for name in needed:  # sets of one run take turns with its folder
            select(study, name)
        folders = dict(zip(study.variants, pool.map(lambda name: checkpoint(study, name), study.variants), strict=True))
        family = family_with(study, folders)
        models = ["base", study.init, *study.variants]
        answered = dict(zip(models, pool.map(lambda model: answers(study, family, model), models), strict=True))
    references = {model: answered[model] for model in ("base", study.init)}
    rows: list[Row] = [row(model, "", [found], {}, None) for model, found in references.items()]
    groups: dict[str, list[str]] = {}
    for name, variant in study.variants.items():
        groups.setdefault(variant.group or name, []).append(name)
    for group, names in groups.items():
        about = study.variants[names[0]].about
        trained = read_manifest(folders[names[0]], rebuild=line).counts["rows_trained"]
        rows.append(row(group, about, [answered[name] for name in names], references, trained))
    categories = Counter(sample.prompt.category for sample in references["base"])
    outcome = Outcome(
        title=study.title,
        command=line,
        prompts=dict(sorted(categories.items())),
        max_new_tokens=study.max_new_tokens,
        rows=rows,
    )
    write_text(study.output_dir / RESULT, outcome.model_dump_json(indent=1) + "\n")
    return outcome


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="carry out these variants only")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once; each then has its share of the cores")
    options = parser.parse_args()
    if options.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // options.jobs))
    study = configs.load(Study, options.plan)
    line = f"uv run python -m studies.run {options.plan}"
    if options.only:
        for name in options.only:
            if name not in study.variants:
                raise unknown_name("variant", name, study.variants)
        study = study.model_copy(update={"variants": {name: study.variants[name] for name in options.only}})
        line += f" --only {' '.join(options.only)}"
    outcome = carry_out(study, line, jobs=options.jobs)
    for measured in outcome.rows:
        print(measured.name, {label: round(found.mean, 3) for label, found in measured.values.items()})


if __name__ == "__main__":
    main()
