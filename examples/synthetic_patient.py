"""Writes patient.nii.gz: the labels of a glioma that was simulated, for `millstream invert`.

    python examples/synthetic_patient.py

The tumour is one that no store of configs/tumor_database.yaml has, as it was after nine tenths of
its growth, seen at thresholds of 0.68 (core, label 1) and 0.15 (oedema, label 3) by a rater whose
boundaries are off by 1 mm. The image has voxels of 1 mm and turned axes, as scanners write them;
its labels are those of the convention gliodil.
"""

from pathlib import Path

import nibabel
import numpy as np

from framework.inverse.observed.space import from_grid, inverse
from framework.inverse.posterior.patients import move_boundary
from framework.study.case import Case
from framework.study.study import Study

CONFIG = Path(__file__).parent.parent / "configs" / "tumor_database.yaml"
SHAPE = (197, 233, 189)
AFFINE = np.array([[-1.0, 0, 0, 98], [0, -1, 0, 98], [0, 0, 1, -80], [0, 0, 0, 1]])


def main() -> None:
    case = Case(Study.load(CONFIG))
    solver = case.solver
    patient = case.design.held_out(2044)
    fields = list(solver.solve(patient.parameters, patient.seed))[9]
    random = np.random.default_rng(3)
    masks = []
    for name, threshold in {"t1c": 0.68, "flair": 0.15}.items():
        seen = np.asarray(solver.observe(fields, **{name: threshold})[name], dtype=bool)
        mask = move_boundary(seen, solver.grid.spacing, random)
        image = from_grid(mask.astype(float), inverse(solver.affine) @ AFFINE, SHAPE)
        masks.append(image >= 0.5)
    labels = np.where(masks[0], 1, np.where(masks[1], 3, 0)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), "patient.nii.gz")
    values = zip(solver.parameters.names, patient.parameters, strict=True)
    print("patient.nii.gz:", ", ".join(f"{name} {value:.3g}" for name, value in values))


if __name__ == "__main__":
    main()
