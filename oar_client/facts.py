"""Facts that both kinds of job have without asking the server."""

from oar_wire.job import GenerationParams, GenerationStatus


class JobView:
    status: GenerationStatus

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.status.status!r})"

    @property
    def id(self) -> str:
        return self.status.id

    @property
    def seed(self) -> int:
        return self.status.seed

    @property
    def params(self) -> GenerationParams:
        """The request with every default filled in."""
        return self.status.params

    @property
    def warnings(self) -> tuple[str, ...]:
        """Parts of the request that the model will not do, such as a word that it has never seen."""
        return self.status.warnings
