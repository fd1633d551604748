"""What a person does and sees in the nodule panel, for its tests: place a point, apply, read the list."""


def place(g, name):
    node = g.ui.pointSelector.currentNode()
    if node is None:
        node = g.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Points")
        g.ui.pointSelector.setCurrentNode(node)
    node.AddControlPointWorld(g.points[name])
    g.process_events()


def apply(g, name=None):
    """Apply as a person does it; the first run imports SciPy in the worker's thread, which can take its time."""
    if name:
        place(g, name)
    g.click(g.ui.applyButton)
    g.wait_until(lambda: not g.widget.logic.runs.busy, timeout=60)
    g.process_events()
    return g.ui.segmentationSelector.currentNode()


def cells(g):
    table = g.ui.noduleTable
    return [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]
