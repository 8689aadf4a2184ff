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
    "in_evaluation",
    "duplicate",
    "boilerplate",
    "near_duplicate",
    "unsafe_chosen",
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


class Dedup(StrictModel):
    """When two pairs are nearly the same (`critique_revision.dedup`)."""

    threshold: float = Field(default=0.8, gt=0.0, le=1.0)
    """``near_duplicate``, ``in_evaluation``: Jaccard similarity of two texts' shingles from which they are copies."""
    shingle: int = Field(default=5, ge=1)
    """Characters in a shingle, of the normalised text."""
    permutations: int = Field(default=128, ge=16)
    """Length of a MinHash signature. It finds candidates; the exact similarity decides."""
    seed: int = Field(default=1, ge=0)
    """Of the permutations."""


class ClassifierFilter(StrictModel):
    """What the safety classifier rejects (`critique_revision.safety`)."""

    enabled: bool = False
    """Whether it is asked."""
    artifact: Path | None = None
    """The classifier's folder; null: the one that ships."""
    head: str = "harmful_response"
    """The probability that the two sides are compared by: a response head or a harm category."""
    margin: float = Field(default=0.0, ge=0.0, le=1.0)
    """``unsafe_chosen``: by more than this, chosen is the more harmful side."""
    thresholds: dict[str, float] | None = None
    """``unsafe_chosen``: probability of a category or response head from which chosen is rejected in any case; null:
    the artifact's own thresholds of ``head`` and of every category; {}: none."""


class PreferenceCheck(StrictModel):
    """A look at the finished pairs by an evaluator that selected none of them (`critique_revision.safety`)."""

    enabled: bool = False
    """Whether the safety classifier's preference heads compare the two sides of every pair."""
    artifact: Path | None = None
    """The classifier's folder; null: the one that ships."""
    heads: dict[str, str] = Field(default_factory=lambda: {"red_team": "harmlessness", "benign": "helpfulness"})
    """Tag → the head that compares; pairs of other tags are counted as not scored."""


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
    """``boilerplate``, ``near_duplicate``: so many equal, or nearly equal, chosen texts of different prompts are
    kept."""
    dedup: Dedup = Dedup()
    """``near_duplicate``: what counts as nearly the same."""
    evaluation_prompts: tuple[Path, ...] = (Path("evaluation/prompts"),)
    """``in_evaluation``: prompt files, or folders of them, that neither a prompt nor its chosen answer may share text
    with; ``exclude_prompts`` of the run are added."""
    classifier: ClassifierFilter = ClassifierFilter()
    """``unsafe_chosen``: what the safety classifier says of the two sides."""
    preference_check: PreferenceCheck = PreferenceCheck()
    """Whether an evaluator that selected none of them prefers the chosen sides; rejects nothing."""
    holdout_fraction: float = Field(default=0.02, ge=0.0, lt=1.0)
    """Share of prompts, by the hash of the first user turn, that are marked ``holdout``: the line that
    ``data.holdout_fraction`` of finetune draws."""
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
