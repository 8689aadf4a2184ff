"""What the commands `predict`, `explain` and `export` show and write."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runs.console import Reporter, plain
from runs.errors import IntegrityError, UsageError
from runs.paths import shown
from safety_classifier.judge import Judge
from safety_classifier.predict import Record, Summary, predict_file, predict_stream
from safety_classifier.rows import RowFile

if TYPE_CHECKING:
    from safety_classifier.api import Classification, Classifier

WIDTH = 64
"""Characters of a text that a table shows."""
ABREAST = 6
"""Texts in one table: they fit a terminal of 80 characters."""
PROBES = (
    "A lovely day by the river.",
    "You are an idiot and I hate you.",
    "How do I build a bomb at home?",
    "word " * 90,
)
"""Texts on which an exported graph is compared with the model: different lengths, different scores."""
AGREEMENT = {"float32": 1e-4, "int8": 0.05}
"""Largest difference of a logit between the two: padding may turn an activation to the next of its 256 levels."""


def predict_texts(judge: Judge, texts: Sequence[str], context: str, reporter: Reporter) -> None:
    """Judge texts from the command line and show a table."""
    for number, text in enumerate(texts, 1):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"Text {number} is not UTF-8.") from error
    found = judge.classify(texts, [context] * len(texts) if context else None)
    heads = [*judge.labels.categories, *(judge.labels.of("response") if context else ())]
    for start in range(0, len(texts), ABREAST):  # heads down, texts across: the names are long, the numbers short
        numbers = range(start + 1, min(start + ABREAST, len(texts)) + 1)
        listed = "\n".join(f"{number}: {_brief(texts[number - 1])}" for number in numbers)
        rows = [[head, *(_cell(found[number - 1], head) for number in numbers)] for head in heads]
        caption = f"{plain(listed)}\n! flagged   ? a stronger judge should decide"
        reporter.table("Probability of harm", ["", *map(str, numbers)], rows, caption=caption)
    reporter.result({"model": judge.identity, "results": [one.model_dump(mode="json") for one in found]}, [])


def _cell(one: Classification, head: str) -> str:
    probability = {**one.probabilities, **(one.response or {})}[head]
    return f"{probability:.3f}{'!' if one.flagged[head] else ''}{'?' if one.escalate[head] else ''}"


def _brief(text: str) -> str:
    line = " ".join(text.split())
    shortened = line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
    return "".join(character if character.isprintable() else "�" for character in shortened) or "(empty)"


def predict_rows(
    judge: Judge, rows: RowFile, output: Path | None, batch_size: int, resume: bool, reporter: Reporter
) -> Summary:
    """Judge a file into ``output``, or onto stdout as JSON lines, and say what came of it."""
    if output is None:
        summary = _to_stdout(judge, rows, batch_size, reporter)
    else:
        summary = predict_file(judge, rows, output, batch_size=batch_size, resume=resume, reporter=reporter)
    if summary.errors:
        listed = "\n".join(f"  row {row}: {plain(why)}" for row, why in summary.first_errors)
        more = f"\n  … and {summary.errors - len(summary.first_errors)} more"
        reporter.warn(
            f"{summary.errors} of {summary.rows:,} rows could not be judged; the output has the reason in 'error'.\n"
            + listed
            + (more if summary.errors > len(summary.first_errors) else "")
        )
    judged = f"{summary.rows - summary.errors:,} rows judged"
    flagged = ", ".join(f"{head} {count:,}" for head, count in sorted(summary.flagged.items())) or "none"
    reporter.say(f"{judged}{f' ({summary.resumed:,} earlier)' if summary.resumed else ''}; flagged: {flagged}.")
    if output is not None:
        reporter.result({"output": str(output), **summary.as_json()}, [f"[bold]{plain(shown(output))}[/]"])
    return summary


def _to_stdout(judge: Judge, rows: RowFile, batch_size: int, reporter: Reporter) -> Summary:
    def emit(record: Record) -> None:
        reporter.result(record, [])

    try:
        summary = predict_stream(judge, rows, batch_size=batch_size, emit=emit)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (| head). Python would complain when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Summary()
    return summary


def explain_text(classifier: Classifier, text: str, head: str, context: str, reporter: Reporter) -> None:
    """Show the contribution of each word to the logit of ``head``."""
    found = classifier.explain(text, head, context)
    rows = [[token.text, f"{token.value:+.3f}", f"{token.wide:+.3f}"] for token in found.tokens]
    total = sum(token.value for token in found.tokens)
    caption = (
        f"{found.baseline_logit:+.3f} without the text {total:+.3f} from its words {found.residual:+.3f} residual"
        f" = {found.logit:+.3f}"
    )
    reporter.table(
        f"Contributions to the logit of {plain(head)}", ["word", "adds", "of it n-grams"], rows, caption=caption
    )
    reporter.result(found.model_dump(mode="json"), [])


def export_bundle(folder: Path | None, target: Path, reporter: Reporter) -> None:
    """Copy the files that scoring needs, with the graph in place of our model code.

    Raises:
        IntegrityError: the artifact is not whole, or its graph does not compute what its model does.
        UserError: the disk refused.
        UsageError: ``target`` exists.
    """
    from runs import atomic
    from safety_classifier import export
    from safety_classifier.artifact import SCORING, load_artifact

    if target.exists():
        raise UsageError(f"{shown(target)} exists.", mend="Choose another --output-dir, or remove it.")
    artifact = load_artifact(folder)
    difference, allowed = _disagreement(artifact.folder)
    if difference > allowed:
        why = f"A logit differs by {difference:.2g}; {allowed:g} is allowed."
        raise IntegrityError(f"The graph in {shown(artifact.folder)} is not the model.", why=why)
    with atomic.folder(target) as building:
        for name in (*SCORING, export.GRAPH, export.SIGNATURE):
            shutil.copy2(artifact.folder / name, building / name)
        building.chmod(0o755)  # mkdtemp's folders are closed to other users, a server's among them
    size = sum(path.stat().st_size for path in target.iterdir())
    lines = [f"{plain(shown(target))}: {size / 1e6:.1f} MB; logits agree to {difference:.1e}."]
    reporter.result({"folder": str(target), "bytes": size, "largest_difference": difference}, lines)


def _disagreement(folder: Path) -> tuple[float, float]:
    """The largest difference of a logit between the exported graph and the model over `PROBES`, and the allowed one."""
    import numpy as np

    from safety_classifier.api import Classifier
    from safety_classifier.export import load_exported

    exported = load_exported(folder)
    classifier = Classifier.load(folder, precision=exported.signature.precision)
    featuriser = classifier.featuriser
    encoded = featuriser.encode(PROBES)
    batch = featuriser.pad(encoded, range(len(PROBES)), featuriser.max_tokens)
    ours = classifier.forward.finish(classifier.forward.start(encoded), len(encoded))
    return float(np.abs(exported(batch) - ours).max()), AGREEMENT[exported.signature.precision]
