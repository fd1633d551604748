"""What the documentation site takes from the code and the repository while it is built (an mkdocs hook).

A page asks for generated text with a comment, `<!-- generated: NAME ARGUMENTS -->`; NAME is a function in `GENERATORS`.
Links that lead out of `docs/` work on GitHub as they are; on the site pictures and shared pages are brought along, and
other files of the repository become links to it. A link to a file that doesn't exist fails the strict build.
"""

import argparse
import ast
import dataclasses
import importlib
import inspect
import io
import json
import logging
import os
import posixpath
import re
import sys
import tokenize
import types
import typing
from itertools import count, takewhile
from pathlib import Path
from unittest import mock

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("", "LungNoduleUncertainty", "SoftMaskLabeler")]
os.environ["COLUMNS"] = "90"  # width of the usage lines

# Files from outside of docs/ that are pages or pictures of the site: path in the repository -> path on the site.
SHARED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "Resources/results/README.md": "explanation/studies.md",
}
PICTURES = [p.relative_to(ROOT).as_posix() for p in (ROOT / "Resources").rglob("*.png")]
SHARED |= {path: path.replace("Resources", "pictures", 1) for path in PICTURES}
_LOG = logging.getLogger("mkdocs.hooks.docs")


def on_files(files, config):
    """Adds the shared files to the site."""
    for path, uri in SHARED.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fills in generated text, then rewrites links out of docs/."""
    markdown = re.sub(r"<!-- generated: (\w+) ?(.*?) -->", lambda m: GENERATORS[m[1]](*m[2].split()), markdown)
    source = next((path for path, uri in SHARED.items() if uri == page.file.src_uri), f"docs/{page.file.src_uri}")
    prose_and_code = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    for number in range(0, len(prose_and_code), 2):
        prose_and_code[number] = re.sub(
            r'(\]\(|src=")([^)\s"#]+)',
            lambda m: m[1] + _target(m[2], source, page.file.src_uri if m[1] == "](" else page.url + "index", config),
            prose_and_code[number],
        )
    return "".join(prose_and_code)


def _target(link, source, uri, config):
    """Where a link in the repository's file `source`, which is the site's page `uri`, leads on the site."""
    if ":" in link or link.startswith("/"):
        return link
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if path in SHARED:
        path = f"docs/{SHARED[path]}"
    if path.startswith("docs/"):
        return posixpath.relpath(path.removeprefix("docs/"), posixpath.dirname(uri) or ".")
    if not (ROOT / path).exists():
        _LOG.warning(f"{source}: the link {link} leads to no file of the repository")
    return f"{config['repo_url']}/blob/main/{path}"


def _text(text):
    """Plain text, with `code` in it, as Markdown within a table's cell or a paragraph."""
    parts = " ".join(str(text).split()).split("`")
    parts[::2] = [re.sub(r"([*_\[\]])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _fence(text, language=""):
    return f"```{language}\n{text.strip()}\n```\n"


def _first_sentence(documentation):
    paragraph = (inspect.cleandoc(documentation or "").split("\n\n") or [""])[0]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()))[0]


# Command line -----------------------------------------------------------------------------------------------------


def parser_of(module, *arguments):
    """The argparse parser with which `python -m MODULE ARGUMENTS` reads its command line."""

    class Found(Exception):
        pass

    def stop(self, *_, **__):
        raise Found(self)

    program = importlib.import_module(f"{module}.__main__")
    if hasattr(program, "make_parser"):
        return program.make_parser()
    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            program.main(list(arguments))
        except Found as found:
            return found.args[0]
    raise LookupError(f"python -m {module} parses no arguments")


def _invocation(action):
    words = action.metavar if action.metavar is not None else action.dest.upper()
    if action.choices and action.metavar is None:
        words = "{" + ",".join(map(str, action.choices)) + "}"
    if action.nargs == 0:
        values = ""
    elif isinstance(words, tuple):
        values = " ".join(words)
    elif isinstance(action.nargs, int):
        values = " ".join([words] * action.nargs) if action.nargs < 4 else f"{words} x {action.nargs}"
    else:
        values = {"+": f"{words} [{words} ...]", "*": f"[{words} ...]", "?": f"[{words}]"}.get(action.nargs, words)
    if not action.option_strings:
        return f"`{values}`"
    return f"`{', '.join(action.option_strings)}{' ' + values if values else ''}`"


