"""Commands that take each option once."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperOption


class Once(TyperCommand):
    """A command that refuses an option given twice, of which only the last would count."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; end with status 2 if that is wrong."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(order).items():
            if isinstance(parameter, TyperOption) and count > 1 and not parameter.multiple:
                ctx.fail(f"{parameter.opts[0]} is given {count} times: give it once")
        return super().parse_args(ctx, args)
