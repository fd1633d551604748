"""What the checks of a `.ui` file find, and that a wrong file can't be loaded."""

import re

import pytest

from small_panel import small


def test_sound_file_has_no_problems(slicer_gui, write):
    from ui_check import check_ui, parameter_names

    code = write(
        "class W:\n    def setup(self):\n        self.ui.applyButton.enabled = self.ui.threshold.value\n", "a.py"
    )
    file = write(small())
    assert check_ui(file, python_files=[code], parameters=["inputVolume", "threshold"]) == []
    assert parameter_names(file)["threshold"] == ("threshold", "ctkSliderWidget")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('class="ctkSliderWidget"', 'class="ctkSlideWidget"', "unknown class ctkSlideWidget"),
        ('name="singleStep"', 'name="stepSize"', "ctkSliderWidget has no property 'stepSize'"),
        ('name="table"', 'name="threshold"', "'threshold' is given 2 times"),
        ('<property name="toolTip"><string>Tip</string></property>', "", "applyButton: QPushButton has no tooltip"),
        ("<receiver>pointSelector", "<receiver>volumeSelector", "pointSelector: .* isn't connected to the scene"),
        ("setMRMLScene(vtkMRMLScene*)", "setScene(vtkMRMLScene*)", "has no slot"),
        ('name="applyButton"', 'name="applButton"', r"code.py:3: ui.applyButton isn't in"),
        ("<string>threshold<", "<string>treshold<", "'treshold' isn't a field"),
    ],
)
def test_problems_of_a_file_are_found(slicer_gui, write, old, new, problem):
    from ui_check import check_ui

    code = write("class W:\n    def f(self):\n        self.ui.applyButton.enabled = True\n", "code.py")
    assert old in small()
    problems = check_ui(write(small().replace(old, new)), python_files=[code], parameters=["inputVolume", "threshold"])
    assert any(re.search(problem, found) for found in problems), problems


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('class="ctkSliderWidget"', 'class="ctkSlideWidget"', "ctkSlideWidget"),
        ("setMRMLScene(vtkMRMLScene*)", "setScene(vtkMRMLScene*)", "setScene"),
        ("<signal>mrmlSceneChanged(", "<signal>sceneChanged(", "sceneChanged"),
    ],
)
def test_a_wrong_file_cannot_be_loaded(slicer_gui, write, old, new, error):
    with pytest.raises(AttributeError, match=error):
        slicer_gui.load_ui(write(small().replace(old, new)))