def _command(parser, level):
    lines = [f"{'#' * level} {parser.prog}\n"]
    if parser.description:
        lines.append(_fence(parser.description) if "\n" in parser.description else _text(parser.description) + "\n")
    lines.append(_fence(parser.format_usage()))
    commands = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
    options = [a for a in parser._actions if a.dest != "help" and a is not commands and a.help != argparse.SUPPRESS]
    if options:
        rows = [[_invocation(a), _text((a.help or "") % {**vars(a), "prog": parser.prog})] for a in options]
        lines.append(_table(["argument", "meaning"], rows))
    if parser.epilog:
        lines.append(_fence(parser.epilog))
    for name, command in commands.choices.items() if commands else ():
        lines.append(_command(command, level + 1).replace(f"# {command.prog}\n", f"# {name}\n", 1))
    return "\n".join(lines)


def command(module, *arguments):
    """Every option of `python -m MODULE ARGUMENTS` and of its commands, from the parsers."""
    return _command(parser_of(module, *arguments), 3 if arguments else 2)


# Records ----------------------------------------------------------------------------------------------------------


def field_notes(cls):
    """What the source says about each field of a dataclass: the comment behind it or above it, its own docstring, or
    the class's docstring, where it goes on with `name: ...`.
    """
    notes = {}
    for base in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        notes |= _docstring_notes(base)[1] | _own_notes(base)
    return notes


def _own_notes(cls):
    """What stands beside the fields in the class's own source."""
    source = inspect.cleandoc("\n" + inspect.getsource(cls))
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = re.sub(r"^#:?\s*", "", token.string)
            if token.line[: token.start[1]].strip() == "":
                alone.add(token.start[0])
    body, notes = ast.parse(source).body[0].body, {}
    for number, statement in enumerate(body):
        if not isinstance(statement, ast.AnnAssign):
            continue
        own = range(statement.lineno, statement.end_lineno + 1)
        found = [line for line in own if line in comments and line not in alone]
        if found:  # the comment may go on below the field
            found += takewhile(alone.__contains__, count(statement.end_lineno + 1))
        else:
            found = list(takewhile(alone.__contains__, count(statement.lineno - 1, -1)))[::-1]
        alone -= set(found)
        after = body[number + 1] if number + 1 < len(body) else None
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            notes[statement.target.id] = str(after.value.value)
        elif found:
            notes[statement.target.id] = " ".join(comments[line] for line in found)
    return notes


def _docstring_notes(cls):
    """(the docstring before its first `name: ...`, {name: what follows}) of a dataclass."""
    names = "|".join(item.name for item in dataclasses.fields(cls) if item.init)
    text = " ".join(inspect.cleandoc(cls.__doc__ or "").split())
    head, *rest = re.split(rf"(?<!\S)((?:{names})(?:, (?:{names}))*): ", text)
    found = zip(rest[::2], rest[1::2], strict=True)
    notes = {name: note.rstrip(";") for names, note in found for name in names.split(", ")}
    return head, {name: note[:1].upper() + note[1:] for name, note in notes.items()}


