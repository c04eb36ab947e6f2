"""The look-up gives what comparing every voxel of every entry gives, to the last bit."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from framework.errors import StudyError
from framework.inverse.index import writer as index_writer
from framework.inverse.index.index import Index
from framework.inverse.index.writer import IndexWriter
from framework.inverse.search import masks as mask_search
from framework.inverse.search.masks import Observed, dice_coefficients, search_masks

Masks = NDArray[np.bool_]
THRESHOLDS = {"core": (0.5, 0.7), "rim": (0.1,), "halo": (0.02, 0.04, 0.06)}
STEPS, QUERIES = 3, 12
_numbers = count()


@dataclass
class Entries:
    """An index, and the masks that are in it: of each entry [T, *grid]."""

    index: Index
    keys: list[tuple[int, int]]
    masks: list[Masks]
    thresholds: dict[str, tuple[float, ...]]

    def dice(self, entry: int, name: str, observed: Masks) -> list[float]:
        first = 0
        for other, values in self.thresholds.items():
            if other == name:
                masks = self.masks[entry][first : first + len(values)]
                return [_dice(mask, observed) for mask in masks]
            first += len(values)
        raise LookupError(name)

    def ranking(self, observed: Observed, weights: dict[str, float]) -> list[tuple[float, int]]:
        """Scores and entries, the best first, by comparing all voxels."""
        names = [name for name in self.thresholds if name in observed]
        values = np.array([weights[name] for name in names])
        scores = []
        for entry in range(len(self.masks)):
            score = 0.0
            for name, weight in zip(names, values / values.sum(), strict=True):
                score += weight * max(self.dice(entry, name, observed[name]))
            scores.append((score, entry))
        return sorted(scores, key=lambda item: (-item[0], self.keys[item[1]]))


def _dice(one: Masks, other: Masks) -> float:
    voxels = int(one.sum()) + int(other.sum())
    return 1.0 if voxels == 0 else 2.0 * int((one & other).sum()) / voxels


def made(
    folder: Path, keys: list[tuple[int, int]], masks: list[Masks], names: list[str]
) -> Entries:
    """An index of these, written in two sittings."""
    thresholds = {name: THRESHOLDS[name] for name in names}
    half = len(masks) // 2
    for part in (slice(0, half), slice(half, None)):
        with IndexWriter(folder, "hash", masks[0].shape[1:], thresholds) as writer:
            for key, mask in zip(keys[part], masks[part], strict=True):
                writer.add(*key, mask)
                if writer.full:
                    writer.commit()
            writer.commit()
    return Entries(Index(folder), keys, masks, thresholds)


def random_mask(random: np.random.Generator, grid: tuple[int, ...]) -> Masks:
    """Empty, full, some voxels, or a box."""
    kind = random.integers(5)
    if kind < 2:
        return np.full(grid, bool(kind))
    if kind == 2:
        return random.random(grid) < random.random() ** 2
    mask = np.zeros(grid, dtype=bool)
    ends = [sorted(random.integers(0, n + 1, 2)) for n in grid]
    mask[tuple(slice(a, b) for a, b in ends)] = True
    return mask


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tables, and entries that are not refined, although there are few."""
    monkeypatch.setattr(index_writer, "TABLE_ENTRIES", 7)
    monkeypatch.setattr(mask_search, "BATCH", 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("indices")


grids = st.one_of(
    st.tuples(st.integers(1, 40)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 18), st.integers(1, 11), st.integers(1, 9)),
)
choices = st.lists(st.sampled_from(list(THRESHOLDS)), min_size=1, max_size=3, unique=True)


