"""The tables of a model card, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from safety_classifier.evaluation.results import CLASSIFIER, Results

METRICS = {
    "f1": "F1",
    "auprc": "AUPRC",
    "auroc": "AUROC",
    "recall_fpr_1": "recall at 1 % FPR",
    "ece_mass": "ECE",
    "brier": "Brier",
}


def card(results: Results) -> str:
    """Markdown: heads, baselines, sources, robustness, fairness, suites. Intervals are 95 %, bootstrap."""
    parts = [
        _heads(results),
        _baselines(results),
        _sources(results),
        _attacks(results),
        _fairness(results),
        _suites(results),
    ]
    intro = (
        f"Held-out test split, {results.counts['test']['rows']:,} rows; 95 % bootstrap intervals "
        f"(B = {results.settings.resamples:,}, whole groups, within sources); thresholds frozen beforehand."
    )
    return "\n\n".join([intro, *filter(None, parts)]) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text; pipes in cells are escaped."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def _heads(results: Results) -> str:
    table = results.tables[CLASSIFIER]
    rows = [
        [name, f"{row.positives:,} / {row.labelled:,}", *(str(row.metrics.get(key, "-")) for key in METRICS)]
        for name, row in {"**macro, headline**": table.macro, **table.heads}.items()
    ]
    for name, pair in results.pairs[CLASSIFIER].items():
        each = {f"{name} (pairs)": pair} | {f"{name}, {source}": one for source, one in pair.sources.items()}
        rows += [
            [label, f"{one.pairs:,}", f"accuracy {one.accuracy}", *[""] * (len(METRICS) - 1)]
            for label, one in each.items()
        ]
    return "### Heads\n\n" + markdown_table(["head", "positive / labelled", *METRICS.values()], rows)


def _baselines(results: Results) -> str:
    rows = [
        [name, *(str(table.macro.metrics.get(key, "-")) for key in METRICS)] for name, table in results.tables.items()
    ]
    return "### Beside baselines (macro over the headline categories)\n\n" + markdown_table(
        ["scorer", *METRICS.values()], rows
    )


def _sources(results: Results) -> str:
    rows = [
        [one.head, one.source, f"{one.positives:,} / {one.negatives:,}", str(one.auroc)]
        for one in results.within_source[CLASSIFIER]
    ]
    if not rows:
        return ""
    return "### AUROC within each source\n\n" + markdown_table(["head", "source", "positive / negative", "AUROC"], rows)


def _attacks(results: Results) -> str:
    rows = [
        [one.attack, str(one.clean), str(one.attacked), str(one.loss)]
        for one in results.attacks.get(CLASSIFIER, ())
        if one.head == "macro"
    ]
    return (
        "### Attacks (macro AUROC)\n\n" + markdown_table(["attack", "clean", "attacked", "loss"], rows) if rows else ""
    )


def _fairness(results: Results) -> str:
    found = results.fairness.get(CLASSIFIER)
    if found is None:
        return ""
    rows = []
    for where, biases in (("templates", found.templates), ("test rows", found.mentions)):
        for head, bias in biases.items():
            worst = min(bias.groups, key=lambda group: group.bpsn.value if group.bpsn.value is not None else 2.0)
            numbers = (bias.final, bias.worst_bpsn, bias.odds_gap)
            rows.append([where, head, *map(str, numbers), worst.group])
    swaps = [
        [where, head, f"{shift.pairs:,}", str(shift.mean), f"{shift.p95:.3f}", f"{shift.flips:.3f}"]
        for where, shifts in (("templates", found.template_swaps), ("test rows", found.text_swaps))
        for head, shift in shifts.items()
    ]
    return (
        "### Fairness\n\n"
        + markdown_table(["rows", "head", "final bias metric", "worst BPSN AUC", "odds gap", "worst group"], rows)
        + "\n\nIdentity swaps, |difference| of probabilities:\n\n"
        + markdown_table(["rows", "head", "pairs", "mean", "p95", "flips"], swaps)
    )


def _suites(results: Results) -> str:
    rows = []
    for suite, scorers in results.suites.items():
        for task, answer in scorers[CLASSIFIER].tasks.items():
            numbers = (str(answer.metrics[key]) for key in ("auroc", "auprc", "f1", "accuracy"))
            rows.append([suite, task, f"{answer.positives:,} / {answer.labelled:,}", *numbers])
        for head, pair in scorers[CLASSIFIER].pairs.items():
            rows.append([suite, head, f"{pair.pairs:,} pairs", "", "", "", str(pair.accuracy)])
    if not rows:
        return ""
    header = ["suite", "task", "positive / labelled", "AUROC", "AUPRC", "F1", "accuracy"]
    return "### Suites (never trained on)\n\n" + markdown_table(header, rows)
