"""The one page: headline, what wasn't run, every experiment, the measures' meaning, the conditions of every run."""

import base64
import struct

from .figures.drawn import DPI
from .markup import document, escape, tag
from .measures import DSNET_MEASURES, MULTI_READER, PAPER_MEASURES, ife_measures

__all__ = ["render"]

TITLE = "Experiments: what was run and what it shows"
#: CSS pixels in an inch: figures keep their size in inches on the page.
CSS_DPI = 96


def render(facts, gaps, commands, sections, conditions, pictures: dict) -> str:
    """The whole page as HTML text; everything in it is inline.

    facts: (term, text) pairs; gaps: Table or None; commands: (what, command) pairs; sections: of `content.Section`;
    conditions: Table; pictures: {file stem: PNG bytes}.
    """
    contents = [("overview", "What was run"), ("missing", "What was not run")]
    contents += [(f"experiment-{s.name}", s.title) for s in sections]
    contents += [("measures", "What the measures mean"), ("conditions", "Conditions of every run")]
    links = "".join(tag("li", tag("a", escape(text), href=f"#{anchor}")) for anchor, text in contents)
    parts = [
        tag("h1", escape(TITLE)),
        tag(
            "p",
            "Every number is of nodules that the network was not trained on. Numbers headed “here” were measured in "
            "these runs; numbers headed “paper” are quoted from the publications and never mixed with them.",
            **{"class": "lead"},
        ),
        tag("nav", tag("b", "Contents") + tag("ol", links), **{"aria-label": "Contents"}),
        _overview(facts, sections),
        _missing(gaps, commands),
        *(_experiment(section, pictures) for section in sections),
        _measures(),
        _heading("conditions", "Conditions of every run") + _with_link(conditions),
    ]
    return document(TITLE, tag("main", "\n".join(parts)))


def _heading(anchor: str, text: str) -> str:
    return tag("h2", escape(text), id=anchor)


def _with_link(table) -> str:
    return table.html(f"tables/{table.name}.csv")


def _overview(facts, sections) -> str:
    pairs = "".join(tag("dt", escape(term)) + tag("dd", escape(text)) for term, text in facts)
    findings = [
        tag(
            "li", tag("b", tag("a", escape(section.title), href=f"#experiment-{section.name}")) + " " + escape(sentence)
        )
        for section in sections
        for sentence in section.sentences
    ]
    outcome = tag("h3", "In short") + tag("ul", "".join(findings)) if findings else ""
    files = (
        "Beside this page: every figure as PNG and SVG in figures, every table unrounded in tables, each nodule's "
        "scores in data, and all numbers in report.json."
    )
    return "\n".join(
        [
            _heading("overview", "What was run"),
            tag("dl", pairs, **{"class": "facts"}),
            outcome,
            tag("p", escape(files), **{"class": "source"}),
        ]
    )


def _missing(gaps, commands) -> str:
    parts = [_heading("missing", "What was not run")]
    if gaps is not None:
        parts.append(_with_link(gaps))
    else:
        parts.append(tag("p", "Every job of the folds that the experiments were started for has finished."))
    if commands:
        parts.append(tag("p", "The rest, by the commands below (DATA is the data folder); finished jobs are kept."))
    for what, command in commands:
        parts.append(tag("p", escape(what)) + tag("pre", tag("code", escape(command))))
    return "\n".join(parts)


def _experiment(section, pictures) -> str:
    parts = [_heading(f"experiment-{section.name}", section.title)]
    if section.source:
        parts.append(tag("p", escape(section.source), **{"class": "source"}))
    if section.notes:
        parts.append(tag("p", escape(section.notes)))
    if section.sentences:
        parts.append(tag("ul", "".join(tag("li", escape(s)) for s in section.sentences)))
    parts += [tag("p", escape(problem), **{"class": "warning"}) for problem in section.problems]
    parts += [_figure(section, drawn, pictures[f"{section.name}-{drawn.name}"]) for drawn in section.drawn]
    parts += [_with_link(table) for table in section.tables]
    return "\n".join(parts)


def _figure(section, drawn, png: bytes) -> str:
    width, height = struct.unpack(">II", png[16:24])  # of the PNG's header chunk
    stem = f"{section.name}-{drawn.name}"
    image = tag(
        "img",
        src="data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        alt=f"{drawn.title}. The caption below says what is shown.",
        width=round(width * CSS_DPI / DPI),
        height=round(height * CSS_DPI / DPI),
    )
    files = " ".join(tag("a", kind.upper(), href=f"figures/{stem}.{kind}") for kind in ("png", "svg"))
    caption = tag("b", escape(drawn.title)) + escape(drawn.caption) + " " + files
    return tag("figure", image + tag("figcaption", caption), id=f"figure-{stem}")


def _measures() -> str:
    pairs = [
        tag("dt", escape(m.label)) + tag("dd", escape(m.meaning))
        for m in (*PAPER_MEASURES, *DSNET_MEASURES[1:], *(i for i in ife_measures() if i.label != "DSC"), *MULTI_READER)
    ]
    words = (
        "All are computed on one slice a nodule, on the network's grid, with maps cut at 0.5. HC: what every reader "
        "includes; LC: what some include. The consensus of an even number of readers includes ties. “One reader "
        "against the others”: DSC, IoU and NSD of the later readers against the first one, or of each reader against "
        "the consensus of the others; measures without a fair equivalent are left empty."
    )
    return "\n".join(
        [
            _heading("measures", "What the measures mean"),
            tag("p", escape(words)),
            tag("dl", "".join(pairs), **{"class": "facts"}),
        ]
    )
