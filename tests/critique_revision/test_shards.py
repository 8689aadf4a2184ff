"""Shards of a run: disjoint, complete, and together the bytes of one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from critique_revision.folder import clear, open_finished
from critique_revision.merge import find_parts, merge
from runs.errors import IntegrityError, UsageError, UserError
from runs.job import Shard
from runs.lock import run_lock
from runs.manifest import Manifest, read_manifest, verify
from runs.records import read_jsonl
from tests.board import asked, exported
from tests.critique_revision import recipe_driver
from tests.critique_revision.test_recipe import FILES, STAGES, contents


def shards(recipe: Path, folder: Path, count: int, overrides: tuple[str, ...] = ()) -> list[Path]:
    made = [folder / str(index) for index in range(count)]
    for index, path in enumerate(made):
        recipe_driver.run(recipe, path, overrides, shard=Shard(index=index, count=count))
    return made


def merged_into(target: Path, named: list[Path]) -> Manifest:
    with run_lock(target):
        return merge(find_parts(named), target, command="test")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_merged_shards_are_the_run_of_one_machine(recipe, tmp_path, count):
    recipe_driver.run(recipe, tmp_path / "whole")
    parts = shards(recipe, tmp_path / "parts", count)
    merged = merged_into(tmp_path / "merged", [tmp_path / "parts"])
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    verify(tmp_path / "merged", rebuild="")
    whole = read_manifest(tmp_path / "whole", rebuild="")
    assert (merged.run_id, merged.files, merged.counts) == (whole.run_id, whole.files, whole.counts)
    assert (merged.inputs, merged.config, merged.seeds) == (whole.inputs, whole.config, whole.seeds)
    answered = [len((path / STAGES[0]).read_bytes().splitlines()) for path in parts]
    assert sum(answered) == len(open_finished(tmp_path / "merged").prompts)
    assert max(answered) - min(answered) <= 1


def test_merging_again_changes_nothing_and_the_order_of_names_does_not_matter(recipe, tmp_path):
    parts = shards(recipe, tmp_path / "parts", 2)
    first = merged_into(tmp_path / "merged", parts)
    assert merged_into(tmp_path / "merged", parts[::-1]) == first


def test_a_missing_unfinished_or_doubled_shard_is_named(recipe, tmp_path):
    parts = shards(recipe, tmp_path / "parts", 3)
    with pytest.raises(UserError, match=r"(?s)Missing: 1/3.*--shard"):
        find_parts([parts[0], parts[2]])
    with pytest.raises(UserError, match="do not make one run"):
        find_parts([*parts, parts[0]])
    (parts[1] / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"(?s)is not finished.*--shard 1/3"):
        find_parts(parts)


def test_shards_of_other_runs_whole_runs_and_damage_are_refused(recipe, tmp_path):
    parts = shards(recipe, tmp_path / "parts", 2)
    (other,) = shards(recipe, tmp_path / "other", 1, ("seed=5",))
    with pytest.raises(UsageError, match=r"(?s)not a shard of the same run.*seed"):
        find_parts([parts[0], other])
    recipe_driver.run(recipe, tmp_path / "whole")
    with pytest.raises(UsageError, match="is a whole run"):
        find_parts([tmp_path / "whole"])
    with pytest.raises(UsageError, match="holds no shards"):
        find_parts([tmp_path / "nothing"])
    with pytest.raises(UsageError, match=r"(?s)is shard 0/2.*merge"):
        open_finished(parts[0])
    path = parts[0] / STAGES[1]
    path.write_bytes(path.read_bytes().replace(b"concrete", b"discrete"))
    with pytest.raises(IntegrityError, match="does not match"):
        find_parts(parts)


def test_a_shard_goes_on_after_a_kill_and_keeps_to_its_part(recipe, tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    recipe_driver.run(recipe, whole, shard=Shard(index=1, count=2))
    half.mkdir()
    for name in FILES[:-2]:  # as if killed in the last two stages
        (half / name).write_bytes((whole / name).read_bytes())
    recipe_driver.run(recipe, half, shard=Shard(index=1, count=2))
    assert contents(half) == contents(whole)
    with pytest.raises(UsageError, match="shard"):
        recipe_driver.run(recipe, half, shard=Shard(index=0, count=2))
    clear(half)
    assert not (half / "run.json").exists()


def test_a_shard_exports_what_the_dashboard_shows(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("CAI_METRICS", str(tmp_path / "shard.prom"))
    recipe_driver.run(recipe, tmp_path / "shard", shard=Shard(index=1, count=2))
    text = (tmp_path / "shard.prom").read_text()
    assert asked("cai_critique_revision") <= exported(text)
    assert 'cai_critique_revision_calls{process="1"}' in text


def test_more_shards_than_batches_are_refused(recipe, tmp_path):
    with pytest.raises(UsageError, match="cannot be shared by 99 shards"):
        recipe_driver.run(recipe, tmp_path / "run", shard=Shard(index=0, count=99))


def test_lines_of_a_merged_file_are_in_the_order_of_the_prompts(recipe, tmp_path):
    shards(recipe, tmp_path / "parts", 3)
    merged_into(tmp_path / "merged", [tmp_path / "parts"])
    from critique_revision.records import Answer

    order = [prompt.prompt_id for prompt in open_finished(tmp_path / "merged").prompts]
    assert [row.prompt_id for row in read_jsonl(tmp_path / "merged" / STAGES[0], Answer)] == order
