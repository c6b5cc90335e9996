"""What a check before the first step has found."""

import dataclasses

from janus_jax.checkpoint.inspect import CheckpointsDamaged
from janus_jax.config.schema import ConfigError
from janus_jax.data.sources import SourceError


@dataclasses.dataclass
class Report:
    """What is wrong, by the exit code that it means, and what is only to be told.

    Args:
        lines: (subject, what it is).
        warnings: what a run can live with.
        config: what is wrong with the config, or with what it names.
        data: what is wrong with the data.
        damaged: stages of which no checkpoint is sound.
    """

    lines: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    config: list[str] = dataclasses.field(default_factory=list)
    data: list[str] = dataclasses.field(default_factory=list)
    damaged: list[str] = dataclasses.field(default_factory=list)

    def tell(self, subject: str, text: str):
        self.lines.append((subject, text))

    def add(self, other: "Report"):
        for field in dataclasses.fields(self):
            getattr(self, field.name).extend(getattr(other, field.name))

    def require(self):
        """Raises ConfigError, CheckpointsDamaged where no checkpoint is sound, or SourceError where
        only the data is at fault; with all that is wrong."""
        if self.config:
            raise ConfigError.of(self.config + self.damaged + self.data)
        if self.damaged:
            raise CheckpointsDamaged("\n".join(self.damaged + self.data))
        if self.data:
            raise SourceError("\n".join(self.data))
