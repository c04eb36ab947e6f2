"""Segmentations in NIfTI: brought to the solver's grid, brought back, and refused with a reason."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from framework.errors import StudyError
from framework.inverse.observed.masks import (
    MaskObservation,
    patient_image,
    read_labels,
    read_masks,
    read_region,
    to_patient,
)
from framework.inverse.observed.space import to_grid
from solvers.base import Convention, Field, Grid, ImagedSolver, Order, Parameter, ParameterSpace

SIDE, SPACING = 32, 3.0
# The middle of the grid lies in the middle of the scanner.
AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])
AFFINE[:3, 3] = -SPACING * (SIDE - 1) / 2
Image = NDArray[Any]


class Scanned(ImagedSolver):
    """A solver of nothing, whose grid lies in a scanner's space."""

    parameters = ParameterSpace(Parameter("rate", 0.0, 1.0))
    fields = (Field("height"),)
    order = Order(1, 1)
    grid = Grid((SIDE,) * 3, (SPACING,) * 3, "mm")
    affine = AFFINE
    stored_steps = 1
    masks: Mapping[str, tuple[float, ...]] = {"inner": (0.5,), "outer": (0.2,)}
    regions: Mapping[str, tuple[str, ...]] = {"inner": ("core",), "outer": ("core", "rim")}
    conventions: Mapping[str, Convention] = {
        "plain": Convention({"core": (1, 4), "rim": (2,)}),
        "mirror": Convention({"core": (4,), "rim": (1,)}, "mirrored"),
        "lost": Convention({"core": (4,), "rim": (1,)}, "somewhere"),
    }
    spaces: Mapping[str, NDArray[np.float64]] = {"mirrored": np.diag([-1.0, 1.0, 1.0, 1.0])}

    def __init__(self) -> None:
        self.static_fields = {"ground": (at(AFFINE, self.grid.shape)[1] < 45).astype(np.float32)}

    def times(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.zeros(1)

    def observe(
        self, fields: NDArray[np.float32], **settings: float
    ) -> Mapping[str, NDArray[np.bool_]]:
        return {name: fields[0] >= settings.get(name, 0.5) for name in self.masks}

    def solve(self, parameters: NDArray[np.float64], seed: int):  # type: ignore[no-untyped-def]
        yield np.zeros((1, *self.grid.shape), np.float32)


def at(affine: Image, shape: tuple[int, ...], centre: Image | None = None) -> tuple[Image, Image]:
    """The positions [*image, 3] of voxels in mm, and how far from `centre` they are [*image]."""
    positions = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return positions, np.linalg.norm(positions - (0 if centre is None else centre), axis=-1)


def oriented(codes: str, voxel: float = 1.5, side: int = 70) -> Image:
    """The affine of a cube of voxels around the middle, its axes in the directions of the codes."""
    axes = nibabel.orientations.axcodes2ornt(codes)
    affine = np.zeros((4, 4))
    for index, (axis, sign) in enumerate(axes):
        affine[int(axis), index] = sign * voxel
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, (side - 1) / 2)
    affine[3, 3] = 1
    return affine


CENTRE = np.array([12.0, -9.0, 6.0])


def patient(affine: Image | None = None, shape: tuple[int, ...] = (70, 70, 70)) -> Image:
    """Labels of two balls around CENTRE: 1 within 12 mm, 2 within 20 mm [*image]."""
    distance = at(oriented("RAS") if affine is None else affine, shape, CENTRE)[1]
    return np.where(distance < 12, 1, np.where(distance < 20, 2, 0)).astype(np.uint8)


def save(folder: Path, values: Image, affine: Image | None = None, name: str = "image.nii") -> Path:
    image = nibabel.Nifti1Image(values, oriented("RAS") if affine is None else affine)
    nibabel.save(image, folder / name)
    return folder / name


def labelled(folder: Path, values: Image | None = None, **others: Any) -> MaskObservation:
    path = save(folder, patient() if values is None else values)
    return read_labels(Scanned(), path, **{"labels": "plain", **others})


def ml(mask: Image, spacing: float = SPACING) -> float:
    return float(np.count_nonzero(mask)) * spacing**3 / 1000


