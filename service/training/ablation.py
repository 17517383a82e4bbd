"""The paper's ablations with one budget: Table 2's five ways from a map to a decision, Figure 3's one to four stages.

The network that both share (instances, maximum, three stages) is trained once: eight runs, the same but for the
architecture, each in a folder of its own. What is measured is what `validate` measures, on the held-out cases, of the
epoch that each run keeps.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from service.errors import DataInvalid, ParameterInvalid
from service.files import make_folder
from service.model_card import Architecture, read_card
from service.training.cross_validation import refuse_left_behind
from service.training.patches import LoadedField
from service.training.train import TrainingSetup, train
from service.training.validation import Validation


@dataclass(frozen=True, slots=True)
class Configuration:
    """One network of the ablations, and the F1 published for it on TUPAC16: image level, localisation."""

    name: str
    architecture: Architecture
    published: tuple[float, float] | None = None


CONFIGURATIONS = (
    Configuration("embedding-mean", Architecture(head="embedding", aggregation="mean"), (0.762, 0.134)),
    Configuration("embedding-max", Architecture(head="embedding", aggregation="max"), (0.772, 0.234)),
    Configuration("attention-mil", Architecture(head="embedding", aggregation="attention"), (0.768, 0.014)),
    Configuration("instance-mean", Architecture(aggregation="mean"), (0.753, 0.004)),
    Configuration("instance-max", Architecture(), (0.761, 0.729)),
    Configuration("instance-max-1", Architecture(stages=1)),
    Configuration("instance-max-2", Architecture(stages=2)),
    Configuration("instance-max-4", Architecture(stages=4)),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures that one configuration reached on the validation cases, and at which epoch."""

    configuration: Configuration
    epoch: int
    validation: Validation

    @property
    def of_figure_3(self) -> bool:
        """True where the network differs from the paper's in its stages alone."""
        own = self.configuration.architecture
        return own == Architecture(stages=own.stages)


def select(names: str) -> tuple[Configuration, ...]:
    """Choose configurations by their names (by commas), all if there are none; in their own order.

    Raises ParameterInvalid.
    """
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    known = [each.name for each in CONFIGURATIONS]
    if unknown := sorted(wanted.difference(known)):
        raise ParameterInvalid(f"no configuration {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(each for each in CONFIGURATIONS if not wanted or each.name in wanted)


def ablate(
    training: Sequence[LoadedField],
    validation: Sequence[LoadedField],
    out: Path,
    setup: TrainingSetup,
    chosen: Sequence[Configuration] = CONFIGURATIONS,
    on_run: Callable[[Configuration], None] = lambda _: None,
) -> Iterator[Measured]:
    """Train each configuration in `out`/NAME, and give what it reached before the next one begins.

    The settings' own architecture is not used. Where the setup resumes, finished runs are read and not trained again,
    and one that was interrupted goes on from its checkpoint.

    Raises DataInvalid where the validation fields hold no mitosis, ParameterInvalid where `out` holds runs of another
    budget, and as `train` does.
    """
    if not any(len(field.mitoses) for field in validation):
        raise DataInvalid("the validation cases hold no mitosis: there is nothing to measure")
    if not setup.resume:
        refuse_left_behind([out / configuration.name for configuration in chosen])
    for configuration in chosen:
        on_run(configuration)
        folder = out / configuration.name
        make_folder(folder)
        settings = setup.settings.model_copy(update={"architecture": configuration.architecture})
        train(training, validation, folder, replace(setup, settings=settings))
        yield read_measured(configuration, folder)


def read_measured(configuration: Configuration, folder: Path) -> Measured:
    """Read what a finished run reached from its card. Raises CardInvalid."""
    card = read_card(folder).model_extra or {}
    found = {each.name: card["metrics"].get(each.name, math.nan) for each in fields(Validation)}
    return Measured(configuration, card["training"]["epoch"], Validation(**found))
