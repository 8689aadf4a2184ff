"""The config of a critique-revision run: configs/critique_revision/*.yaml."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from inference.corpora import Source
from inference.recorded import Recorded
from inference.records import Sampling
from inference.remote.server import Server
from runs.config import StrictModel
from runs.paths import PROJECT_ROOT

RecipeName = Literal["critique-revision", "teacher", "ai-feedback", "best-of-n", "benign-twins"]
PromptKind = Literal["transcript_first_turn", "transcript_context", "text", "messages", "constitution_pair"]
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
    "broken_rejected",
    "not_refused",
    "tie",
    "unlabelled",
    "unscored",
    "in_evaluation",
    "duplicate",
    "boilerplate",
    "near_duplicate",
    "unsafe_chosen",
]


class HarmRange(StrictModel):
    """Which prompts of a source are used, by the safety classifier: its largest probability over ``heads``."""

    least: float = Field(default=0.0, ge=0.0, le=1.0)
    """0.7 keeps what clearly asks for harm."""
    most: float = Field(default=1.0, ge=0.0, le=1.0)
    """0.05 keeps what is clearly harmless."""
    heads: tuple[str, ...] = Field(default=("hate_speech", "self_harm", "dangerous_advice"), min_length=1)
    """Categories of the classifier. Rude words alone (toxicity) make no request that is to be declined."""

    @model_validator(mode="after")
    def _not_empty(self) -> HarmRange:
        if self.least > self.most:
            raise ValueError("harm.least is larger than harm.most")
        return self


class PromptSource(StrictModel):
    """A table of rows that prompts are taken from."""

    source: Source
    """Where the rows are: a hub dataset, a local file, or both."""
    kind: PromptKind
    """``text``: the field is the user's message. ``transcript_first_turn``: the first message of a transcript.
    ``transcript_context``: the transcript without its last answer. ``messages``: turns that end with the user's, or a
    string. ``constitution_pair``: the human turns of the files that `inference.recorded` describes."""
    field: str
    """The column that is read; ``value`` for an entry of a JSON object, as ``constitution_pair`` needs it."""
    tag: str
    """What the prompts are: ``red_team`` and ``benign`` have filters of their own."""
    categories: tuple[str, ...] = ()
    """Draw principles for these prompts from these categories of the constitution only; empty: from all of it.
    Bai et al. 2022 revise answers to red-team prompts by principles of harmlessness alone (appendix C.1)."""
    max_rows: int | None = Field(default=None, ge=1)
    """At most so many prompts, chosen by the hash of seed and prompt."""
    max_prompt_chars: int = Field(default=2000, ge=1)
    """Longer prompts are left out and counted."""
    harm: HarmRange | None = None
    """Use only prompts that the safety classifier rates so; null: all, and it is not loaded."""


SELF = "self"
"""The engine of this process, on the family's own checkpoints."""


class Role(StrictModel):
    """One of the parts that a model plays."""

    engine: str = SELF
    """``self``: one of the family's checkpoints, in this process. Else a name under ``servers`` or ``recorded``."""
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
    teacher: Role = Role()
    """Writes the answers that the student's are rejected for: a stronger model, the same one under the constitution,
    or answers on file."""
    refuser: Role = Role()
    """Refuses harmless requests, so that refusing them can be rejected."""


class TeacherSettings(StrictModel):
    """``recipe: teacher``: what the teacher is told."""

    principles: int = Field(default=3, ge=0)
    """So many principles of the constitution, drawn by row, go into its system text, before the exemplars. 0: it sees
    the prompt alone; answers on file were written so, and need it."""


class FeedbackSettings(StrictModel):
    """``recipe: ai-feedback``, and ``critique-revision label``: how two answers are compared."""

    answers: int = Field(default=2, ge=2)
    """Answers that the generator samples for each prompt."""
    pairing: Literal["best-worst", "drawn"] = "best-worst"
    """Of more than two answers: every two are compared, and the one with the highest mean preference is paired with the
    one with the lowest; or two answers are drawn by row, and only these are compared."""
    principles: int = Field(default=1, ge=1)
    """Principles for each prompt, drawn by row; the probabilities under each are averaged."""
    chain_of_thought: bool = False
    """Whether the labeller writes reasons before it is asked for the letter."""
    clamp: float = Field(default=0.6, ge=0.5, le=1.0)
    """With ``chain_of_thought``: probabilities are kept between 1 − this and this (Bai et al. 2022, section 4.1: 40 to
    60 %). Both ends are one number, so that swapping two answers still gives 1 − p."""


class ScoringSettings(StrictModel):
    """``recipe: best-of-n``: how many answers, and who scores them."""

    answers: int = Field(default=4, ge=2)
    """Answers that the generator samples for each prompt."""
    scorer: str = "evaluation"
    """A name of the entry-point group ``constitutional_ai.scorers``."""
    names: tuple[str, ...] = ("harm_prevention", "helpfulness")
    """What the scorer is made from: ``evaluation`` takes names of evaluators, and gives their mean."""


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
    margin: float = Field(default=0.1, ge=0.0, le=1.0)
    """``unsafe_chosen``: by more than this, chosen is the more harmful side. Between two harmless texts the
    probabilities differ by less, and either way."""
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
    min_margin: float = Field(default=0.0, ge=0.0, lt=1.0)
    """``tie``: the scores of the two sides differ by no more than this."""
    check_rejected: tuple[Reason, ...] = ()
    """Reasons that the rejected side is checked for as well; a text that fails is ``broken_rejected``: to prefer
    anything to it teaches nothing."""
    trim_cut: bool = True
    """End a text that was cut at the token limit with its last whole sentence, on both sides of the pair, so that it
    does not teach where the limit was. What holds no whole sentence stays ``truncated``."""


