"""Make the object that is checked, many times, with its settings checked as in a study."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from framework.study.component import explain, settings_of, their_mistakes

T = TypeVar("T")


class Maker(Generic[T]):
    """A class, or a function that makes an object, with settings.

    The first `leading` arguments of the constructor are no settings: they are given later.
    """

    def __init__(
        self, made_by: Callable[..., T], settings: Mapping[str, Any], leading: int = 0
    ) -> None:
        """Check the settings and fill in the defaults. Raises ValueError."""
        self.name = getattr(made_by, "__name__", repr(made_by))
        self._made_by = made_by
        with their_mistakes("reading its settings failed"):
            self._model = settings_of(made_by, leading)
        self.settings = self._checked(settings)

    def factory(self, *leading: Any, **changes: Any) -> Callable[[], T]:
        """Return a function that makes the object, with changed settings. Raises ValueError."""
        return partial(self._made_by, *leading, **self._checked({**self.settings, **changes}))

    def make(self, *leading: Any, **changes: Any) -> T:
        """Make the object, with some settings changed.

        Raises ValueError if a setting is wrong or the constructor fails.
        """
        factory = self.factory(*leading, **changes)
        with their_mistakes("making it failed", plain=ValueError):
            return factory()

    def _checked(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dict(self._model.model_validate(dict(settings)))
        except ValidationError as error:
            raise ValueError(explain(error, self._model)) from None