def _kind(hint):
    """A type hint in the words of TOML and JSON."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(argument) for argument in arguments if argument is not type(None))
    if origin is typing.Literal:
        return " or ".join(f'`"{argument}"`' for argument in arguments)
    if origin in (list, tuple):
        return "list of " + " or ".join(dict.fromkeys(_kind(argument) for argument in arguments if argument is not ...))
    if dataclasses.is_dataclass(hint) or dict in (hint, origin):
        return "table"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(hint, "any")


def _default(item):
    value = item.default
    if value is dataclasses.MISSING and item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value == {} or dataclasses.is_dataclass(value):
        return ""
    return f"`{json.dumps(value)}`"


def record(name):
    """Tables of the fields of the dataclass MODULE:CLASS and of the dataclasses in it: type, default, meaning."""
    module, _, attribute = name.partition(":")
    cls = getattr(importlib.import_module(module), attribute, None)
    if cls is None:
        _LOG.warning(f"a page asks for the record {name}, which doesn't exist")
        return ""
    return "\n".join(_record(cls, ""))


def _record(cls, path):
    hints, notes, rows, nested = typing.get_type_hints(cls), field_notes(cls), [], []
    for item in (f for f in dataclasses.fields(cls) if f.init):
        hint, note = hints[item.name], notes.get(item.name, "")
        # A field that takes all keys without one of their own (see LungNoduleKit.records).
        key = "any other key" if item.metadata.get("rest") else f"`{item.name}`"
        inner = next((a for a in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(a)), None)
        place = f"{path}.{item.name}".lstrip(".")
        kind = _kind(hint) if inner is None else f"[{_kind(hint)}](#{place.replace('.', '-')})"
        rows.append([key, kind, _default(item), _text(note)])
        nested += [] if inner is None else _record(inner, place)
    head = [f"### {path} {{: #{path.replace('.', '-')} }}\n"] if path else []
    return [*head, _text(_docstring_notes(cls)[0]) + "\n", _table(["key", "type", "default", "meaning"], rows), *nested]


# Registries -------------------------------------------------------------------------------------------------------


def networks():
    """The registry of networks: name, class, what it is, presets, source."""
    from LungNoduleUncertaintyLib import networks as registry

    classes = {name: registry.network_class(name) for name in registry.available()}
    modules = [cls.__module__ for cls in classes.values()]
    rows = []
    for name, cls in classes.items():
        head, *paragraphs = inspect.cleandoc(sys.modules[cls.__module__].__doc__).split("\n\n")
        if modules.count(cls.__module__) > 1:
            head += " " + _first_sentence(cls.__doc__)
        sources = [re.sub(r"^Sources?:\s*", "", p) for p in paragraphs if re.match("Sources?:", p)]
        presets = ", ".join(f"`{preset}`" for preset in registry.presets(name) if preset != "default")
        parameters = next(iter(getattr(cls, "PARAMETERS", {}).values()), None)
        size = f"{parameters / 1e6:.1f}" if parameters else ""
        rows.append([f"`{name}`", _text(head), size, presets, _text(" ".join(sources))])
    return _table(["name", "what it is", "million parameters", "presets beside `default`", "source"], rows)


def metrics():
    """The list of metrics."""
    listed = importlib.import_module("Training.metrics.catalog").METRICS
    better = {1: "larger", -1: "smaller", 0: ""}
    rows = [
        [f"`{m.name}`", _text(m.label), _text(m.meaning), _text(m.unit), better[m.direction], _text(m.source)]
        for m in listed
    ]
    return _table(["column", "label", "meaning", "unit", "better", "source"], rows)


def kinds():
    """The kinds of experiments."""
    listed = importlib.import_module("Training.experiments.kinds").KINDS.values()
    return _table(["kind", "what the report shows"], [[f"`{kind.name}`", _text(kind.shows)] for kind in listed])


def _toml_rows(folder):
    for path in sorted((ROOT / folder).glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        comment = re.match(r"(?:#.*\n)+", text)
        yield path, text, re.sub(r"^# ?", "", comment[0], flags=re.MULTILINE) if comment else ""


def configurations(folder):
    """The shipped training configurations, each with the comment at its head."""
    rows = [
        [f"[`{path.stem}`]({os.path.relpath(path, ROOT / 'docs/reference')})", _text(comment)]
        for path, _, comment in _toml_rows(folder)
    ]
    return _table(["name", "what it is"], rows)


def experiments(folder):
    """The shipped experiments: name, title, source and kind."""
    rows = []
    for path, text, _ in _toml_rows(folder):
        given = dict(re.findall(r'^(title|source|kind) = "(.*)"$', text, re.MULTILINE))
        if "kind" in given:
            link = os.path.relpath(path, ROOT / "docs/reference")
            rows.append([f"[`{path.stem}`]({link})", *(_text(given.get(k, "")) for k in ("title", "source", "kind"))])
    return _table(["name", "title", "source", "kind"], rows)


def file(path):
    """A file of the repository as it is."""
    target = ROOT / path
    return f"[`{path}`](../../{path}):\n\n" + _fence(target.read_text(encoding="utf-8"), target.suffix[1:])


def metadata(bundle):
    """The metadata of a shipped bundle, without what is long."""
    path = ROOT / "LungNoduleUncertainty/Resources/Models" / bundle / "metadata.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in ("training", "figures"):
        content[key] = "..."
    text = json.dumps(content, indent=2)
    return _fence(re.sub(r"\[[^\[\]{}]*\]", lambda m: " ".join(m[0].split()), text), "json")


# Docstrings -------------------------------------------------------------------------------------------------------


def objects(module, *names):
    """Directives for mkdocstrings: the objects of a module that are named, or all that it exports or defines."""
    imported = importlib.import_module(module)
    if not names:
        own = (name for name, value in vars(imported).items() if getattr(value, "__module__", None) == module)
        names = getattr(imported, "__all__", None) or [name for name in own if not name.startswith("_")]
    found = [getattr(imported, name) for name in names]
    if not module.endswith("errors"):  # where they have a section of their own
        found = [item for item in found if not (isinstance(item, type) and issubclass(item, Exception))]
    return "\n".join(f"::: {item.__module__}.{item.__qualname__}\n" for item in found)


def docstring(module):
    """A module's docstring."""
    head, _, rest = inspect.cleandoc(importlib.import_module(module).__doc__).partition("\n\n")
    return f"{head}\n\n{rest}\n"


GENERATORS = {
    function.__name__: function
    for function in (
        *(command, record, objects, docstring, file, metadata),
        *(networks, metrics, configurations, experiments, kinds),
    )
}
