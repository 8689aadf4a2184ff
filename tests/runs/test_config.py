"""Strict configs: unknown keys, overrides, files that are no configs."""

import pytest

from runs import config
from runs.config import StrictModel
from runs.errors import UsageError


class Train(StrictModel):
    learning_rate: float = 1e-4
    max_steps: int = 10


class Recipe(StrictModel):
    family: str
    train: Train = Train()
    sections: tuple[Train, ...] = ()


def test_unknown_key_names_file_key_and_nearest(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("family: a\ntrain:\n  learning_rat: 3\n")
    with pytest.raises(UsageError, match=r"'train.learning_rat': unknown key; did you mean 'learning_rate'") as caught:
        config.load(Recipe, path)
    assert "recipe.yaml" in caught.value.what


def test_unknown_key_far_from_all_lists_what_is_known():
    with pytest.raises(UsageError, match=r"'zzz': unknown key; known here: family, sections, train"):
        config.parse(Recipe, {"family": "a", "zzz": 1}, source="test")


def test_unknown_key_inside_a_list_is_found():
    with pytest.raises(UsageError, match=r"'sections.0.max_step': unknown key; did you mean 'max_steps'"):
        config.parse(Recipe, {"family": "a", "sections": [{"max_step": 1}]}, source="test")


def test_overrides_reach_into_sections_and_are_read_as_yaml(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("family: a\ntrain:\n  max_steps: 1\n")
    loaded = config.load(Recipe, path, ["train.learning_rate=2.5e-3", "family=b"])
    assert loaded == Recipe(family="b", train=Train(learning_rate=2.5e-3, max_steps=1))


@pytest.mark.parametrize(
    ("override", "message"), [("train", "expected KEY=VALUE"), ("family.x=1", "is a value, not a section")]
)
def test_bad_overrides_are_refused(override, message):
    with pytest.raises(UsageError, match=message):
        config.apply_overrides({"family": "a"}, [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [", "not valid YAML"), (b"\xff\xfe", "cannot be read"), (b"- a\n", "must hold a mapping")],
)
def test_files_that_are_no_configs(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        config.load(Recipe, path)


def test_missing_file_points_at_configs(tmp_path):
    with pytest.raises(UsageError, match="There is no config file"):
        config.load(Recipe, tmp_path / "absent.yaml")


def test_saved_config_loads_as_itself(tmp_path):
    recipe = Recipe(family="ä", train=Train(max_steps=3))
    config.save(recipe, tmp_path / "config.yaml")
    assert config.load(Recipe, tmp_path / "config.yaml") == recipe
