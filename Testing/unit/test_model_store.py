"""Bundles that the user imports: checked first, copied whole, found by name, removed again; shipped ones stay."""

import json
import zipfile

import pytest

from fake_model import SMALL_NETWORK, bundle_metadata
from LungNoduleKit.errors import BundleError, OutputError
from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.models import store as model_store
from LungNoduleUncertaintyLib.models.bundle import load_model, write_bundle
from LungNoduleUncertaintyLib.models.metadata import metadata_sha256
from LungNoduleUncertaintyLib.models.store import DEFAULT_BUNDLE, available_bundles

SHIPPED = [DEFAULT_BUNDLE, "dsnet-compact"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    monkeypatch.setenv(model_store.FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture
def bundle(tmp_path):
    options = dict(SMALL_NETWORK)
    network = networks.create(options.pop("name"), **options)
    return write_bundle(tmp_path / "source" / "small", [network.state_dict()], bundle_metadata(), "# A card\n")


def zipped(folder, path, prefix="small/"):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, prefix + file.name)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_imported_bundle_is_found_loaded_and_removed(home, bundle, tmp_path, packed):
    source = zipped(bundle, tmp_path / "small.zip") if packed else bundle
    assert model_store.import_bundle(source) == "small"
    assert available_bundles() == [*SHIPPED, "small"]
    assert load_model("small", "cpu").folder == home / "small"
    shown = model_store.summary("small")
    assert shown.removable
    assert shown.card.read_text() == "# A card\n"
    assert model_store.import_bundle(source) == "small"  # again: replaced
    model_store.remove_bundle("small")
    assert available_bundles() == SHIPPED
    assert list(home.iterdir()) == []


def test_a_damaged_or_foreign_source_leaves_nothing(home, bundle, tmp_path):
    (bundle / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(BundleError, match="corrupted or changed"):
        model_store.import_bundle(bundle)
    with pytest.raises(BundleError, match="corrupted or changed"):
        model_store.import_bundle(zipped(bundle, tmp_path / "small.zip"))
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(BundleError, match="neither a folder nor a zip archive"):
        model_store.import_bundle(tmp_path / "text.zip")
    with pytest.raises(BundleError, match="isn't a bundle"):
        model_store.import_bundle(tmp_path / "source")
    assert list(home.iterdir()) == []
    assert available_bundles() == SHIPPED


@pytest.mark.parametrize("name", ["../out", ".hidden", "", "a/b", "a\\b"])
def test_a_name_cant_lead_out_of_the_folder(home, bundle, name):
    path = bundle / "metadata.json"
    metadata = {**json.loads(path.read_text()), "name": name}
    path.write_text(json.dumps({**metadata, "sha256": metadata_sha256(metadata)}))
    with pytest.raises(BundleError, match="can't be a folder's"):
        model_store.import_bundle(bundle)


def test_archive_entries_cant_lead_out_of_the_folder(home, bundle, tmp_path):
    path = zipped(bundle, tmp_path / "small.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil.txt", "x")
        archive.writestr("small/../../evil.txt", "x")
    model_store.import_bundle(path)
    assert not list(tmp_path.rglob("evil.txt"))


def test_shipped_bundles_can_be_neither_removed_nor_replaced(home, bundle):
    with pytest.raises(BundleError, match="only imported bundles"):
        model_store.remove_bundle(DEFAULT_BUNDLE)
    path = bundle / "metadata.json"
    metadata = {**json.loads(path.read_text()), "name": DEFAULT_BUNDLE}
    path.write_text(json.dumps({**metadata, "sha256": metadata_sha256(metadata)}))
    with pytest.raises(BundleError, match="ships with the extension"):
        model_store.import_bundle(bundle)


def test_a_folder_that_cant_be_written_is_named(tmp_path, bundle, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(model_store.FOLDER_VARIABLE, str(tmp_path / "file" / "models"))
    with pytest.raises(OutputError, match="models can't be kept there"):
        model_store.import_bundle(bundle)
