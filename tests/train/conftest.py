"""The tiny pictures and recipe are fixtures of every test here."""

from tests.train.tiny import base_recipe, picture_folder, tiny_recipe

__all__ = ["base_recipe", "picture_folder", "tiny_recipe"]
