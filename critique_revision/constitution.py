"""Constitutions: the short lists of principles that all oversight comes from (Bai et al. 2022, section 1).

Two kinds share one file format. ``principles`` holds what a critic asks and what a reviser is told;
``character`` holds first-person traits with seed questions. Two published formats are read as well:
Anthropic's ``CritiqueRevisionInstructions.json`` and llm-swarm's constitution files; and
OpenCharacterTraining's list of traits.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from runs.config import StrictModel, parse, read_yaml
from runs.errors import UsageError, unknown_name
from runs.identity import digest
from runs.paths import shown


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text.strip()


Text = Annotated[str, AfterValidator(_not_blank)]
"""Text with something in it, without blanks at its ends."""


class Principle(StrictModel):
    """One idea, and the two instructions that apply it to a reply (Bai et al. 2022, section 3.1 and appendix C.1)."""

    id: Text
    """Unique and stable: data and reports refer to it."""
    text: Text
    category: Text = "uncategorised"
    critique_request: Text
    revision_request: Text


class Trait(StrictModel):
    """A first-person statement of character, and questions that bring it out (arXiv 2511.01689, section 2)."""

    id: Text
    text: Text
    seed_questions: tuple[Text, ...] = ()


class _Named(StrictModel):
    schema_version: Literal[1] = 1
    name: Text
    licence: str = "unknown"
    description: str = ""


class PrinciplesConstitution(_Named):
    """Principles for critiques, revisions, AI labels and judges."""

    kind: Literal["principles"] = "principles"
    principles: tuple[Principle, ...] = Field(min_length=1)


class CharacterConstitution(_Named):
    """Traits for character training; critiques and revisions cannot be asked from them."""

    kind: Literal["character"] = "character"
    traits: tuple[Trait, ...] = Field(min_length=1)


Constitution = PrinciplesConstitution | CharacterConstitution


def load_constitution(path: Path) -> Constitution:
    """Read a constitution in any of the formats named above.

    Raises:
        UsageError: the file is missing or invalid; the file and the principle are named.
    """
    values = _read(path)
    if values.get("kind", "principles") not in {"principles", "character"}:
        raise unknown_name(f"kind of constitution in {shown(path)}", str(values["kind"]), ["principles", "character"])
    if values.get("kind") == "character":
        character = parse(CharacterConstitution, values, source=shown(path))
        _refuse_duplicates(path, "trait", [trait.id for trait in character.traits])
        return character
    _name_faulty_principles(path, values.get("principles"))
    constitution = parse(PrinciplesConstitution, values, source=shown(path))
    _refuse_duplicates(path, "principle", [principle.id for principle in constitution.principles])
    return constitution


def load_principles(path: Path) -> PrinciplesConstitution:
    """Read a constitution that critiques and revisions can be asked from.

    Raises:
        UsageError: as `load_constitution`, and when the file describes a character.
    """
    constitution = load_constitution(path)
    if isinstance(constitution, CharacterConstitution):
        raise UsageError(
            f"{shown(path)} is a constitution of kind 'character'.",
            why="It lists first-person traits for character training, and no critique and revision requests.",
            mend="Name a file of kind 'principles', such as configs/constitutions/default.yaml.",
        )
    return constitution


def constitution_digest(constitution: Constitution) -> str:
    """sha256 of what the models can see of a constitution: not its name, licence or description."""
    return digest(constitution.model_dump(mode="json", exclude={"name", "licence", "description"}))


def _read(path: Path) -> dict[str, Any]:
    """The file's values in this project's own format."""
    if path.suffix not in {".json", ".txt"}:
        return read_yaml(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"There is no constitution {path}.", mend="See configs/constitutions/.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(path)} is not valid JSON.", why=str(error)) from error
    try:
        return _imported(found, path.stem)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{shown(path)} is not in a known constitution format.",
            why=f"While reading it as one: {type(error).__name__}: {error}.",
            mend="Known: this project's own format, Anthropic's CritiqueRevisionInstructions.json, and those of "
            "llm-swarm and OpenCharacterTraining.",
        ) from error


def _imported(found: dict[str, Any] | list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Bring a published format into our own. Raises `KeyError`, `TypeError` or `AttributeError` when it is none."""
    if isinstance(found, list):  # OpenCharacterTraining: [{"trait": …, "questions": [...]}, …]
        traits = [
            {"id": f"trait-{number:02d}", "text": entry["trait"], "seed_questions": entry.get("questions", [])}
            for number, entry in enumerate(found, start=1)
        ]
        return {"kind": "character", "name": name, "traits": traits}
    if "kind" in found:
        return dict(found)
    if "constitutions" in found:  # llm-swarm: {"constitutions": [{"critic": …, "revision": …}, …], "system_chat": …}
        principles = [
            _principle(f"{name}-{number:02d}", entry["critic"], entry["revision"])
            for number, entry in enumerate(found["constitutions"], start=1)
        ]
        return {"kind": "principles", "name": name, "principles": principles}
    # Anthropic: {"harmful0": {"prompt": [critique request, …], "edit_request": …}, …}
    principles = [
        _principle(key, _joined(entry["prompt"]), _joined(entry["edit_request"])) for key, entry in found.items()
    ]
    return {"kind": "principles", "name": name, "principles": principles}


def _joined(parts: str | list[str]) -> str:
    return parts if isinstance(parts, str) else " ".join(part.strip() for part in parts)


def _principle(identity: str, critique: str, revision: str) -> dict[str, str]:
    """A principle from a pair of requests, which is all that the published formats hold."""
    critique = critique.strip().removeprefix("Critique Request:").removesuffix("Critique:").strip()
    revision = revision.strip().removeprefix("Revision Request:").removesuffix("Revision:").strip()
    return {
        "id": identity,
        "text": critique,
        "category": "harm_prevention" if identity.startswith("harmful") else "uncategorised",
        "critique_request": critique,
        "revision_request": revision,
    }


def _name_faulty_principles(path: Path, principles: object) -> None:
    """Report empty texts by the principle's id: the index that pydantic gives is of little use in a long file."""
    if not isinstance(principles, list):
        return
    for number, principle in enumerate(principles, start=1):
        if not isinstance(principle, dict):
            continue
        label = str(principle.get("id") or f"number {number}")
        for field in ("id", "text", "critique_request", "revision_request"):
            if not str(principle.get(field) or "").strip():
                raise UsageError(f"{shown(path)}: principle '{label}' has no {field}.", mend="Write one, or remove it.")


def _refuse_duplicates(path: Path, what: str, identities: list[str]) -> None:
    twice = [identity for identity, count in Counter(identities).items() if count > 1]
    if twice:
        raise UsageError(
            f"{shown(path)}: {what} '{twice[0]}' appears more than once.",
            why="Ids name principles in data and reports, so each must be unique.",
            mend="Rename one of them.",
        )
