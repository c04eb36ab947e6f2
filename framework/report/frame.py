"""The lines that show a run: one line of progress, or a frame of the live display."""

import itertools
import math
from dataclasses import dataclass

from rich.text import Text

from framework.report.words import duration, error_percent, percent
from framework.tracking.history import Record

_LABEL, _LONGEST_BAR, _LONGEST_COURSE = 13, 48, 32  # columns


def line(record: Record) -> str:
    """Return the progress of a run in one line."""
    parts = []
    if "simulations/requested" in record:
        parts.append(f"simulations {_of(record, 'simulations/completed', 'simulations/requested')}")
    if "samples/received" in record:
        received, drawn = record["samples/received"], record.get("samples/drawn", 0)
        parts.append(f"samples {received:.0f} received, {drawn:.0f} drawn")
    if "buffer/held" in record:
        parts.append(f"buffer {_of(record, 'buffer/held', 'buffer/capacity')}")
    if "step" in record:
        parts.append(f"step {record['step']:.0f}")
    if "training/loss" in record:
        parts.append(f"loss {record['training/loss']:.2e}")
    if "validation/relative_l2" in record:
        parts.append(f"validation {error_percent(record['validation/relative_l2'])}")
    if record.get("simulations/quarantined"):
        parts.append(f"quarantined {record['simulations/quarantined']:.0f}")
    parts += _waits(record)
    return f"[{record.get('seconds', 0):4.0f} s] {', '.join(parts)}"


@dataclass(frozen=True)
class View:
    """The contents of a frame of the live display, and its size in characters."""

    title: str
    record: Record
    left: float | None  # seconds until the stop
    loss: list[float]
    validation: list[float]
    width: int
    height: int
    ascii_only: bool


def frame(view: View) -> list[Text]:
    """Return the lines of the live display, without the least important ones if it is too low."""
    record = view.record
    entries = [(0, _header(view)), (8, [Text()])]
    if "simulations/requested" in record:
        entries.append((1, _entry(view, "simulations", *_simulations(view))))
    if "progress" in record:
        entries.append((1, _entry(view, "progress", *_progress(view))))
    if "buffer/held" in record:
        entries.append((4, _entry(view, "buffer", *_buffer(view))))
    if "samples/received" in record:
        entries.append((3, _entry(view, "samples", *_sample_items(record))))
    if "step" in record:
        entries.append((3, _entry(view, "training", *_training_items(record))))
    if "training/loss" in record:
        loss = Text(f"{record['training/loss']:.2e}")
        entries.append((3, _entry(view, "loss", loss, _course(view, view.loss))))
    if "validation/relative_l2" in record:
        error = Text(f"{error_percent(record['validation/relative_l2'])} relative L2")
        entries.append((2, _entry(view, "validation", error, _course(view, view.validation))))
    if waits := _waits(record):
        entries.append((2, _entry(view, "waiting", *map(Text, waits))))
    if "checkpoint/at" in record:
        age = duration(max(record["seconds"] - record["checkpoint/at"], 0))
        took = f"took {record['checkpoint/seconds']:.1f} s"
        entries.append((6, _entry(view, "checkpoint", Text(f"{age} ago"), Text(took))))
    if "system/cpu_percent" in record:
        entries.append((7, _entry(view, "machine", *_machine(record))))
    while sum(len(lines) for _, lines in entries) > max(view.height, 1) and len(entries) > 1:
        entries.remove(max(entries, key=lambda entry: entry[0]))
    return list(itertools.chain.from_iterable(lines for _, lines in entries))


def _header(view: View) -> list[Text]:
    """Return the title, with the time since the start at the right."""
    since = duration(view.record.get("seconds", 0.0))
    title = Text(view.title, style="bold")
    title.truncate(max(view.width - len(since) - 2, 1), overflow="crop")
    space = " " * (view.width - title.cell_len - len(since))
    return [Text.assemble(title, space, (since, "dim"))]


def _entry(view: View, label: str, *items: Text) -> list[Text]:
    """Return a label and its items, on as many lines as they take."""
    between = Text(", " if view.ascii_only else " · ", style="dim")
    lines = [Text.assemble((f"{label:{_LABEL}}", "cyan"))]
    begun = False
    for item in filter(None, items):
        if begun and lines[-1].cell_len + between.cell_len + item.cell_len > view.width:
            lines.append(Text(" " * _LABEL))
        elif begun:
            lines[-1].append_text(between)
        lines[-1].append_text(item)
        begun = True
    for text in lines:
        text.truncate(view.width, overflow="crop")
    return lines


