"""Recipes by name."""

from training.recipes.baselines import BASELINES
from training.recipes.classic import CLASSIC
from training.recipes.demo import DEMO
from training.recipes.recipe import Recipe
from training.recipes.reference import REFERENCE

__all__ = ["RECIPES", "Recipe"]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (BASELINES, CLASSIC, DEMO, REFERENCE)}
