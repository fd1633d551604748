"""The text of a small `.ui` file as Designer would write it, for the tests of the stand-ins."""

TIP = '<property name="toolTip"><string>Tip</string></property>'
ROW = '<item><widget class="{kind}" name="{name}">' + TIP + "{more}{parameter}</widget></item>"
PARAMETER = '<property name="SlicerParameterName" stdset="0"><string>{}</string></property>'
CONNECTION = (
    "<connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>{}</receiver>"
    "<slot>setMRMLScene(vtkMRMLScene*)</slot></connection>"
)
NUMBER = '<property name="{}"><double>{}</double></property>'
BOUNDS = NUMBER.format("maximum", 1.0) + NUMBER.format("singleStep", 0.01)


def row(kind, name, more="", parameter=""):
    return ROW.format(kind=kind, name=name, more=more, parameter=parameter and PARAMETER.format(parameter))


def panel(rows="", connections="", advanced=""):
    return f"""<?xml version="1.0" encoding="UTF-8"?><ui version="4.0"><class>Panel</class>
    <widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="column">{rows}
    <item><widget class="ctkCollapsibleButton" name="advanced">
    <property name="text"><string>Advanced</string></property>
    <property name="collapsed"><bool>true</bool></property><layout class="QFormLayout" name="form">{advanced}</layout>
    </widget></item></layout></widget><resources/><connections>{connections}</connections></ui>"""


def small(**more):
    scalar = "<string>vtkMRMLScalarVolumeNode</string>"
    types_ = f'<property name="nodeTypes"><stringlist>{scalar}</stringlist></property>'
    rows = row("qMRMLNodeComboBox", "volumeSelector", types_, "inputVolume")
    rows += row("qSlicerSimpleMarkupsWidget", "pointSelector") + row("qMRMLSegmentSelectorWidget", "segmentSelector")
    rows += row("QPushButton", "applyButton", '<property name="text"><string>Apply</string></property>')
    rows += row("QTableWidget", "table")
    field = row("ctkSliderWidget", "threshold", BOUNDS, "threshold").replace("<item>", '<item row="0" column="0">')
    names = ("volumeSelector", "pointSelector", "segmentSelector")
    return panel(rows, "".join(map(CONNECTION.format, names)), field, **more)
