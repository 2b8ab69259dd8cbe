"""Class labels as conditions: a prompt names a class, or its number."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

from oar_core.errors import WeightsError, request_error
from oar_wire.classes import KIND, ClassNames
from oar_wire.options import BadOption

CLASSES = "classes.json"  # in a model's folder
IMAGENET = "imagenet_classes.txt"  # beside this file; its licence lies there too
NUM_IMAGENET = 1000


def class_names(count: int) -> tuple[str, ...]:
    """The names of ImageNet's classes where there are as many; else numbers, which are names too."""
    if count != NUM_IMAGENET:
        return tuple(f"class {number}" for number in range(count))
    return tuple((files("oar_core.models") / IMAGENET).read_text(encoding="utf-8").splitlines())


class ClassConditioner:
    """A `Conditioner` of one id: the number of the class. The unconditional id is a number of its own."""

    kind: Literal["class"] = KIND

    def __init__(self, classes: ClassNames) -> None:
        self.classes = classes
        self.num_special_tokens = 0
        self.unconditional_ids = (classes.unconditional_id,)

    @classmethod
    def of(cls, names: Sequence[str], unconditional_id: int) -> Self:
        return cls(ClassNames(names, unconditional_id))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises WeightsError where the folder holds no class names."""
        path = folder / CLASSES
        classes = ClassNames.from_json(path.read_text(encoding="utf-8-sig")) if path.exists() else None
        if classes is None:
            raise WeightsError(f"{path} is missing, or holds no class names")
        return cls(classes)

    def save(self, folder: Path) -> None:
        (folder / CLASSES).write_text(self.to_json() + "\n", encoding="utf-8")

    def to_json(self) -> str:
        return self.classes.to_json()

    def encode(self, prompt: str, *, max_length: int) -> tuple[int, ...]:
        """The class that the prompt names, or the nearest. Raises PromptError where there is none."""
        assert max_length >= 1, "a condition has at least one token"
        try:
            return (self.classes.choose(prompt).index,)
        except BadOption as error:
            raise request_error(error) from error

    def encode_captions(
        self,
        captions: list[str],
        *,
        max_length: int,  # noqa: ARG002
    ) -> list[tuple[int, ...]]:
        """An empty caption gives the unconditional id. Raises PromptError for one that names no class: what is
        trained on is not guessed."""
        try:
            return [(self.classes.find(caption),) if caption else self.unconditional_ids for caption in captions]
        except BadOption as error:
            raise request_error(error) from error
