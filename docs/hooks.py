"""What mkdocs does beside turning Markdown into pages: generated parts, links, pictures."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from comigs.config.settings import RunConfig
from comigs.methods import all_methods
from comigs.schema.fields import Setting, settings_of

ROOT = Path(__file__).parent.parent
SOURCE = re.compile(r"(?<!!)\[([^\]]+)\]\((?:\.\./)+[^)]+\)")  # a link to a file of the checkout
PICTURE = re.compile(r"!\[([^\]]*)\]\(\.\./([^)]+)\)")
PART = "<!-- generated: {} -->"


def on_files(files: Files, config: Any) -> Files:
    """Pictures of results are part of the site."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    for _, path in PICTURE.findall(pages):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what comes from the code; files of the checkout are named, not linked."""
    markdown = PICTURE.sub(r"![\1](\2)", markdown)
    markdown = SOURCE.sub(r"`\1`", markdown)
    for name, made in (("settings", settings_tables), ("methods", method_notes)):
        if (part := PART.format(name)) in markdown:
            markdown = markdown.replace(part, made())
    return markdown


def settings_tables() -> str:
    """A table for each section of the configuration."""
    sections: dict[str, list[Setting]] = {}
    for setting in settings_of(RunConfig):
        section, dot, _ = setting.key.partition(".")
        sections.setdefault(section if dot else "the run", []).append(setting)
    parts = []
    for section, settings in sections.items():
        rows = [
            f"| `{s.key}` | `{_cell(s.default)}` | {_cell(s.text)} <br> *{_cell(s.kind)}* |"
            for s in settings
        ]
        head = [f"## {section}", "", "| setting | default | what it means |", "|---|---|---|"]
        parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts)


def method_notes() -> str:
    """A section for each method: what its file says."""
    parts = []
    for name, method in all_methods().items():
        module = __import__(f"comigs.methods.{name.replace('-', '_')}", fromlist=["METHOD"])
        text = (module.__doc__ or "").strip()
        about = f"Paper: {method.paper}. Rule: `{method.aggregator}`. In `comigs methods`: "
        parts.append(f"### {name}\n\n{text}\n\n{about}{method.summary}.")
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
