"""A run that is done, or was interrupted, goes on with more simulations."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import SMALL, in_process, once, the_object
from noting import noted_in, ran
from places import QUICKSTART

from framework.store.reader import StoreReader
from framework.stream.stored_blocks import WithStored

LONG = ["buffer.replay=[2, 8]", "training.stop=drained"]


def command(directory: Path, *arguments: str) -> dict[str, Any]:
    done = in_process(directory, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return {**the_object(done.stdout), "told": done.stderr}


def train(directory: Path, *overrides: str) -> dict[str, Any]:
    settings = once(*SMALL, *LONG, *noted_in(directory), *overrides)
    return command(directory, "train", str(QUICKSTART), *settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, module_on_cluster: None) -> Path:
    """A directory with the run runs/small of 40 simulations."""
    directory = tmp_path_factory.mktemp("extend")
    train(directory, "tracking.uri=sqlite:///mlflow.db")
    assert len(ran(directory)) == 44
    for folder in ("runs", "stores"):
        shutil.copytree(directory / folder, directory / "before" / folder)
    return directory


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of it as it was, without MLflow; its solver notes in the first one's folder."""
    for folder in ("runs", "stores"):
        shutil.copytree(trained / "before" / folder, tmp_path / folder)
    study = tmp_path / "runs/small/study.yaml"
    values = yaml.safe_load(study.read_text())
    study.write_text(yaml.safe_dump({**values, "tracking": {"uri": "none"}}))
    return tmp_path


def assert_whole(summary: dict[str, Any], simulations: int) -> None:
    assert summary["status"] == "done"
    expected = {"requested": simulations, "completed": simulations, "quarantined": 0}
    assert summary["simulations"] == expected
    samples = summary["samples"]
    assert samples["produced"] == samples["unique_trained"] == simulations * 10
    assert (samples["untrained"], samples["stored"]) == (0, simulations * 10)


