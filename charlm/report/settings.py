"""The table of settings, and one setting in full, as plain values and as text."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from charlm.config.settings import SECTIONS, Setting, table
from charlm.report.tables import pairs_table, plain_table


def _typed(setting: Setting) -> str:
    """Return the flag in Markdown, and the name if that is another one."""
    differs = setting.flag and setting.flag[2:].replace("-", "_") != setting.name
    return f"`{setting.flag or setting.name}`" + (f" (`{setting.name}`)" if differs else "")


def markdown_tables() -> Iterable[str]:
    """Yield a heading and a Markdown table for each section."""
    for section in SECTIONS:
        lines = [("flag, or name for `--set`", "default", "meaning"), ("---",) * 3]
        lines += [
            (_typed(setting), setting.default_text, setting.meaning)
            for setting in table().values()
            if setting.section == section
        ]
        cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
        yield f"## [{section}]\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in cells)


def section_table(section: str) -> Table:
    """Return the settings of a section; a setting without a flag is shown by its name."""
    rows = plain_table(f"<{section}", "<default", "<meaning")
    for setting in table().values():
        if setting.section == section:
            rows.add_row(setting.flag or setting.name, setting.default_text, setting.meaning)
    return rows


def setting_facts(setting: Setting) -> dict[str, Any]:
    """Return everything about a setting as plain values."""
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    return {
        "name": setting.name,
        "section": setting.section,
        "flag": setting.flag,
        "aliases": list(setting.spec.aliases),
        "type": setting.type_text,
        "unit": setting.spec.unit or None,
        "range": setting.spec.range_text() or None,
        "choices": list(setting.spec.names()) or None,
        "default": default,
        "default_note": setting.spec.default_note or None,
        "help": setting.spec.help,
        "source": setting.spec.source or None,
        "needs": [need.describe(flag_or_name) for need in setting.needs],
    }


def flag_or_name(fact: str) -> str:
    """Return the flag of a setting, or the name of a setting without one or of another fact."""
    known = table().get(fact)
    return (known and known.flag) or fact


def setting_page(setting: Setting) -> Table:
    """Return one setting in full."""
    spec, flag = setting.spec, setting.flag or f"--set {setting.name}="
    no_flag = f" and --no-{flag[2:]}" if spec.has_no else ""
    aliases = f" (also {', '.join(spec.aliases)})" if spec.aliases else ""
    needs = [need.describe(flag_or_name) for need in setting.needs]
    facts = [
        ("setting", f"{setting.section}.{setting.name}"),
        ("flag", flag + no_flag + aliases),
        ("meaning", f"{spec.help}." + (f" {spec.source}." if spec.source else "")),
        ("value", ", ".join(spec.names()) or setting.type_text),
        ("unit", spec.unit),
        ("range", spec.range_text()),
        ("default", setting.default_text or "off"),
        ("has an effect with", "; and ".join(needs)),
    ]
    return pairs_table([fact for fact in facts if fact[1]])