def test_labels_become_masks_on_the_grid(tmp_path: Path) -> None:
    observation = labelled(tmp_path)
    assert observation.warnings == ()
    distance = at(AFFINE, (SIDE,) * 3, CENTRE)[1]
    for name, radius in (("inner", 12), ("outer", 20)):
        mask = observation.masks[name]
        assert not mask[distance > radius + 2].any()
        assert mask[distance < radius - 2].all()
        volume = 4 / 3 * np.pi * radius**3 / 1000
        assert observation.volumes[name] == pytest.approx(volume, rel=0.02)
        assert ml(mask) == pytest.approx(volume, rel=0.05)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SRA"])
def test_the_orientation_of_an_image_makes_no_difference(tmp_path: Path, codes: str) -> None:
    affine = oriented(codes)
    path = save(tmp_path, patient(affine), affine)
    observation = read_labels(Scanned(), path, "plain")
    expected = labelled(tmp_path)
    for name, mask in expected.masks.items():
        np.testing.assert_array_equal(observation.masks[name], mask)
    np.testing.assert_allclose(observation.affine, expected.affine, atol=1e-9)
    # And what comes back lies in the same place of the scanner.
    height = (60 - at(AFFINE, (SIDE,) * 3, CENTRE)[1]).clip(0).astype(np.float32)
    image = patient_image(observation, to_patient(observation, height))
    assert nibabel.aff2axcodes(image.affine) == tuple(codes)
    back = nibabel.as_closest_canonical(image)
    np.testing.assert_allclose(back.affine, expected.image_affine, atol=1e-6)
    np.testing.assert_allclose(np.asarray(back.dataobj), to_patient(expected, height), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_types_and_compression_make_no_difference(tmp_path: Path, dtype: Any, name: str) -> None:
    path = save(tmp_path, patient().astype(dtype), name=name)
    observation = read_labels(Scanned(), path, "plain")
    for mask, expected in zip(
        observation.masks.values(), labelled(tmp_path).masks.values(), strict=True
    ):
        np.testing.assert_array_equal(mask, expected)


turns = st.integers(0, 10**6).map(lambda number: Rotation.random(rng=number).as_matrix())


@settings(max_examples=25)
@given(
    turn=turns,
    voxel=st.tuples(st.floats(1, 2), st.floats(1, 2), st.floats(1, 4)),
    shift=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_a_ball_in_any_image_keeps_its_volume_and_place(
    turn: Image, voxel: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    affine, shape = np.eye(4), tuple(int(42 / length) for length in voxel)
    affine[:3, :3] = turn @ np.diag(voxel)
    affine[:3, 3] = np.array(shift) * SPACING - affine[:3, :3] @ (np.array(shape) - 1) / 2
    ball = at(affine, shape)[1] < 18
    on_grid = to_grid(ball, np.linalg.inv(affine) @ AFFINE, (SIDE,) * 3)
    volume = np.count_nonzero(ball) * np.prod(voxel)
    assert np.count_nonzero(on_grid) * SPACING**3 == pytest.approx(volume, rel=0.04)
    middles = [at(a, m.shape)[0][m].mean(0) for m, a in ((ball, affine), (on_grid, AFFINE))]
    np.testing.assert_allclose(*middles, atol=0.1 * SPACING)


@settings(max_examples=25)
@given(turn=turns, corner=st.tuples(*[st.floats(4, 6)] * 3))
def test_a_voxel_is_inside_if_half_of_it_is(turn: Image, corner: tuple[float, ...]) -> None:
    """The mask is one large voxel of an image, a turned box."""
    image = np.zeros((3, 3, 3), dtype=np.bool_)
    image[1, 1, 1] = True
    box = np.eye(4)
    box[:3, :3] = turn @ np.diag([6.0, 5.0, 7.0])
    box[:3, 3] = np.array(corner) - box[:3, :3] @ np.ones(3)
    to_image = np.linalg.inv(box)
    on_grid = to_grid(image, to_image, (10,) * 3)
    fine = (np.moveaxis(np.indices((80,) * 3), 0, -1) + 0.5) / 8 - 0.5
    inside = (np.abs(fine @ to_image[:3, :3].T + to_image[:3, 3] - 1) < 0.5).all(-1)
    share = inside.reshape((10, 8) * 3).mean((1, 3, 5))
    assert on_grid[share > 0.7].all()
    assert not on_grid[share < 0.3].any()


def test_a_box_of_whole_voxels_is_kept_exactly() -> None:
    """From voxels of half the size, and of a third: a half or more is inside, less is not."""
    for factor in (2, 3):
        affine = np.diag([SPACING / factor] * 3 + [1.0])
        affine[:3, 3] = AFFINE[:3, 3] - (factor - 1) * SPACING / factor / 2
        box = np.zeros((SIDE * factor,) * 3, dtype=np.bool_)
        box[6 * factor : 11 * factor, 8 * factor : 20 * factor, 5 * factor : 9 * factor] = True
        box[6 * factor - 1] = box[6 * factor]  # half of a voxel, or a third
        expected = np.zeros((SIDE,) * 3, dtype=np.bool_)
        expected[6 - (factor == 2) : 11, 8:20, 5:9] = True
        on_grid = to_grid(box, np.linalg.inv(affine) @ AFFINE, expected.shape)
        np.testing.assert_array_equal(on_grid, expected)


def test_a_mask_comes_back_as_it_was(tmp_path: Path) -> None:
    scan = nibabel.Nifti1Image(patient(), oriented("LPS"))
    scan.set_sform(oriented("LPS"), code="talairach")
    nibabel.save(scan, tmp_path / "scan.nii")
    observation = read_labels(Scanned(), tmp_path / "scan.nii", "plain")
    back = patient_image(observation, observation.images["outer"])
    assert back.get_data_dtype() == np.uint8
    for name in ("sform", "qform"):
        affine, code = getattr(back, f"get_{name}")(coded=True)
        np.testing.assert_allclose(affine, oriented("LPS"), atol=1e-5)
        assert code == 3
    np.testing.assert_array_equal(np.asarray(back.dataobj), patient() > 0)


def test_a_field_comes_back_where_it_was_and_is_0_outside_the_grid(tmp_path: Path) -> None:
    """Trilinear interpolation is exact for a linear field."""
    affine = oriented("LPS", 2.0)
    observation = read_labels(Scanned(), save(tmp_path, patient(affine), affine), "plain")
    slope = np.array([0.5, -0.25, 1.0])
    field = (at(AFFINE, (SIDE,) * 3)[0] @ slope + 200).astype(np.float32)
    back = to_patient(observation, field)
    positions = at(affine, back.shape)[0]
    inside = (np.abs(positions) < SPACING * (SIDE - 1) / 2).all(-1)
    np.testing.assert_allclose(back[inside], positions[inside] @ slope + 200, rtol=1e-5)
    assert not back[(np.abs(positions) > SPACING * (SIDE + 1) / 2).any(-1)].any()


def test_an_image_in_a_named_space_is_brought_to_the_solvers(tmp_path: Path) -> None:
    values = np.where(patient() == 1, 4, np.where(patient() == 2, 1, 0)).astype(np.uint8)
    mirrored = read_labels(Scanned(), save(tmp_path, values), "mirror")
    plain = labelled(tmp_path)
    for name, mask in plain.masks.items():
        np.testing.assert_array_equal(mirrored.masks[name], mask[::-1])
    # And goes back to the patient's.
    there = [to_patient(one, one.masks["inner"].astype(float)) for one in (mirrored, plain)]
    np.testing.assert_array_equal(*there)
    own = read_labels(Scanned(), tmp_path / "image.nii", "plain", space="own")
    np.testing.assert_array_equal(own.masks["outer"], plain.masks["outer"])


def test_an_image_in_a_space_of_the_users_needs_an_affine(tmp_path: Path) -> None:
    turned, shift = Rotation.from_rotvec([0.2, -0.1, 0.3]).as_matrix(), [30.0, -20.0, 10.0]
    to_solver = np.eye(4)
    to_solver[:3, :3], to_solver[:3, 3] = turned, shift
    np.savetxt(tmp_path / "affine.txt", to_solver)
    affine = np.linalg.inv(to_solver) @ oriented("RAS")
    path = save(tmp_path, patient(), affine)
    observation = read_labels(Scanned(), path, "plain", affine=tmp_path / "affine.txt")
    plain = labelled(tmp_path)
    for name, mask in plain.masks.items():
        np.testing.assert_array_equal(observation.masks[name], mask)
    np.testing.assert_allclose(observation.affine, np.linalg.inv(to_solver) @ AFFINE, atol=1e-4)


def test_a_space_that_is_not_known_of_these_maps_is_said(tmp_path: Path) -> None:
    values = np.where(patient() == 1, 4, np.where(patient() == 2, 1, 0)).astype(np.uint8)
    observation = read_labels(Scanned(), save(tmp_path, values), "lost")
    (warning,) = observation.warnings
    assert "lie in the space somewhere" in warning


def test_masks_one_a_file_are_the_same_as_labels(tmp_path: Path) -> None:
    labels = patient()
    files = {
        "inner": save(tmp_path, (labels == 1).astype(np.uint8), name="inner.nii"),
        "outer": save(tmp_path, (labels > 0) * np.int16(255), name="outer.nii"),
    }
    observation = read_masks(Scanned(), files)
    for name, mask in labelled(tmp_path).masks.items():
        np.testing.assert_array_equal(observation.masks[name], mask)
        np.testing.assert_array_equal(read_masks(Scanned(), {name: files[name]}).masks[name], mask)
    np.testing.assert_array_equal(
        read_region(observation, files["inner"]), np.argwhere(observation.images["inner"])
    )


def test_labels_given_by_region(tmp_path: Path) -> None:
    path = save(tmp_path, patient() * np.uint8(3))
    both = read_labels(Scanned(), path, {"core": (3, 5), "rim": (6,)})
    np.testing.assert_array_equal(both.masks["outer"], labelled(tmp_path).masks["outer"])
    core = save(tmp_path, (patient() == 1).astype(np.uint8))
    assert set(read_labels(Scanned(), core, {"core": (1,)}).masks) == {"inner"}


def test_a_core_that_leaves_what_it_is_part_of_is_said(tmp_path: Path) -> None:
    labels = patient()
    positions, _ = at(oriented("RAS"), labels.shape)
    outer = (labels > 0) & (positions[..., 0] > CENTRE[0])
    files = {
        "inner": save(tmp_path, (labels == 1).astype(np.uint8), name="inner.nii"),
        "outer": save(tmp_path, outer.astype(np.uint8), name="outer.nii"),
    }
    observation = read_masks(Scanned(), files)
    share = np.mean(~outer[labels == 1])
    volume = np.sum(~outer & (labels == 1)) * 1.5**3 / 1000
    (warning,) = observation.warnings
    assert f"{share:.1%} of inner, {volume:.2f} ml, lies outside outer" in warning


def test_what_lies_outside_the_brain_is_said_or_refused(tmp_path: Path) -> None:
    """The ground is a ball of 45 mm."""
    affine = oriented("RAS")
    for move, share in ((33, 0.1), (48, 0.5)):
        affine[0, 3] = oriented("RAS")[0, 3] + move - CENTRE[0]
        path = save(tmp_path, patient(), affine)
        if share == 0.1:
            warnings = read_labels(Scanned(), path, "plain").warnings
            assert any("of outer lies outside the solver's grid or what" in w for w in warnings)
            continue
        with pytest.raises(StudyError, match=r"lies outside .*does the image lie in another space"):
            read_labels(Scanned(), path, "plain")
    affine[0, 3] = 1e4
    with pytest.raises(StudyError, match="100% of inner lies outside the solver's grid"):
        read_labels(Scanned(), save(tmp_path, patient(), affine), "plain")


SHEARED = oriented("RAS") + 0.3 * np.eye(4, k=1)
SHEARED[3] = [0, 0, 0, 1]


def changed(value: float, dtype: Any = np.float32) -> Image:
    values = patient().astype(dtype)
    values[0, 0, 0] = value
    return values


@pytest.mark.parametrize(
    ("values", "affine", "labels", "message"),
    [
        (np.zeros((9, 9, 9), np.uint8), None, "plain", "empty of inner: it has the labels 0"),
        (2 * (patient() > 0), None, "plain", r"empty of inner: it has the labels 2, .*core 1, 4"),
        (changed(3), None, "plain", r"labels 1, 2, 3, and the convention plain does not know 3"),
        (changed(-1), None, "plain", "does not know -1"),
        (changed(1.5), None, "plain", r"value 1\.5, and labels are whole numbers"),
        (changed(np.nan), None, "plain", "has 1 voxels that are not finite numbers"),
        (patient(), None, "brats", "brats is not a convention .* plain, mirror, lost"),
        (patient()[None].repeat(2, 0), None, "plain", r"4 dimensions, \(2, 70, 70, 70\)"),
        (patient()[0], None, "plain", "2 dimensions"),
        (patient(), SHEARED, "plain", "axes are not perpendicular"),
        (patient(), np.diag([0.0, 1, 1, 1]), "plain", "axes are not perpendicular"),
        (patient().astype(complex), None, "plain", "holds complex128"),
        (patient(), None, {"core": (1, 2), "rim": (2,)}, "2 cannot be both core and rim"),
        (patient(), None, {"core": (0, 1), "rim": (2,)}, "core is given the labels 0, 1"),
        (patient(), None, {"core": (), "rim": (2,)}, "core is given the labels none"),
        (patient(), None, {"edge": (1,)}, "edge is not a region .* core, rim"),
        (patient(), None, {"rim": (1, 2)}, "rim alone makes none .* outer is core and rim"),
        (patient(), None, {"core": (1,)}, "what was given does not know 2"),
    ],
)
def test_a_bad_file_of_labels_is_refused(
    tmp_path: Path, values: Image, affine: Image | None, labels: Any, message: str
) -> None:
    affine = oriented("RAS") if affine is None else affine
    image = nibabel.Nifti1Image(values if values.dtype != np.int64 else np.uint8(values), None)
    image.header.set_sform(affine, 1)  # an affine that Nifti1Image would not take
    nibabel.save(image, tmp_path / "image.nii")
    with pytest.raises(StudyError, match=message):
        read_labels(Scanned(), tmp_path / "image.nii", labels)


def ones(count: int = 1) -> Image:
    return patient().clip(0, count)


@pytest.mark.parametrize(
    ("inner", "outer", "message"),
    [
        (np.zeros((70, 70, 70), np.uint8), ones(), "inner.nii is empty"),
        (ones(), ones(2), "outer.nii has several values besides 0, 1, 2: .* as labels"),
        (ones(), np.int16([0, 32767, -32768])[ones(2)], "several values besides 0, -32768, 32767"),
        (ones(), ones()[:-1], r"outer.nii has another grid than .*inner.nii, \(69, 70, 70\)"),
    ],
)
def test_bad_masks_are_refused(tmp_path: Path, inner: Image, outer: Image, message: str) -> None:
    files = {
        "inner": save(tmp_path, inner, name="inner.nii"),
        "outer": save(tmp_path, outer, name="outer.nii"),
    }
    with pytest.raises(StudyError, match=message):
        read_masks(Scanned(), files)


def test_a_mask_of_the_least_whole_number_is_one(tmp_path: Path) -> None:
    """Which has no positive counterpart in its type."""
    files = {"outer": save(tmp_path, np.int8([0, -128])[ones()])}
    found = read_masks(Scanned(), files)
    np.testing.assert_array_equal(found.images["outer"], ones() > 0)


def test_masks_whose_affines_differ_are_refused(tmp_path: Path) -> None:
    files = {
        "inner": save(tmp_path, ones(), name="inner.nii"),
        "outer": save(tmp_path, ones(), oriented("LPS"), name="outer.nii"),
    }
    with pytest.raises(StudyError, match="has another grid"):
        read_masks(Scanned(), files)


def test_names_that_are_no_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"given for pet: .* inner, outer"):
        read_masks(Scanned(), {"pet": save(tmp_path, ones())})
    with pytest.raises(StudyError, match="given for nothing"):
        read_masks(Scanned(), {})


def test_a_mask_smaller_than_the_grid_can_show_is_refused(tmp_path: Path) -> None:
    values = np.zeros((70, 70, 70), np.uint8)
    values[35, 35, 35] = 1
    with pytest.raises(StudyError, match=r"inner leaves no voxel .* 3 mm: it is too small"):
        read_masks(Scanned(), {"inner": save(tmp_path, values)})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("image.nii", cut, "image.nii is damaged or cut short"),
        ("image.nii.gz", cut, "image.nii.gz is damaged or cut short"),
        ("image.nii", lambda path: path.write_bytes(b"labels"), "cannot be read as NIfTI"),
        ("image.nii.gz", lambda path: path.write_bytes(b"labels"), "cannot be read as NIfTI"),
        ("image.nii", Path.unlink, "cannot be read as NIfTI"),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (70, 70, 70)).astype(np.uint8)
    path = save(tmp_path, noise, name=name)
    damage(path)
    with pytest.raises(StudyError, match=message):
        read_labels(Scanned(), path, "plain")


def test_another_format_is_refused(tmp_path: Path) -> None:
    image = nibabel.MGHImage(patient().astype(np.int32), oriented("RAS"))
    nibabel.save(image, tmp_path / "image.mgz")
    with pytest.raises(StudyError, match="is not NIfTI"):
        read_labels(Scanned(), tmp_path / "image.mgz", "plain")


def test_an_image_without_positions_or_in_metres_is_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(patient(), None)
    nibabel.save(image, tmp_path / "image.nii")
    with pytest.raises(StudyError, match="does not say where its voxels lie"):
        read_labels(Scanned(), tmp_path / "image.nii", "plain")
    image = nibabel.Nifti1Image(patient(), oriented("RAS"))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "image.nii")
    with pytest.raises(StudyError, match="positions in metres: they have to be in mm"):
        read_labels(Scanned(), tmp_path / "image.nii", "plain")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (123, b"\xa2", None),  # a unit of time that there is not, which does not matter
        (123, b"\x07", "in a unit of the unknown number 7: they have to be in mm"),
        (43, b"\xff", "damaged or cut short"),  # a negative length
        (108, b"\x00\x00\xc0\x7f", "cannot be read as NIfTI"),  # where voxels begin: not a number
        (292, b"\xff\xff\x7f\x7f", "100% of inner lies outside"),  # a position of 1e38 mm
    ],
)
def test_a_header_that_is_wrong_is_refused_if_it_matters(
    tmp_path: Path, offset: int, value: bytes, message: str | None
) -> None:
    path = save(tmp_path, patient())
    header = bytearray(path.read_bytes())
    header[offset : offset + len(value)] = value
    path.write_bytes(header)
    if message is None:
        assert read_labels(Scanned(), path, "plain").masks
        return
    with pytest.raises(StudyError, match=message):
        read_labels(Scanned(), path, "plain")


