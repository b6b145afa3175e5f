"""Every case of every package, and what became of it."""

import json

LANGUAGES = ("python", "node")
NOT_PLAYED = {"result": "failed", "why": "nobody played it; see the language's log", "seconds": 0}
_COLOURS = {"passed": "32", "failed": "31", "not supported": "33"}


def plan(path, only, language):
    """What must be played: sections (one per kind of package) of topics of cases, each with a cell per language."""
    sections = json.loads(path.read_text())
    for section in sections:
        for topic in section["topics"]:
            topic["cells"] = {
                title: {
                    one: dict(NOT_PLAYED)
                    for one in LANGUAGES
                    if language in (None, one) and only.lower() in f"{section['packages'][one]} {title}".lower()
                }
                for title in topic["cases"]
            }
    return sections


def fill(sections, played, versions):
    """Puts the rows that were played into their cells. A row without a cell is a failure of its own."""
    for section in sections:
        section["versions"] = {one: versions[one][section["packages"][one]] for one in LANGUAGES}
        section["runtimes"] = {
            "python": f"Python {versions['python']['python']}",
            "node": f"Node {versions['node']['node']}",
        }
    for row in played:
        section = next((s for s in sections if s["packages"][row["language"]] == row["package"]), None)
        topic = next((t for t in section["topics"] if row["title"] in t["cells"]), None) if section else None
        if not topic:
            sections[0]["topics"].append(topic := {"topic": "Not in cases.json", "cells": {}})
            row = {**row, "result": "failed", "why": f"{row['package']} played it, but it is not in cases.json"}
        topic["cells"].setdefault(row["title"], {})[row["language"]] = row


def _cells(sections):
    for section in sections:
        for topic in section["topics"]:
            for title, cells in topic["cells"].items():
                for language, cell in cells.items():
                    yield section, topic, title, language, cell


def count(sections, result):
    return sum(cell["result"] == result for *_, cell in _cells(sections))


def rows(sections):
    """One object per case and package."""
    return [
        {
            "package": section["packages"][language],
            "version": section["versions"][language],
            "runtime": section["runtimes"][language],
            "topic": topic["topic"],
            "case": title,
            **{name: cell.get(name) for name in ("result", "why", "seconds")},
        }
        for section, topic, title, language, cell in _cells(sections)
    ]


def _heads(section):
    return [f"{section['packages'][one]} {section['versions'][one]}" for one in LANGUAGES]


def _word(cell):
    if cell is None:
        return ""
    return f"passed {cell['seconds']:6.2f} s" if cell["result"] == "passed" else cell["result"]


def _notes(sections):
    for section, _topic, title, language, cell in _cells(sections):
        if cell["result"] != "passed":
            yield cell["result"], section["packages"][language], title, cell["why"]


def text(sections, colours):
    """The table for a terminal."""
    titles = max(len(title) for _, _, title, _, _ in _cells(sections)) if any(True for _ in _cells(sections)) else 0
    width, lines = titles + 4, []

    def painted(cell):
        word = f"{_word(cell):<28}"
        return f"\x1b[{_COLOURS[cell['result']]}m{word}\x1b[0m" if colours and cell else word

    for section in sections:
        topics = [topic for topic in section["topics"] if any(topic["cells"].values())]
        if not topics:
            continue
        runtimes = "".join(f"{section['runtimes'][one]:<28}" for one in LANGUAGES)
        lines += [
            "",
            section["kind"].ljust(width) + "".join(f"{head:<28}" for head in _heads(section)),
            " " * width + runtimes,
        ]
        for topic in topics:
            lines += ["", f" {topic['topic']}"]
            for title, cells in topic["cells"].items():
                if cells:
                    lines.append(f"  {title}".ljust(width) + "".join(painted(cells.get(one)) for one in LANGUAGES))
    lines += [""] + [f"{result}: {package}, {title}: {why}" for result, package, title, why in _notes(sections)]
    return "\n".join(line.rstrip() for line in lines)


def markdown(sections):
    """The table as a document."""
    lines = ["# Conformance", "", "The simulator, driven by Microsoft's own packages."]
    for section in sections:
        heads = [f"{head} ({section['runtimes'][one]})" for head, one in zip(_heads(section), LANGUAGES)]
        for topic in section["topics"]:
            lines += [
                "",
                f"## {section['kind']}: {topic['topic']}",
                "",
                f"| case | {' | '.join(heads)} |",
                "| --- | --- | --- |",
            ]
            for title, cells in topic["cells"].items():
                words = [" ".join(_word(cells.get(one)).split()) for one in LANGUAGES]
                lines.append(f"| {title} | {' | '.join(words)} |")
    notes = [f"- {result}: `{package}`, {title}: {why}" for result, package, title, why in _notes(sections)]
    return "\n".join([*lines, *(["", "## Not passed", "", *notes] if notes else []), ""])
