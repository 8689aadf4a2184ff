"""The config of a critique-revision run: configs/critique_revision/*.yaml."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from inference.corpora import Source
from inference.records import Sampling
from inference.remote.server import Server
from runs.config import StrictModel
from runs.paths import PROJECT_ROOT

PromptKind = Literal["transcript_first_turn", "transcript_context", "text"]
Reason = Literal[
    "empty",
    "no_answer",
    "role_markers",
    "preamble",
    "commentary",
    "truncated",
    "over_long",
    "repetition",
    "few_shot_leak",
    "echo",
    "identical",
    "near_identical",
    "refusal_of_benign",
    "off_topic",
    "no_decline",
    "boilerplate",
]


class PromptSource(StrictModel):
    """A table of rows that prompts are taken from."""

    source: Source
    """Where the rows are: a hub dataset, a local file, or both."""
    kind: PromptKind
    """``text``: the field is the user's message. ``transcript_first_turn``: the first message of a transcript.
    ``transcript_context``: the transcript without its last answer."""
    field: str
    """The column that is read."""
    tag: str
    """What the prompts are: ``red_team`` and ``benign`` have filters of their own."""
    categories: tuple[str, ...] = ()
    """Draw principles for these prompts from these categories of the constitution only; empty: from all of it.
    Bai et al. 2022 revise answers to red-team prompts by principles of harmlessness alone (appendix C.1)."""
    max_rows: int | None = Field(default=None, ge=1)
    """At most so many prompts, chosen by the hash of seed and prompt."""
    max_prompt_chars: int = Field(default=2000, ge=1)
    """Longer prompts are left out and counted."""


SELF = "self"
"""The engine of this process, on the family's own checkpoints."""


class Role(StrictModel):
    """One of the parts that a model plays."""

    engine: str = SELF
    """``self``: one of the family's checkpoints, in this process. Else a name under ``servers``."""
    checkpoint: str = "base"
    """With ``engine: self``: the name of one of the family's checkpoints."""
    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, gt=0.0)

    def sampling(self, seed: int) -> Sampling:
        """The decoding settings with the run's seed; each row derives its own."""
        return Sampling(seed=seed, **self.model_dump(exclude={"engine", "checkpoint"}))

    @property
    def player(self) -> str:
        """The name of who plays it: a checkpoint, or a server. Records and engines go by it."""
        return self.checkpoint if self.engine == SELF else self.engine

    @model_validator(mode="after")
    def _one_model(self) -> Role:
        if self.engine != SELF and self.checkpoint != "base":
            raise ValueError("'checkpoint' is for 'engine: self'; a server's section names its own model")
        return self


class Roles(StrictModel):
    """Who answers, criticises, revises, labels and judges: one model (Bai et al. 2022) or several."""

    generator: Role = Role()
    """Writes the first answers: the model that is to be trained."""
    critic: Role = Role()
    """Names what is wrong with an answer."""
    reviser: Role = Role()
    """Writes the answer again."""
    labeller: Role = Role()
    """Says which of two answers follows a principle better; read by its log-probabilities."""
    judge: Role = Role()
    """Compares finished pairs; selects nothing that it judges."""


class Exemplars(StrictModel):
    """The worked examples before each critique and revision."""

    file: Path = Path("configs/critique_revision/exemplars.yaml")
    count: int = Field(default=4, ge=0)
    """How many of them, from the top of the file."""


