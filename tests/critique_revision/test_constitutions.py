from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from critique_revision.constitution import (
    CharacterConstitution,
    PrinciplesConstitution,
    constitution_digest,
    load_constitution,
    load_principles,
)
from runs.errors import UsageError
from runs.paths import CONFIGS

PRINCIPLE = {"id": "p1", "text": "Be kind.", "critique_request": "Was it kind?", "revision_request": "Make it kind."}


def write(path: Path, **values: object) -> Path:
    path.write_text(yaml.safe_dump({"name": "mine", **values}))
    return path


@pytest.mark.parametrize("path", sorted((CONFIGS / "constitutions").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_constitution_loads(path: Path) -> None:
    assert load_constitution(path).name


def test_principles(tmp_path: Path) -> None:
    found = load_principles(write(tmp_path / "c.yaml", principles=[PRINCIPLE]))
    assert found.principles[0].id == "p1"
    assert found.principles[0].category == "uncategorised"


def test_duplicate_id_names_file_and_principle(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", principles=[PRINCIPLE, {**PRINCIPLE, "text": "Other."}])
    with pytest.raises(UsageError, match=r"c\.yaml.*'p1' appears more than once"):
        load_constitution(path)


@pytest.mark.parametrize("field", ["text", "critique_request", "revision_request"])
@pytest.mark.parametrize("value", ["", "  ", None])
def test_empty_text_names_file_and_principle(tmp_path: Path, field: str, value: str | None) -> None:
    path = write(tmp_path / "c.yaml", principles=[{**PRINCIPLE, field: value}])
    with pytest.raises(UsageError, match=rf"c\.yaml: principle 'p1' has no {field}"):
        load_constitution(path)


def test_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", principles=[{**PRINCIPLE, "critique_requests": "x"}])
    with pytest.raises(UsageError, match="did you mean 'critique_request'"):
        load_constitution(path)


def test_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'principles'"):
        load_constitution(write(tmp_path / "c.yaml", kind="principle", principles=[PRINCIPLE]))


def test_no_principles(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="principles"):
        load_constitution(write(tmp_path / "c.yaml", principles=[]))


def test_character_parses_and_is_refused_for_revisions(tmp_path: Path) -> None:
    trait = {"id": "t1", "text": "I am curious.", "seed_questions": ["What is new?"]}
    path = write(tmp_path / "c.yaml", kind="character", traits=[trait])
    found = load_constitution(path)
    assert isinstance(found, CharacterConstitution)
    assert found.traits[0].seed_questions == ("What is new?",)
    with pytest.raises(UsageError, match="character training"):
        load_principles(path)


def test_anthropic_format(tmp_path: Path) -> None:
    path = tmp_path / "CritiqueRevisionInstructions.json"
    entry = {"prompt": ["Identify how the last response is harmful."], "edit_request": "Remove the harmful content."}
    path.write_text(json.dumps({"harmful0": entry, "harmful1": entry}))
    found = load_principles(path)
    assert [row.id for row in found.principles] == ["harmful0", "harmful1"]
    assert found.principles[0].critique_request == entry["prompt"][0]
    assert found.principles[0].revision_request == entry["edit_request"]


def test_llm_swarm_format(tmp_path: Path) -> None:
    path = tmp_path / "grok.json"
    path.write_text(json.dumps({"constitutions": [{"critic": "Discuss.", "revision": "Revise."}], "system_chat": [[]]}))
    found = load_principles(path)
    assert found.principles[0].model_dump() == {
        "id": "grok-01",
        "text": "Discuss.",
        "category": "uncategorised",
        "critique_request": "Discuss.",
        "revision_request": "Revise.",
    }


def test_open_character_training_format(tmp_path: Path) -> None:
    path = tmp_path / "humor.txt"
    path.write_text(json.dumps([{"trait": "I joke.", "questions": ["Why?"]}]))
    found = load_constitution(path)
    assert isinstance(found, CharacterConstitution)
    assert found.traits[0].seed_questions == ("Why?",)


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": 1}', '{"constitutions": [{"critic": "x"}]}', "{broken", '"text"'])
def test_unknown_json_is_a_user_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"x\.json"):
        load_constitution(path)


def test_missing_file(tmp_path: Path) -> None:
    for name in ("no.yaml", "no.json"):
        with pytest.raises(UsageError, match="There is no"):
            load_constitution(tmp_path / name)


def test_digest_follows_what_models_see(tmp_path: Path) -> None:
    def build(**changes: str) -> PrinciplesConstitution:
        return load_principles(write(tmp_path / "c.yaml", principles=[{**PRINCIPLE, **changes}], licence="MIT"))

    first = build()
    assert constitution_digest(first) == constitution_digest(first.model_copy(update={"description": "for people"}))
    assert constitution_digest(first) != constitution_digest(build(revision_request="Make it kinder."))
