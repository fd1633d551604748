"""Volume nodes become images, and results become segments, on Slicer's own MRML classes."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from LungNoduleKit.errors import ImageError, NoduleError, OutputError, PointError
from LungNoduleKit.geometry import Grid
from LungNoduleKit.segmentation_file import read_segmentation
from LungNoduleKit.terminology import NODULE_TERMINOLOGY
from LungNoduleUncertaintyLib.scene import segments
from LungNoduleUncertaintyLib.scene.runs import SegmentationRequest, SegmentationRuns
from LungNoduleUncertaintyLib.scene.segments import image_from_volume_node, point_from_mask
from LungNoduleUncertaintyLib.segments import PART_TAG, SEGMENTS

SHAPE = (36, 52, 60)
INDEX = np.array([31, 25, 17])  # voxel (i, j, k) in the nodule's middle
MOVED = np.array([4.0, -3.0, 5.0])  # mm, RAS: where the warp takes the nodule's middle


def place(matrix, index=INDEX):
    return matrix[:3, :3] @ index + matrix[:3, 3]


def nodule_volume(tools, scene, matrix, radius=7.0):
    inside = tools.ball(SHAPE, matrix, place(matrix), radius)
    ramp = np.arange(SHAPE[2])  # makes every direction of the array distinguishable
    return tools.add_volume(scene, np.where(inside, tools.TISSUE, tools.AIR + ramp).astype(np.int16), matrix)


def segmented(volume, point=None, into=None, *, near=None, name="", segment):
    """The segmentation node after one run, as the panel and scripts start it."""
    request = SegmentationRequest(volume, point, near, into, name)
    return SegmentationRuns(segment).run(request).segmentationNode


def linear_transform(scene, tools, matrix, parent=None):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Linear")
    node.SetMatrixTransformToParent(tools.matrix_of(matrix))
    if parent:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return node


def warp(scene, center):
    """A smooth non-linear transform node: a thin-plate spline that moves the center by MOVED."""
    corners = [np.array(center) + 70.0 * np.array([x, y, z]) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for point in corners:
        source.InsertNextPoint(point)
        target.InsertNextPoint(point)
    source.InsertNextPoint(center)
    target.InsertNextPoint(center + MOVED)
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    node.SetAndObserveTransformToParent(spline)
    return node


def turn(scale=(1.0, 1.0, 1.0)):
    a = np.deg2rad(35)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.diag(scale)
    matrix[:3, 3] = (12.0, -7.0, 40.0)
    return matrix


def world_of(matrix, transform, index=INDEX):
    return (transform @ matrix @ [*index, 1.0])[:3]


def test_image_has_the_nodes_voxels_where_the_node_has_them(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    image = image_from_volume_node(node)
    assert image.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), slicer.util.arrayFromVolume(node))
    for index in ([0, 0, 0], [59, 0, 0], [3, 51, 35]):
        right, anterior, superior = place(matrix, np.array(index))
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), (-right, -anterior, superior), atol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [turn(), turn((1.3, 1.0, 0.8)), turn() @ np.diag([1.0, -1.0, 1.0, 1.0]), np.eye(4) + np.eye(4, k=1) * 0.3],
    ids=["rigid", "scaled, so that axes shear", "mirrored", "shear"],
)
def test_linear_parent_becomes_geometry_and_segments_keep_the_voxels(scene, tools, matrix, transform):
    transform = transform.copy()
    transform[2, 3] = 25.0
    node = nodule_volume(tools, scene, matrix)
    outer = linear_transform(scene, tools, transform)
    inner = linear_transform(scene, tools, turn(), outer)  # nested: the product counts
    node.SetAndObserveTransformNodeID(inner.GetID())
    total = transform @ turn()
    image = image_from_volume_node(node)
    right, anterior, superior = world_of(matrix, total)
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint([int(v) for v in INDEX]), (-right, -anterior, superior), atol=1e-4
    )
    created = segmented(node, world_of(matrix, total), segment=tools.fake_segment)
    assert created.GetParentTransformNode() is inner
    inside = slicer.util.arrayFromVolume(node) == tools.TISSUE
    ids = tools.ids_by_name(created)
    np.testing.assert_array_equal(tools.segment_array(created, ids["Final"], node), inside)
    found = point_from_mask((created, ids["Final"]))
    expected = np.argwhere(inside).mean(axis=0)[::-1]
    np.testing.assert_allclose(found, world_of(matrix, total, expected), atol=1e-4)


def test_segmentation_under_another_linear_transform_lies_in_the_same_place(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    node.SetAndObserveTransformNodeID(linear_transform(scene, tools, turn()).GetID())
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    other = turn((1.0, 1.0, 1.0)) @ turn()
    segmentation.SetAndObserveTransformNodeID(linear_transform(scene, tools, other).GetID())
    returned = segmented(node, world_of(matrix, turn()), segmentation, segment=tools.fake_segment)
    assert returned is segmentation
    expected = np.argwhere(slicer.util.arrayFromVolume(node) == tools.TISSUE).mean(axis=0)[::-1]
    found = point_from_mask((segmentation, tools.ids_by_name(segmentation)["Final"]))
    np.testing.assert_allclose(found, world_of(matrix, turn(), expected), atol=1e-3)


def test_non_linear_parent_is_sampled_in_the_world_and_put_back_on_the_voxels(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    local = place(matrix)
    node.SetAndObserveTransformNodeID(warp(scene, local).GetID())
    before = tools.snapshot(scene)
    world = local + MOVED
    image = image_from_volume_node(node, around_ras=world)
    assert tools.snapshot(scene) == before
    array = sitk.GetArrayFromImage(image) > (tools.AIR + tools.TISSUE) / 2
    k, j, i = np.indices(array.shape)
    points = Grid.of(image).indices_to_points(np.stack([i, j, k], axis=-1)) * [-1, -1, 1]
    back = node.GetParentTransformNode().GetTransformToParent().GetInverse()
    near = np.linalg.norm(points - world, axis=-1) < 14
    expected = np.zeros_like(array)
    expected[near] = [np.linalg.norm(back.TransformPoint(p) - local) <= 7.0 for p in points[near]]
    assert 2 * (array & expected).sum() / (array.sum() + expected.sum()) > 0.94
    assert not (array & ~near).any()
    created = segmented(node, world, segment=tools.fake_segment)
    inside = slicer.util.arrayFromVolume(node) == tools.TISSUE
    ids = tools.ids_by_name(created)
    parts = {part: tools.segment_array(created, ids[part], node) for part in ids}
    overlap = 2 * (parts["Final"] & inside).sum() / (parts["Final"].sum() + inside.sum())
    assert overlap > 0.97
    assert not (parts["HC"] & parts["LC"]).any()
    assert not (parts["HC"] & ~parts["Final"]).any()
    assert not (parts["Final"] & ~(parts["HC"] | parts["LC"])).any()
    assert created.GetParentTransformNode() is node.GetParentTransformNode()


def test_non_linear_transform_between_volume_and_segmentation_is_refused(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    node.SetAndObserveTransformNodeID(warp(scene, place(matrix)).GetID())
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    before = tools.snapshot(scene)
    with pytest.raises(OutputError, match="non-linear transform lies between"):
        segmented(node, place(matrix) + MOVED, segmentation, segment=tools.fake_segment)
    assert tools.snapshot(scene) == before


def test_file_round_trip_keeps_names_overlap_geometry_terminology_and_tags(scene, tools, matrix, tmp_path):
    node = nodule_volume(tools, scene, matrix)
    created = segmented(node, place(matrix), segment=tools.fake_segment)
    assert created.GetSegmentation().GetNumberOfLayers() == 3
    ids = tools.ids_by_name(created)
    assert list(ids) == ["HC", "LC", "Final"]
    before = {part: tools.segment_array(created, ids[part], node) for part in ids}
    assert (before["HC"] & before["Final"]).sum() == before["HC"].sum() > 0
    path = tmp_path / "nodule.seg.nrrd"
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.WriteData(created)
    again = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Again")
    assert storage.ReadData(again)
    ids = tools.ids_by_name(again)
    assert again.GetSegmentation().GetNumberOfLayers() >= 2  # on saving, Slicer joins what doesn't overlap
    text = vtk.reference("")
    for part, color in {"HC": "0072B2", "LC": "E69F00", "Final": "009E73"}.items():
        segment = again.GetSegmentation().GetSegment(ids[part])
        np.testing.assert_array_equal(tools.segment_array(again, ids[part], node), before[part])
        assert "".join(f"{round(255 * v):02X}" for v in segment.GetColor()) == color
        tags = {}
        for key in ("TerminologyEntry", PART_TAG, "LungNoduleUncertainty.model"):
            assert segment.GetTag(key, text), key
            tags[key] = str(text)
        assert tags["TerminologyEntry"] == NODULE_TERMINOLOGY
        assert tags[PART_TAG] == part
        assert tags["LungNoduleUncertainty.model"] == "fake/model"  # a bar would end the tag in the file
    masks = read_segmentation(path)  # the library's own reader
    final = masks["Final"]
    k, j, i = np.nonzero(sitk.GetArrayViewFromImage(final))
    points = Grid.of(final).indices_to_points(np.stack([i, j, k], axis=-1)) * [-1, -1, 1]
    expected = np.argwhere(before["Final"])[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(points.mean(axis=0), expected.mean(axis=0), atol=1e-3)


def test_terminology_is_what_slicer_understands(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    created = segmented(node, place(matrix), segment=tools.fake_segment)
    entry = slicer.vtkSlicerTerminologyEntry()
    logic = slicer.vtkSlicerTerminologiesModuleLogic
    assert logic.DeserializeTerminologyEntry(NODULE_TERMINOLOGY, entry)
    assert entry.GetTypeObject().GetCodeValue() == "27925004"
    assert entry.GetRegionObject().GetCodeValue() == "39607008"
    text = vtk.reference("")
    for part in SEGMENTS:
        assert created.GetSegmentation().GetSegment(part).GetTag("TerminologyEntry", text)
        assert str(text) == NODULE_TERMINOLOGY


def test_other_segments_and_the_reference_geometry_of_others_stay_untouched(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(node)
    first = {}
    for number, offset in enumerate((0, 4)):  # two segments that share a layer
        segment_id = segmentation.GetSegmentation().AddEmptySegment(f"vessel{number}", f"vessel{number}")
        mask = np.zeros(SHAPE, np.uint8)
        mask[10 : 13 + number, 20 + offset : 24 + offset, 5:50] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment_id, node)
        first[segment_id] = mask.astype(bool)
    internal = segmentation.GetSegmentation().GetSegment("vessel0").GetRepresentation("Binary labelmap")
    bits = vtk.util.numpy_support.vtk_to_numpy(internal.GetPointData().GetScalars()).copy()
    modified = internal.GetMTime()
    other = tools.add_volume(scene, slicer.util.arrayFromVolume(node), matrix, "Follow-up")
    segmented(other, place(matrix), segmentation, segment=tools.fake_segment)
    segmented(node, place(matrix), segmentation, segment=tools.fake_segment)
    names = list(tools.ids_by_name(segmentation))
    nodules = ["HC", "LC", "Final", "Nodule 2 HC", "Nodule 2 LC", "Nodule 2 Final"]
    assert names == ["vessel0", "vessel1", *nodules]
    again = segmentation.GetSegmentation().GetSegment("vessel0").GetRepresentation("Binary labelmap")
    assert again is internal
    assert internal.GetMTime() == modified
    np.testing.assert_array_equal(vtk.util.numpy_support.vtk_to_numpy(again.GetPointData().GetScalars()), bits)
    for segment_id, mask in first.items():
        np.testing.assert_array_equal(tools.segment_array(segmentation, segment_id, node), mask)
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is node


def test_new_segmentation_refers_to_the_volume_and_stands_beside_it(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    hierarchy = scene.GetSubjectHierarchyNode()
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    hierarchy.CreateItem(patient, node)  # the application makes the item by itself
    created = segmented(node, place(matrix), name="Nodule 1", segment=tools.fake_segment)
    assert list(tools.ids_by_name(created)) == ["Nodule 1 HC", "Nodule 1 LC", "Nodule 1 Final"]
    assert created.GetNodeReference(created.GetReferenceImageGeometryReferenceRole()) is node
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(created)) == patient
    assert not created.GetDisplayNode().GetSegmentVisibility2DFill(tools.ids_by_name(created)["Nodule 1 Final"])


def test_near_a_segment_or_a_labelmap_means_its_centroid(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    inside = slicer.util.arrayFromVolume(node) == tools.TISSUE
    node.SetAndObserveTransformNodeID(warp(scene, place(matrix)).GetID())
    created = segmented(node, place(matrix) + MOVED, segment=tools.fake_segment)
    labelmap = tools.add_volume(scene, inside.astype(np.uint8), matrix, "Mask", "vtkMRMLLabelMapVolumeNode")
    labelmap.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    asked = []

    def segment(ct, point_lps, **more):
        asked.append(point_lps)
        return tools.fake_segment(ct, point_lps, **more)

    for near in ((created, tools.ids_by_name(created)["Final"]), labelmap):
        segmented(node, near=near, segment=segment)
    expected = (place(matrix) + MOVED) * [-1, -1, 1]
    assert np.linalg.norm(np.array(asked) - expected, axis=1).max() < 0.5


def failing(error):
    def segment(*args, **more):
        raise error

    return segment


@pytest.mark.parametrize("into", ["new", "existing"])
@pytest.mark.parametrize("stage", ["segment", "second segment", "reference geometry", "cancelled"])
def test_a_failure_leaves_the_scene_as_it_was(scene, tools, matrix, monkeypatch, into, stage):
    node = nodule_volume(tools, scene, matrix)
    target = None
    if into == "existing":
        target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        target.GetSegmentation().AddEmptySegment("vessel")
    before, segment, expected = tools.snapshot(scene), tools.fake_segment, NoduleError
    if stage == "segment":
        segment = failing(NoduleError("no nodule"))
    elif stage == "second segment":
        taken = []
        real = segments.new_segment

        def second_is_void(part, *rest):
            taken.append(part)
            return real(part, *rest) if len(taken) != 2 else None

        monkeypatch.setattr(segments, "new_segment", second_is_void)
        expected = AttributeError
    elif stage == "reference geometry":
        monkeypatch.setattr(segments, "set_reference_geometry", failing(OutputError("no")))
    else:
        monkeypatch.setattr(segments, "show_parts", failing(KeyboardInterrupt()))
        expected = KeyboardInterrupt
    with pytest.raises(expected):
        segmented(node, place(matrix), target, segment=segment)
    assert tools.snapshot(scene) == before


def test_bad_nodes_and_points_are_named(scene, tools, matrix):
    node = nodule_volume(tools, scene, matrix)
    before = tools.snapshot(scene)
    rgb = tools.add_volume(scene, np.zeros((*SHAPE, 3), np.uint8), matrix, "RGB", "vtkMRMLVectorVolumeNode")
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    flat = nodule_volume(tools, scene, matrix)
    squash = linear_transform(scene, tools, np.diag([1.0, 1.0, 0.0, 1.0]))
    flat.SetAndObserveTransformNodeID(squash.GetID())
    for volume, message in ((rgb, "3 values per voxel"), (empty, "no voxels"), (None, "volume"), (flat, "span no")):
        with pytest.raises(ImageError, match=message):
            segmented(volume, place(matrix), segment=tools.fake_segment)
    for point in ((1, 2), (1, 2, float("nan")), "here", 5):
        with pytest.raises(PointError):
            segmented(node, point, segment=tools.fake_segment)
    with pytest.raises(PointError, match="either a point"):
        segmented(node, segment=tools.fake_segment)
    with pytest.raises(OutputError, match="isn't a segmentation"):
        segmented(node, place(matrix), node, segment=tools.fake_segment)
    for added in (rgb, empty, flat, squash):
        scene.RemoveNode(added)
    assert tools.snapshot(scene) == before
    node.SetAndObserveTransformNodeID(warp(scene, place(matrix)).GetID())
    slice_alone = tools.add_volume(scene, np.full((1, 30, 30), tools.AIR, np.int16), matrix, "Slice")
    slice_alone.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    with pytest.raises(ImageError, match="single slice"):
        image_from_volume_node(slice_alone)
    with pytest.raises(PointError, match="outside of volume 'CT'"):
        segmented(node, (900.0, 0.0, 0.0), segment=tools.fake_segment)