ACTING: dict[RecipeName, tuple[str, ...]] = {
    "critique-revision": ("generator", "critic", "reviser"),
    "teacher": ("generator", "teacher"),
    "ai-feedback": ("generator", "labeller"),
    "best-of-n": ("generator",),
    "benign-twins": ("generator", "refuser"),
}
"""The roles that each recipe calls; ``critic`` only with ``critiques``."""
ON_FILE = ("generator", "teacher")
"""Roles that answer a prompt as it stands, which answers on file can do."""


class RecipeConfig(StrictModel):
    """Everything that a run of one of the recipes depends on."""

    schema_version: Literal[1] = 1
    recipe: RecipeName = "critique-revision"
    """How pairs are made (`critique_revision.recipes`)."""
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
    """How much of a reply critic, reviser and labeller are shown, in words; whole sentences where that is possible."""
    revisions: int = Field(default=1, ge=1)
    """K: critiques and revisions per prompt, each by another principle."""
    teacher: TeacherSettings = TeacherSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    scoring: ScoringSettings = ScoringSettings()
    roles: Roles = Roles()
    servers: dict[str, Server] = Field(default_factory=dict)
    """Models behind OpenAI-compatible servers, by the names that ``roles.*.engine`` uses."""
    recorded: dict[str, Recorded] = Field(default_factory=dict)
    """Answers of models on file, by the names that ``roles.*.engine`` uses."""
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    exclude_prompts: tuple[Path, ...] = ()
    """Prompt files whose prompts must not be trained on."""
    limit: int | None = Field(default=None, ge=1)
    """Use only so many prompts of all sources together (``--limit``)."""
    filters: FilterSettings = FilterSettings()

    @property
    def acting(self) -> dict[str, Role]:
        """The roles that make calls in this run, by name."""
        names = ACTING[self.recipe]
        return {name: getattr(self.roles, name) for name in names if name != "critic" or self.critiques}

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints that the run needs in this process, each once."""
        return list(dict.fromkeys(role.player for role in self.acting.values() if role.engine == SELF))

    @property
    def players(self) -> list[str]:
        """Everyone who makes calls in the run, checkpoints and servers, each once."""
        return list(dict.fromkeys(role.player for role in self.acting.values()))

    def model_of(self, role: Role, own: str) -> str:
        """The model that plays ``role``, as a card names it; ``own`` names the family's base."""
        if role.engine == SELF:
            return f"{own}, checkpoint {role.checkpoint}"
        if role.engine in self.recorded:
            return f"{self.recorded[role.engine].model}, answers on file"
        server = self.servers[role.engine]
        return f"{server.model}, served by {server.identity['served_by']}"

    def licence_of(self, player: str) -> str:
        """The licence of the texts of a server's or a recorded model, and the model."""
        model = self.recorded[player] if player in self.recorded else self.servers[player]
        return f"{model.licence} ({model.model})"

    @model_validator(mode="after")
    def _players_are_there(self) -> RecipeConfig:
        known = (SELF, *self.servers, *self.recorded)
        for section in ("servers", "recorded"):
            for name in getattr(self, section):
                if name == SELF or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
                    raise ValueError(f"{section}.{name}: a name is made of a-z, 0-9, - and _, and is not '{SELF}'")
        for name in self.servers.keys() & self.recorded.keys():
            raise ValueError(f"recorded.{name}: a server has that name")
        for part, role in self.roles:
            if role.engine not in known:
                near = difflib.get_close_matches(role.engine, known, n=1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
                raise ValueError(f"roles.{part}.engine: there is no server '{role.engine}'; {hint}")
            if role.engine in self.recorded and part not in ON_FILE:
                raise ValueError(f"roles.{part}.engine: answers on file play {' or '.join(ON_FILE)} only")
        return self

    @model_validator(mode="after")
    def _recipe_can_run(self) -> RecipeConfig:
        if self.recipe == "teacher" and self.roles.teacher.engine in self.recorded and self.teacher.principles:
            raise ValueError("teacher.principles must be 0 with answers on file: they cannot be told anything any more")
        labeller = self.servers.get(self.roles.labeller.engine)
        if self.recipe == "ai-feedback" and labeller is not None and labeller.dialect == "transformers":
            raise ValueError("roles.labeller.engine: servers of dialect transformers give no log-probabilities")
        several = {"ai-feedback": "feedback.answers", "best-of-n": "scoring.answers"}
        if self.recipe in several:
            generator = self.roles.generator
            if generator.engine in self.recorded:
                raise ValueError("roles.generator.engine: answers on file give one answer to a prompt, not several")
            if generator.temperature == 0:
                answers = several[self.recipe]
                raise ValueError(f"roles.generator.temperature must be above 0: greedy, all {answers} are one")
        return self

    @model_validator(mode="after")
    def _sizes_agree(self) -> RecipeConfig:
        if self.filters.min_words > self.filters.max_words:
            raise ValueError("filters.min_words is larger than filters.max_words")
        return self


def locate(path: Path) -> Path:
    """A path of a config: as it stands if it is there, else relative to the project's root."""
    return path if path.is_absolute() or path.exists() else PROJECT_ROOT / path