@pytest.mark.parametrize(
    "text", ["1 0 0 0", "1 0\n0", "", "0 0 0 1\n" * 4, "1 0 0 nan\n0 1 0 0\n0 0 1 0\n0 0 0 1"]
)
def test_a_bad_affine_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "affine.txt").write_text(text)
    with pytest.raises(StudyError, match=r"affine.txt is not an affine: it has to be four rows"):
        labelled(tmp_path, affine=tmp_path / "affine.txt")


def test_an_affine_of_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "affine.txt").write_text("1 0 0 a\n" * 4)
    with pytest.raises(StudyError, match=r"affine.txt cannot be read as an affine: .*'a'"):
        labelled(tmp_path, affine=tmp_path / "affine.txt")


def test_a_space_that_is_not_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"talairach is not a space .* mirrored, own"):
        labelled(tmp_path, space="talairach")
    with pytest.raises(StudyError, match="both the space own and the affine"):
        labelled(tmp_path, space="own", affine=tmp_path / "affine.txt")


def test_a_solver_without_a_scanner_takes_no_segmentation(tmp_path: Path) -> None:
    solver = Scanned()
    solver.affine = None
    with pytest.raises(StudyError, match="does not lie in a scanner's space"):
        read_labels(solver, save(tmp_path, patient()), "plain")


def test_a_region_elsewhere_is_refused(tmp_path: Path) -> None:
    observation = labelled(tmp_path)
    affine = oriented("RAS")
    affine[0, 3] = 1e4
    path = save(tmp_path, ones(), affine, name="recurrence.nii")
    with pytest.raises(StudyError, match=r"recurrence\.nii has no voxel in the patient's"):
        read_region(observation, path)
