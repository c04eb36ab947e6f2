"""The parts of a run: made once, then read by all code that measures or reports."""

from dataclasses import dataclass

from framework.run.clock import Clock
from framework.simulation.breeding import BredDesign
from framework.simulation.failures import Quarantine
from framework.store.owner import Store
from framework.study.case import Case
from framework.study.design import Design
from framework.study.study import Study
from framework.training.checkpoint import Checkpoints
from framework.training.validation import Validation


@dataclass(frozen=True)
class Parts:
    """What a run is made of, beside its training ranks."""

    case: Case
    design: Design  # a `BredDesign` where simulations are bred
    store: Store | None
    quarantine: Quarantine
    validation: Validation
    checkpoints: Checkpoints
    clock: Clock

    @property
    def study(self) -> Study:
        """The study."""
        return self.case.study

    @property
    def breeding(self) -> BredDesign | None:
        """The design, if its simulations are bred."""
        return self.design if isinstance(self.design, BredDesign) else None
