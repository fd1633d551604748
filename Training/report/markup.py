"""The few HTML pieces that the page is made of. Text is escaped by `escape`; `tag` takes markup that already is."""

import html

__all__ = ["STYLE", "VOID", "document", "escape", "tag"]

#: Elements without an end tag.
VOID = frozenset({"meta", "img", "br", "link", "hr", "col"})

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5a6573; --line: #d9dee5; --tint: #f5f7fa; --accent: #0b5cad; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p, li { max-width: 46rem; }
.lead, .source { color: var(--soft); margin-top: 0; }
a { color: var(--accent); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
nav { background: var(--tint); border-radius: 8px; padding: .7rem 1.2rem; margin: 1.4rem 0; }
nav ol { margin: .2rem 0; padding-left: 1.3rem; columns: 2 20rem; }
nav li { break-inside: avoid; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.4rem; margin: 1rem 0; }
dl.facts dt { color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 1rem 0 1.6rem; }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .5rem; color: var(--soft); max-width: 60rem; }
caption b { color: var(--ink); display: block; font-size: .95rem; }
th, td { padding: .34rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; border-bottom: 1px solid #8b96a5; font-weight: 600; }
thead th.group { text-align: center; border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; min-width: 11rem; }
.number { text-align: right; white-space: nowrap; }
thead th.number { white-space: normal; min-width: 4.2rem; max-width: 8rem; }
td small, th small { display: block; color: var(--soft); font-weight: 400; font-size: .74rem; white-space: normal; }
.paper { color: var(--soft); background: var(--tint); }
td.absent { color: #8b96a5; }
tr.human th, tr.human td { background: #fdf6e6; }
tr.reference th::after { content: " (reference)"; color: var(--soft); font-weight: 400; }
tr.start th, tr.start td { border-top: 2px solid #8b96a5; }
figure { margin: 1.4rem 0 2rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 60rem; margin-top: .4rem; }
figcaption b { color: var(--ink); display: block; }
pre { background: var(--tint); padding: .6rem .9rem; border-radius: 6px; font-size: .84rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); }
.warning { border-left: 4px solid #b35900; background: #fdf3ea; padding: .5rem .9rem; max-width: 60rem; }
@media (max-width: 40rem) { dl.facts { grid-template-columns: 1fr; } dl.facts dd { margin-bottom: .5rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  td small, th small { font-size: 6.5pt; }
  tbody th { min-width: 0; }
  figure img { max-height: 21cm; width: auto; }
  details::details-content { content-visibility: visible; }
  th, td { padding: .15rem .3rem; }
  h2, h3 { break-after: avoid; }
  tr, figure { break-inside: avoid; }
}
"""


def escape(text) -> str:
    """Text for element content and attributes."""
    return html.escape(str(text), quote=True)


def tag(name: str, inner: str = "", /, **attributes) -> str:
    """An element around ``inner`` (markup); attributes that are None are left out, values are escaped."""
    given = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items() if value is not None)
    return f"<{name}{given}>" if name in VOID else f"<{name}{given}>{inner}</{name}>"


def document(title: str, body: str) -> str:
    """A whole page; nothing in it is loaded from elsewhere."""
    head = (
        tag("meta", charset="utf-8")
        + tag("meta", name="viewport", content="width=device-width, initial-scale=1")
        + tag("title", escape(title))
        + tag("style", STYLE)
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n{tag("head", head)}\n{tag("body", body)}\n</html>\n'