def test_a_run_that_is_done_goes_on_with_its_old_samples_from_the_store(trained: Path) -> None:
    first = json.loads((trained / "runs/small/summary.json").read_text())
    longer = command(trained, "resume", "runs/small", "design.simulations=60")
    assert len(ran(trained)) == 20  # neither old ones nor held-out ones
    assert_whole(longer, 60)
    # The old samples are drawn again, each of them, beside the new ones.
    assert longer["samples"]["drawn"] >= first["samples"]["drawn"] + 600
    assert longer["training"]["steps"] > first["training"]["steps"]
    assert longer["seconds"] > first["seconds"]
    old, new = (it["validation"]["relative_l2"]["mean"] for it in (first, longer))
    assert new < old
    design = (trained / "runs/small/design.csv").read_text().splitlines()
    assert len(design) == 1 + 4 + 60
    rows = (trained / "runs/small/history.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows]
    assert steps == sorted(steps)
    assert longer["mlflow"]["run_id"] == first["mlflow"]["run_id"]
    database = sqlite3.connect(trained / "mlflow.db")
    tags = dict(database.execute("select key, value from tags"))
    database.close()
    assert tags["extended.design.simulations"] == "60"
    again = command(trained, "resume", "runs/small")
    assert "is done already" in again.pop("told")
    assert again == {key: value for key, value in longer.items() if key != "told"}


@pytest.mark.usefixtures("module_on_cluster")
def test_an_extension_that_was_interrupted_goes_on(copied: Path, trained: Path) -> None:
    """After its first checkpoint, and before."""
    study = copied / "runs/small/study.yaml"
    values = yaml.safe_load(study.read_text())
    values["design"]["simulations"] = 44  # as `resume` leaves it, when killed at once
    study.write_text(yaml.safe_dump(values))
    assert_whole(command(copied, "resume", "runs/small"), 44)
    assert len(ran(trained)) == 4
    values["checkpoint"]["every_seconds"] = 0.001
    study.write_text(yaml.safe_dump(values))
    command(copied, "resume", "runs/small", "design.simulations=60")
    # Its last checkpoint but one was written on the way: what was killed there goes on.
    shutil.rmtree(max((copied / "runs/small/checkpoints").iterdir()))
    (copied / "runs/small/summary.json").unlink()
    ran(trained)
    assert_whole(command(copied, "resume", "runs/small"), 60)
    assert not ran(trained)  # all are in the store by now


@pytest.mark.usefixtures("module_on_cluster")
def test_a_run_killed_after_all_was_received_goes_on_with_more(tmp_path: Path) -> None:
    """While it draws what is left, or when its stop is reached."""
    often = ["checkpoint.every_seconds=0.001", "validation.simulations=2", "store.keep=none"]
    for stop, further in (("drained", "drained"), ("{steps: 4}", "{steps: 30}")):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        first = train(tmp_path, *often, f"training.stop={stop}")
        shutil.rmtree(max((tmp_path / "runs/small/checkpoints").iterdir()))
        (tmp_path / "runs/small/summary.json").unlink()
        longer = ("design.simulations=50", f"training.stop={further}")
        second = command(tmp_path, "resume", "runs/small", *longer)
        assert second["training"]["steps"] > first["training"]["steps"]
        if stop == "drained":
            assert second["simulations"]["completed"] == 50
            assert second["samples"]["unique_trained"] == 500
        else:
            assert second["training"]["steps"] == 30


@pytest.mark.usefixtures("module_on_cluster")
def test_without_the_old_samples_it_goes_on_with_new_ones_and_says_so(tmp_path: Path) -> None:
    first = train(tmp_path, "store.keep=none", "validation.simulations=2")
    ran(tmp_path)
    longer = command(tmp_path, "resume", "runs/small", "design.simulations=50")
    assert (
        "store.keep is none: the steps of the 40 simulations before are not there"
        in (longer["told"])
    )
    assert len(ran(tmp_path)) == 10
    assert longer["simulations"]["completed"] == 50
    assert longer["samples"]["unique_trained"] == 500
    assert first["samples"]["drawn"] + 100 <= longer["samples"]["drawn"] <= 8 * 500 + 120


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["design.simulations=40"], "design.simulations is 40, but the run has 40 already: ask"),
        (["training.stop={steps: 9}"], "design.simulations is 40, but the run has 40 already"),
        (["surrogate.hidden=[8]"], "surrogate.hidden cannot be changed in a run: only design.si"),
        (["design.simulations=many"], "design.simulations is 'many': input should be a valid int"),
        (["design.simulations=100000000000000"], "drawing parameters of 100000000000000 failed"),
        (["design.simulations"], "design.simulations is not of the form section.key=value"),
        (
            ["design.simulations=50", "training.stop.steps=9"],
            "training.stop.steps is 9, which the run has reached: raise it, too",
        ),
    ],
)
def test_what_does_not_make_a_run_longer_is_refused(
    copied: Path, overrides: list[str], message: str
) -> None:
    study = copied / "runs/small/study.yaml"
    before = study.read_bytes()
    done = in_process(copied, "resume", "runs/small", *overrides)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert study.read_bytes() == before
    assert (copied / "runs/small/design.csv").exists()


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("design", {"sampler": "latin_hypercube"}, "design.sampler is latin_hypercube, whose simu"),
        ("training", {"source": "stores/small.zarr"}, "trains from the store stores/small.zarr"),
    ],
)
def test_a_run_that_cannot_be_longer_says_so(
    copied: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    study = copied / "runs/small/study.yaml"
    values = yaml.safe_load(study.read_text())
    values[section] |= changes
    study.write_text(yaml.safe_dump(values))
    done = in_process(copied, "resume", "runs/small", "design.simulations=90")
    assert done.returncode == 2
    assert message in done.stderr
    shutil.rmtree(copied / "runs/small/checkpoints")
    values[section] = yaml.safe_load(QUICKSTART.read_text()).get(section, {})
    values["design"]["simulations"] = 40
    study.write_text(yaml.safe_dump(values))
    done = in_process(copied, "resume", "runs/small", "design.simulations=90")
    assert (done.returncode, "kept nothing to go on from" in done.stderr) == (2, True)


class FewBlocks:
    """An ensemble whose solvers send blocks of whole simulations."""

    def __init__(self, blocks: list[Any]) -> None:
        self.sent = blocks

    def blocks(self) -> Any:
        yield from self.sent

    def restart(self, simulation: int) -> None:
        raise AssertionError


def test_stored_simulations_come_evenly_among_the_others(trained: Path) -> None:
    reader = StoreReader(str(trained / "stores/small.zarr"))
    source = WithStored(FewBlocks([]))
    source.add(reader, range(30), run=0)
    whole = list(source.blocks())
    assert [block.simulation for block in whole] == list(range(30))
    some = WithStored(FewBlocks(whole[20:30]))
    some.add(reader, range(20), run=10)
    order = [block.simulation for block in some.blocks()]
    assert sorted(order) == list(range(30))
    assert [id >= 20 for id in order] == [True, False, False] * 10


def test_a_stored_simulation_that_has_to_begin_anew_does(trained: Path) -> None:
    """What a solver had sent of it has more digits than a store of float16."""
    source = WithStored(FewBlocks([]))
    source.add(StoreReader(str(trained / "stores/small.zarr")), [4, 7], run=0)
    seen: list[tuple[int, int]] = []
    for block in source.blocks():
        if not seen:
            source.restart(block.simulation)
        seen.append((block.simulation, block.first_step))
    assert seen == [(4, 0), (4, 0), (7, 0)]