class FilterSettings(StrictModel):
    """Thresholds of the rejection reasons (`critique_revision.filters`)."""

    skip: tuple[Reason, ...] = ()
    """Reasons that are not checked."""
    min_words: int = Field(default=5, ge=1)
    """``empty``: fewer words than this."""
    max_words: int = Field(default=400, ge=1)
    """``over_long``: more words than this."""
    near_identical: float = Field(default=0.9, gt=0.0, le=1.0)
    """``near_identical``: share of words in common with the answer."""
    echo: float = Field(default=0.8, gt=0.0, le=1.0)
    """``echo`` and ``commentary``: share of words in common with the prompt, the critique or the request."""
    max_repeats: int = Field(default=4, ge=2)
    """``repetition``: this many copies of one 4-gram."""
    min_distinct: float = Field(default=0.6, ge=0.0, le=1.0)
    """``repetition``: smallest share of distinct 4-grams."""
    leak_words: int = Field(default=7, ge=3)
    """``few_shot_leak``: longest run of words that may also stand in an exemplar, plus one."""
    max_same_chosen: int = Field(default=3, ge=1)
    """``boilerplate``: so many equal revisions are kept."""
    require_decline: bool = False
    """``no_decline``: whether revisions of ``red_team`` prompts must open as refusals."""
    turn_refusals: bool = False
    """Pair a ``refusal_of_benign`` the other way round: the first answer, if it passes the filters itself, is chosen
    and the refusal rejected. What teaches to decline is then balanced by what teaches not to."""
    trim_cut: bool = True
    """End a text that was cut at the token limit with its last whole sentence, on both sides of the pair, so that it
    does not teach where the limit was. What holds no whole sentence stays ``truncated``."""


class RecipeConfig(StrictModel):
    """Everything that a run of critique and revision depends on."""

    schema_version: Literal[1] = 1
    name: str
    family: str
    seed: int = 0
    device: str = "auto"
    batch_size: int = Field(default=16, ge=1)
    output_dir: Path
    constitution: Path = Path("configs/constitutions/default.yaml")
    exemplars: Exemplars = Exemplars()
    critiques: bool = True
    """Whether a critique comes before each revision. False revises directly, by the principle alone, as Bai et al.
    2022, section 3.5, compare; with half the calls. A critic that is too weak to be right makes revisions worse."""
    reply_words: int | None = Field(default=None, ge=5)
    """How much of a reply the critic and the reviser are shown, in words; whole sentences where that is possible."""
    revisions: int = Field(default=1, ge=1)
    """K: critiques and revisions per prompt, each by another principle."""
    roles: Roles = Roles()
    servers: dict[str, Server] = Field(default_factory=dict)
    """Models behind OpenAI-compatible servers, by the names that ``roles.*.engine`` uses."""
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    exclude_prompts: tuple[Path, ...] = ()
    """Prompt files whose prompts must not be trained on."""
    limit: int | None = Field(default=None, ge=1)
    """Use only so many prompts of all sources together (``--limit``)."""
    filters: FilterSettings = FilterSettings()

    @property
    def acting(self) -> dict[str, Role]:
        """The roles that make calls in this run, by name."""
        named = {"generator": self.roles.generator, "critic": self.roles.critic, "reviser": self.roles.reviser}
        return {name: role for name, role in named.items() if name != "critic" or self.critiques}

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints that the run needs in this process, each once."""
        return list(dict.fromkeys(role.player for role in self.acting.values() if role.engine == SELF))

    @property
    def players(self) -> list[str]:
        """Everyone who makes calls in the run, checkpoints and servers, each once."""
        return list(dict.fromkeys(role.player for role in self.acting.values()))

    @model_validator(mode="after")
    def _servers_are_there(self) -> RecipeConfig:
        for name in self.servers:
            if name == SELF or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
                raise ValueError(f"servers.{name}: a name is made of a-z, 0-9, - and _, and is not '{SELF}'")
        for part, role in self.roles:
            if role.engine not in (SELF, *self.servers):
                near = difflib.get_close_matches(role.engine, (SELF, *self.servers), n=1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join((SELF, *self.servers))}"
                raise ValueError(f"roles.{part}.engine: there is no server '{role.engine}'; {hint}")
        return self

    @model_validator(mode="after")
    def _sizes_agree(self) -> RecipeConfig:
        if self.filters.min_words > self.filters.max_words:
            raise ValueError("filters.min_words is larger than filters.max_words")
        return self


def locate(path: Path) -> Path:
    """A path of a config: as it stands if it is there, else relative to the project's root."""
    return path if path.is_absolute() or path.exists() else PROJECT_ROOT / path
