"""A stand-in for Slicer's module SampleData: what it checks when a sample is registered, and what its buttons do.

As in Slicer, every field of a source is a list with an entry for each file; a text or None stands for one file where
`uris` is a text, and `uris=None` fails, since its length is asked for. A source is loaded by a click on its button,
which calls its own downloader, or by name from the console, which does not.
"""

from pathlib import Path

import slicer

_FIELDS = ("fileNames", "nodeNames", "loadFiles", "loadFileTypes", "checksums")


class SampleDataSource:
    """One sample; `uris` and the other fields are lists of one length."""

    def __init__(self, sampleName, uris, customDownloader=None, thumbnailFileName=None, **fields):
        self.sampleName = self.sampleDescription = sampleName
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        if isinstance(uris, str):
            uris = [uris]
            fields = {name: [fields[name]] for name in _FIELDS}
        elif isinstance(uris, (list, tuple)):
            for name in ("nodeNames", "loadFiles", "checksums"):
                fields[name] = [None] * len(uris) if fields[name] is None else fields[name]
            if fields["loadFileTypes"] is None or isinstance(fields["loadFileTypes"], str):
                fields["loadFileTypes"] = [fields["loadFileTypes"]] * len(uris)
        self.uris = uris
        vars(self).update(fields)
        lengths = {len(self.uris), *(len(fields[name]) for name in _FIELDS)}
        if len(lengths) > 1:
            raise ValueError(f"All fields of sample data source must have the same length: {lengths}")

    def __eq__(self, other):
        return vars(self) == vars(other)

    __hash__ = None


class SampleDataLogic:
    """Keeps the sources in `slicer.modules.sampleDataSources` {category: [source]}."""

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
    ):
        sources = slicer.modules.__dict__.setdefault("sampleDataSources", {}).setdefault(category, [])
        source = SampleDataSource(
            sampleName,
            uris,
            customDownloader,
            thumbnailFileName,
            fileNames=fileNames,
            nodeNames=nodeNames,
            loadFiles=loadFiles,
            loadFileTypes=loadFileTypes,
            checksums=checksums,
        )
        if source not in sources:
            sources.append(source)

    def sourceForSampleName(self, name):
        every = [source for sources in slicer.modules.sampleDataSources.values() for source in sources]
        return next((source for source in every if source.sampleName == name), None)

    def downloadFromSource(self, source):
        """Each file is downloaded; the source's own downloader isn't asked."""
        for uri in source.uris:
            raise ConnectionError(f"{uri!r} would be downloaded")
        return []


def click(name):
    """What a click on a sample's button does; its thumbnail must be there."""
    source = SampleDataLogic().sourceForSampleName(name)
    assert Path(source.thumbnailFileName).is_file()
    if source.customDownloader is None:
        return SampleDataLogic().downloadFromSource(source)
    return source.customDownloader(source)
