"""The recipes: each turns prompts and a constitution into candidate pairs, by calls on record.

| recipe | chosen | rejected |
|---|---|---|
| `critique-revision` | the last accepted revision | the first answer |
| `teacher` | a teacher's answer | the student's own |
| `ai-feedback` | the answer that a labeller prefers by a principle | the other one |
| `best-of-n` | the answer with the highest score | the one with the lowest |
| `benign-twins` | a direct answer to a harmless request that sounds alarming | a refusal of it |
"""

from __future__ import annotations

from critique_revision.config import RecipeConfig, RecipeName
from critique_revision.recipes.base import Recipe
from critique_revision.recipes.best_of_n import BestOfN
from critique_revision.recipes.critique import CritiqueRevision
from critique_revision.recipes.feedback import AIFeedback
from critique_revision.recipes.teacher import Teacher
from critique_revision.recipes.twins import BenignTwins

RECIPES: dict[RecipeName, Recipe] = {
    "critique-revision": CritiqueRevision(),
    "teacher": Teacher(),
    "ai-feedback": AIFeedback(),
    "best-of-n": BestOfN(),
    "benign-twins": BenignTwins(),
}


def recipe_of(config: RecipeConfig) -> Recipe:
    """The recipe that a config names."""
    return RECIPES[config.recipe]


def stage_names(config: RecipeConfig) -> list[str]:
    """The files that the calls of a run are appended to, in the order in which they are made."""
    return recipe_of(config).files(config)