@settings(max_examples=120)
@given(grids, choices, st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_answer_is_that_of_comparing_every_voxel(
    folder: Path, grid: tuple[int, ...], names: list[str], n: int, different: int, seed: int
) -> None:
    """Entries are drawn from few different ones, so that many scores are equal."""
    random = np.random.default_rng(seed)
    count = sum(len(THRESHOLDS[name]) for name in names)
    pool = [np.stack([random_mask(random, grid) for _ in range(count)]) for _ in range(different)]
    masks = [pool[random.integers(different)] for _ in range(n)]
    keys = [divmod(int(number), STEPS) for number in random.permutation(n)]
    entries = made(folder / str(next(_numbers)), keys, masks, names)
    for _ in range(QUERIES):
        asked = random.permutation(names)[: random.integers(1, len(names) + 1)].tolist()
        observed = {name: random_mask(random, grid) for name in asked}
        if random.random() < 0.3:  # one that is there
            first = {
                name: sum(len(THRESHOLDS[m]) for m in names[:i]) for i, name in enumerate(names)
            }
            observed = {name: masks[0][first[name]] for name in asked}
        weights = {name: float(random.integers(0, 3) * random.random()) for name in asked}
        weights[asked[0]] += float(random.choice([1e-300, 1e-3, 1.0]))
        check(entries, observed, weights, int(random.integers(1, n + 1)))


def check(entries: Entries, observed: Observed, weights: dict[str, float], top: int) -> None:
    index, ranking = entries.index, entries.ranking(observed, weights)
    answer = search_masks(index, observed, weights, top)
    assert [(match.score, match.entry) for match in answer.matches] == ranking[:top]
    assert answer.entries == len(entries.masks) >= answer.refined
    for match in answer.matches:
        assert (match.simulation, match.position) == entries.keys[match.entry]
        for name, mask in observed.items():
            right = entries.dice(match.entry, name, mask)
            assert match.dice[name] == max(right)
            assert match.thresholds[name] == THRESHOLDS[name][right.index(max(right))]

    own = entries.keys[0][0]
    others = [item for item in ranking if entries.keys[item[1]][0] != own]
    if others:
        top = min(top, len(others))
        left = search_masks(index, observed, weights, top, leave_out=own)
        assert [(match.score, match.entry) for match in left.matches] == others[:top]
        assert left.entries == len(others)

    chosen = np.array([item[1] for item in ranking[:3]])
    for name, values in dice_coefficients(index, observed, chosen).items():
        right = [entries.dice(entry, name, observed[name]) for entry in chosen.tolist()]
        np.testing.assert_array_equal(values, right)


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    """Entries of one mask at two thresholds: balls of several radii, all over a grid."""
    grid = (24, 24, 24)
    x = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1)
    random = np.random.default_rng(0)
    masks = []
    for _ in range(300):
        r2 = ((x - random.uniform(4, 20, 3)) ** 2).sum(-1)
        radius = random.uniform(2, 7)
        masks.append(np.stack([r2 < radius**2, r2 < (0.8 * radius) ** 2]))
    keys = [divmod(number, 10) for number in range(300)]
    return made(tmp_path_factory.mktemp("balls") / "index", keys, masks, ["core"])


def test_few_entries_are_compared_voxel_by_voxel(balls: Entries) -> None:
    answer = search_masks(balls.index, {"core": balls.masks[17][1]}, top=1)
    assert answer.matches[0].score == 1
    assert answer.exact
    assert answer.refined < 30


def test_an_index_without_a_single_voxel_is_searched(tmp_path: Path) -> None:
    masks = [np.zeros((1, 5, 4), bool)] * 9
    entries = made(tmp_path / "index", [divmod(i, STEPS) for i in range(9)], masks, ["rim"])
    check(entries, {"rim": np.zeros((5, 4), bool)}, {"rim": 1.0}, 4)
    check(entries, {"rim": np.ones((5, 4), bool)}, {"rim": 1.0}, 9)


def test_equal_weights_unless_given(balls: Entries) -> None:
    observed = {"core": balls.masks[3][0]}
    ranking = balls.ranking(observed, {"core": 1.0})
    assert [match.entry for match in search_masks(balls.index, observed).matches] == [
        entry for _, entry in ranking[:10]
    ]


def test_weights_whose_sum_is_no_number_are_refused(tmp_path: Path) -> None:
    mask = np.ones((1, 5, 4), bool)
    entries = made(tmp_path / "index", [(0, 0)], [np.repeat(mask, 3, 0)], ["core", "rim"])
    observed = {"core": mask[0], "rim": mask[0]}
    with pytest.raises(StudyError, match="the weights of core, rim are too large to be added up"):
        search_masks(entries.index, observed, {"core": 1e308, "rim": 1e308}, 1)
    assert (
        search_masks(entries.index, observed, {"core": 1e-320, "rim": 0}, 1).matches[0].score == 1
    )


MASK = np.zeros((24, 24, 24), bool)


@pytest.mark.parametrize(
    ("observed", "options", "message"),
    [
        ({}, {}, "no mask was observed: give at least one of core"),
        ({"pet": MASK}, {}, "pet is not a mask of the index .*, which has core"),
        ({"core": MASK[1:]}, {}, r"shape \(23, 24, 24\) .* on the grid \(24, 24, 24\)"),
        ({"core": MASK.astype(float)}, {}, "type float64: it must be a mask"),
        ({"core": MASK}, {"weights": {"rim": 1.0}}, "rim has a weight, but was not observed"),
        ({"core": MASK}, {"weights": {"core": -1.0}}, "the weight of core is -1.0"),
        ({"core": MASK}, {"weights": {"core": float("nan")}}, "the weight of core is nan"),
        ({"core": MASK}, {"weights": {"core": 0.0}}, "the weights of core are all 0"),
        ({"core": MASK}, {"top": 301}, "301 best matches .* from 1 to 300, the entries"),
        ({"core": MASK}, {"top": 0}, "the 0 best matches"),
        ({"core": MASK}, {"top": 300, "leave_out": 2}, "from 1 to 290"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    balls: Entries, observed: Observed, options: dict[str, object], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        search_masks(balls.index, observed, **options)  # type: ignore[arg-type]
