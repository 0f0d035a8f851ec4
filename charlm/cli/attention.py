"""The attention of runs that give translations, for `charlm inside`."""

from pathlib import Path

from charlm import api
from charlm.cli.output import save_text, say, write, write_document
from charlm.commands import command
from charlm.errors import UsageError

MAX_CHARS = 2_000
"""Maximum length of a text whose attention is shown, in characters."""


def show_attention(
    path: Path,
    text: str,
    *,
    html: Path | None,
    as_csv: bool,
    as_json: bool,
    theme: str,
    engine: str,
) -> None:
    """Write the translation of a text and what each of its tokens looks at.

    Without a terminal that has colours, the result is a table with tabs.
    """
    from rich.console import Console

    from charlm.report.attention import attention_grid, attention_rows

    if len(text) > MAX_CHARS:
        raise UsageError(
            f"the text has {len(text):,} characters; expected at most {MAX_CHARS:,}, since a row "
            f"is shown for each of its tokens. Give a part of it, or use: "
            f"{command('predict', '--file', 'FILE', run=path)}"
        )
    model = api.task_api.open_task(path, engine=engine)
    say(f"engine {model.run.engine}", level=2)
    answers = model.as_read(text)
    if not answers:
        raise UsageError("the text has no words; expected some to translate")
    answer = answers[0]
    if html:
        from charlm.report.page.attention import attention_html

        save_text(html, attention_html(path.name, text, answer))
    console = Console()
    system = console.color_system
    if as_json:
        from charlm.report.translation_predictions import TranslationPredictions

        content = TranslationPredictions().json(answer)
        write_document({"run": path.name, "text": text, **content})
    elif as_csv:
        write("".join(attention_rows(answer, ",")))
    elif html:
        return
    elif not console.is_terminal or console.no_color or system is None:
        write("".join(attention_rows(answer, "\t")))
    else:
        console.print(attention_grid(answer, console.width, theme, system), soft_wrap=True)