def _bar(view: View, share: float, label: str) -> Text:
    """Return a label, after a bar filled up to `share` (0 to 1) if there is room for one."""
    width = min(view.width - _LABEL - 26, _LONGEST_BAR)
    if width < 8:
        return Text(label)
    full = round(width * min(max(share, 0.0), 1.0))
    done, rest = ("#", "-") if view.ascii_only else ("━", "─")
    return Text.assemble((done * full, "blue"), (rest * (width - full), "dim"), f"  {label}")


def _simulations(view: View) -> list[Text]:
    record = view.record
    done, requested = record.get("simulations/completed", 0.0), record["simulations/requested"]
    items = [_bar(view, done / max(requested, 1), f"{done:,.0f}/{requested:,.0f}")]
    if quarantined := record.get("simulations/quarantined"):
        items.append(Text(f"{quarantined:,.0f} quarantined", style="yellow"))
    return items if "progress" in record else items + _left(view)


def _progress(view: View) -> list[Text]:
    progress = view.record["progress"]
    return [_bar(view, progress, f"{100 * progress:.0f} %"), *_left(view)]


def _left(view: View) -> list[Text]:
    return [] if view.left is None else [Text(f"about {duration(view.left)} left")]


def _buffer(view: View) -> list[Text]:
    held, capacity = (view.record.get(f"buffer/{key}", 0.0) for key in ("held", "capacity"))
    return [_bar(view, held / max(capacity, 1), f"{held:,.0f}/{capacity:,.0f}")]


def _sample_items(record: Record) -> list[Text]:
    received, drawn = (record.get(f"samples/{key}", 0.0) for key in ("received", "drawn"))
    items = [f"{received:,.0f} received", f"{drawn:,.0f} drawn"]
    if received and drawn:
        items.append(f"{drawn / received:.1f} times each")
    return [*map(Text, items)]


def _training_items(record: Record) -> list[Text]:
    if not record.get("step"):
        return [Text("waits for the first samples", style="dim")]
    items = [f"step {record['step']:,.0f}"]
    if "training/samples_per_second" in record:
        items.append(f"{record['training/samples_per_second']:,.0f} samples/s")
    return [*map(Text, items)]


def _waits(record: Record) -> list[str]:
    """Return the share of the time that each part waits, and for whom."""
    sentences = {
        "solvers": "solvers wait {} to hand over",
        "training": "training waits {} for samples",
        "redraws": "redraws {} meanwhile",
        "transport": "receiver waits {} for solvers",
    }
    shares = {key: percent(record[f"wait/{key}"]) for key in sentences if f"wait/{key}" in record}
    if record.get("wait/redraws", 0) < 0.005:  # 0 %
        shares.pop("redraws", None)
    return [sentences[key].format(share) for key, share in shares.items()]


def _machine(record: Record) -> list[Text]:
    items = [f"{record['system/cpu_percent']:.0f} % of a CPU"]
    for key, name in (("memory", "memory"), ("gpu_memory", "GPU memory")):
        if f"system/{key}_gib" in record:
            items.append(f"{record[f'system/{key}_gib']:.1f} GiB {name}")
    return [*map(Text, items)]


def _course(view: View, values: list[float]) -> Text:
    """Draw the course of a positive figure as a row of small bars, on a logarithmic scale."""
    width = min(view.width - _LABEL - 24, _LONGEST_COURSE)
    logs = [math.log(value) for value in values if value > 0]
    if width < 8 or len(logs) < 2:
        return Text()
    n = min(width, len(logs))
    edges = [index * len(logs) // n for index in range(n + 1)]
    means = [sum(logs[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    shades = "_.-=+*#@" if view.ascii_only else "▁▂▃▄▅▆▇█"
    low, span = min(means), max(max(means) - min(means), 1e-9)
    steps = (round((mean - low) / span * (len(shades) - 1)) for mean in means)
    return Text("".join(shades[step] for step in steps), style="blue")


def _of(record: Record, part: str, whole: str) -> str:
    return f"{record.get(part, 0):.0f}/{record.get(whole, 0):.0f}"
