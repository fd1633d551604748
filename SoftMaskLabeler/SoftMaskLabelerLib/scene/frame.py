"""A volume node's voxels and the space that is computed in; RAS millimeters in the scene, LPS millimeters outside.

What is computed lies in *image space*: the world under a linear parent transform of the volume, which then becomes part
of the image's geometry, so that millimeters are the world's; the volume's own coordinates under a non-linear one.
Either way the voxels are the volume's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from LungNoduleKit.geometry import Grid
from LungNoduleKit.scene.lattices import ijk_to_ras, lattice_grid, moved_start, named, voxels_of
from LungNoduleKit.scene.transforms import Node, Step, chain, matrix_between, transform_points

from ..errors import ImageError


@dataclass
class Frame:
    """A volume node's voxels `array` (z, y, x), not copied, and where they lie: `own` is their lattice in the node's
    coordinates, `grid` their grid in image space (LPS); see the module.
    """

    volumeNode: Node
    array: np.ndarray
    own: np.ndarray
    grid: Grid
    linear: bool

    @classmethod
    def of(cls, volumeNode: Node) -> Frame:
        """Raises `ImageError` for a node that isn't a gray volume, or whose geometry spans no space."""
        array, own = voxels_of(volumeNode), ijk_to_ras(volumeNode)
        world = matrix_between(volumeNode.GetParentTransformNode(), None)
        lattice = own if world is None else world @ own
        grid = lattice_grid(lattice, array.shape[::-1], named(volumeNode))
        return cls(volumeNode, array, own, grid, world is not None)

    def index_to(self, node: Node, start: Sequence[int] | np.ndarray = (0, 0, 0)) -> tuple[Step, Step]:
        """The steps for `chain` from voxel indices, counted from `start`, to the coordinates of another node."""
        transforms = (self.volumeNode.GetParentTransformNode(), node.GetParentTransformNode())
        return moved_start(self.own, start), transforms

    def world_to_index(self, points: np.ndarray) -> np.ndarray:
        """Continuous voxel indices (n, 3) of positions (n, 3) in the world, RAS."""
        parent = self.volumeNode.GetParentTransformNode()
        return transform_points(chain((None, parent), np.linalg.inv(self.own)), points)

    def image(self, array: np.ndarray, start: Sequence[int] | np.ndarray) -> sitk.Image:
        """A SimpleITK image in image space that holds an array (z, y, x) from voxel `start` (i, j, k) on."""
        return self.grid.part(start, array.shape[::-1]).image(np.ascontiguousarray(array))

    def start_of(self, image: sitk.Image) -> np.ndarray:
        """First voxel (i, j, k) of a SimpleITK image that lies on the volume's voxels. Raises `ImageError` if not."""
        own = Grid.of(image)
        last = np.array(own.size) - 1
        start, end = self.grid.points_to_indices(np.stack([own.origin, own.indices_to_points(last)]))
        first = np.rint(start).astype(int)
        if np.abs(start - first).max() > 1e-2 or np.abs(end - first - last).max() > 1e-2:
            raise ImageError(f"{named(self.volumeNode)}: the result doesn't lie on its voxels")
        return first
