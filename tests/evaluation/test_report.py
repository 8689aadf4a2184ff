"""The report of a made run: one file without references, every text escaped, counts that agree, files for others."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from evaluation.report.browser import browser_data, script_json
from evaluation.report.comparator import comparator_json
from evaluation.report.data import find_run, load_run
from evaluation.report.export import write_report
from evaluation.report.figures import OUTCOMES, points
from evaluation.report.grid import Cell, Grid, to_html, to_markdown
from runs.errors import IntegrityError, UsageError, UserError
from tests.evaluation.made_runs import PAYLOAD, answer_like, made_run, prompts

MODELS = ("base", "stage2", "stage3")


def says(model, prompt, chance):
    if prompt.pair == "violence-03" and model == "stage3":
        return PAYLOAD
    if prompt.pair == "violence-04" and model == "stage2":
        return ""
    if prompt.pair == "violence-05" and model == "base":
        return None
    return answer_like(model, prompt, chance)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return made_run(tmp_path_factory.mktemp("made") / "run", models=MODELS, says=says)


@pytest.fixture(scope="module")
def run(folder):
    return load_run(folder)


@pytest.fixture(scope="module")
def written(run, folder):
    return write_report(run, folder)


@pytest.fixture(scope="module")
def page(written) -> str:
    return written.page.read_text(encoding="utf-8")


class _Reader(HTMLParser):
    """Collects tags with their attributes, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self._script = dict(attributes).get("id") or f"script {len(self.scripts)}"

    def handle_endtag(self, tag) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data) -> None:
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


@pytest.fixture(scope="module")
def parsed(page) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader


def test_the_page_refers_to_nothing_outside_itself(page, parsed):
    for tag, attributes in parsed.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert "src" not in attributes, (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    own = page[: page.index("<script>")]  # all but Plotly's own code, which the policy keeps from loading anything
    assert not re.search(r"https?://", own)
    assert "@import" not in own
    assert "url(" not in own
    policy = next(a["content"] for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "Plotly.newPlot" in page


def test_text_of_a_model_cannot_become_markup(page, parsed):
    assert PAYLOAD not in page
    assert "\\u003cscript\\u003ealert('from a model')" in page
    assert not any(tag == "img" or "onerror" in attributes for tag, attributes in parsed.tags)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 4
    rows = json.loads(parsed.scripts["sample-data"])["rows"]
    assert sum(answer[0] == PAYLOAD for row in rows for answer in row[4] if answer) == 2


def test_names_that_come_from_files_are_escaped(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    asked = [prompt.model_copy(update={"category": evil, "tags": (evil,)}) for prompt in prompts(12)]
    made = load_run(made_run(tmp_path / "run", models=("base", evil), asked=asked))
    written = write_report(made, tmp_path / "out", figures=False)
    assert evil not in written.page.read_text()
    assert evil not in (tmp_path / "out" / "model_card.md").read_text().split("---\n")[2]


def test_counts_agree_between_page_files_and_samples(run, parsed, folder, written):
    import pyarrow.parquet as parquet

    data = json.loads(parsed.scripts["sample-data"])
    lines = (folder / "samples.jsonl").read_text().splitlines()
    assert len(data["rows"]) == len(run.prompts) == 248
    answers = [answer for row in data["rows"] for answer in row[4] if answer]
    assert len(answers) == len(lines) == len(run.samples) == 248 * 3 - 2
    table = parquet.read_table(folder / "samples.parquet")
    assert table.num_rows == len(lines)
    assert table.column("response").to_pylist() == [sample.response for sample in run.samples]
    assert table.schema.field("harm_prevention").type == "double"
    assert run.results.missing == run.missing
    assert len(run.missing["base"]) == 2


def test_missing_and_unscored_answers_are_said(page, run):
    assert "base has no answer to 2 of 248 prompts" in page
    assert "empty answer" in page
    verdict = next(v for v in run.analysis.primary if v.contrast.metric == "helpfulness")
    assert verdict.contrast.n_missing == 2


def test_every_verdict_stands_on_the_page_with_its_denominator(page, run):
    import html

    text = html.unescape(re.sub(r"<[^>]+>", "", page[: page.index("sample-data")]))
    assert len(run.analysis.primary) == 12
    for verdict in run.analysis.primary:
        assert (
            verdict.sentence.replace(verdict.contrast.metric, verdict.contrast.metric.replace("_", " "))
            .replace(" -", " −")
            .replace("[-", "[−")
            in text
        )
        assert f"n {verdict.contrast.n_pairs}" in text


def test_figures_are_there_twice_and_the_page_draws_the_same_ones(written, parsed, folder):
    stems = {path.stem for path in written.figures}
    assert {path.suffix for path in written.figures} == {".png", ".svg"}
    assert {"levels", "evasiveness-plane", "forest-stage3-base", "modes-harmful", "categories"} <= stems
    for path in written.figures:
        assert path.stat().st_size > 2_000
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
    drawn = json.loads(parsed.scripts["figure-data"])
    assert set(drawn) == stems
    hosts = {attributes["data-figure"] for _, attributes in parsed.tags if "data-figure" in attributes}
    assert hosts == stems


def test_plotly_accepts_every_figure(parsed):
    import plotly.graph_objects as go

    for name, figure in json.loads(parsed.scripts["figure-data"]).items():
        assert go.Figure(figure).data, name


def test_a_report_made_again_is_the_same_and_runs_nothing(run, folder, written, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a report must not load a model")

    monkeypatch.setattr("inference.engines.open_engines", refuse)
    again = write_report(load_run(folder), tmp_path)
    assert again.page.read_bytes() == written.page.read_bytes()
    for first, second in zip(written.figures, again.figures, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_a_damaged_run_is_refused(folder, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "results.json").write_text('{"run_id": 3}')
    with pytest.raises(IntegrityError, match="not a results file"):
        load_run(broken)
    (broken / "samples.jsonl").unlink()
    with pytest.raises(UserError, match="has no samples"):
        load_run(broken)


def test_runs_are_found_by_folder_id_and_last(folder, tmp_path, run):
    root = folder.parent
    assert find_run(str(folder), root) == folder
    assert find_run("last", root) == folder
    assert find_run(run.results.run_id[:6], root) == folder
    for reference in ("nothing", run.results.run_id[:2]):
        with pytest.raises(UsageError, match="does not name one run"):
            find_run(reference, root)
    with pytest.raises(UsageError, match="no finished runs"):
        find_run("last", tmp_path)


def test_results_have_lm_evals_keys_and_denominators(folder, written):
    results = json.loads((folder / "results.json").read_text())
    for key in ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config"):
        assert results[key], key
    assert results["n-samples"]["base"] == {"original": 248, "effective": 246}
    assert results["higher_is_better"]["stage3"]["harm_prevention"] is True
    assert 0 <= results["results"]["stage3"]["harm_prevention,none"] <= 1
    own = json.loads((folder / "lm_eval" / "stage3" / "results.json").read_text())
    for task, metrics in own["results"].items():
        assert set(metrics) >= {"alias", "sample_len", "score,none"}
        assert own["n-samples"][task]["effective"] == metrics["sample_len"]
        assert own["higher_is_better"][task] == {"score": True}
        assert task in own["configs"]
        assert own["n-shot"][task] == 0
    assert own["config"]["model"] == "stage3"


def test_lm_eval_prints_our_results(folder, written):
    from lm_eval.utils import make_table

    table = make_table(json.loads((folder / "lm_eval" / "stage3" / "results.json").read_text()))
    assert "harm_prevention" in table


def test_comparator_files_hold_what_the_tool_requires(run, folder, written):
    paths = sorted((folder / "comparator").glob("*.json"))
    assert [path.stem for path in paths] == ["stage2-vs-base", "stage3-vs-base", "stage3-vs-stage2"]
    found = json.loads(paths[0].read_text())
    assert set(found["metadata"]) == {"source_path", "custom_fields_schema"}
    assert [model["name"] for model in found["models"]] == ["stage2", "base"]
    assert len(found["examples"]) == 246  # base lacks two answers
    types = {field["name"]: field["type"] for field in found["metadata"]["custom_fields_schema"]}
    for example in found["examples"]:
        assert {"input_text", "tags", "output_text_a", "output_text_b", "score", "individual_rater_scores"} <= set(
            example
        )
        assert isinstance(example["tags"], list)
        assert example["score"] is None or -1.5 <= example["score"] <= 1.5
        assert set(example["custom_fields"]) == set(types)
        for name, value in example["custom_fields"].items():
            assert not types[name].startswith("per_model") or len(value) == 2
    mirrored = comparator_json(run, "base", "stage2")["examples"]
    scores = [example["score"] for example in found["examples"]]
    assert [None if score is None else -score for score in scores] == [example["score"] for example in mirrored]


def test_the_model_card_has_a_model_index_and_the_tables(folder, written):
    _, front, body = (folder / "model_card.md").read_text().split("---\n", 2)
    index = yaml.safe_load(front)["model-index"]
    assert [entry["name"] for entry in index] == ["made-base", "made-stage2", "made-stage3"]
    metrics = index[0]["results"][0]["metrics"]
    assert {"type", "value", "name", "args"} <= set(metrics[0])
    assert "| harm prevention" in body


def test_script_json_survives_every_closing_tag_and_reads_back():
    value = {"a": ["</script>", "<!--", "]]>", "&amp;", "\u2028\u2029", "𝕌 é"]}
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_rows_of_the_browser_point_into_their_tables(run):
    data = browser_data(run.rows, run.models, run.evaluators, [("stage3", "base")])
    for row in data["rows"]:
        assert row[1] < len(data["categories"])
        for answer in row[4]:
            if answer is None:
                continue
            assert answer[1] < len(data["modes"])
            for start, end, evaluator, why in answer[5]:
                assert 0 <= start < end <= len(answer[0])
                assert evaluator < len(data["evaluators"])
                assert why < len(data["strings"])


def test_tables_escape_in_both_forms():
    grid = Grid(("a|b", "<b>"), ((Cell("<i>|"), Cell("x", "<u>", "better")),))
    assert "<i>" not in to_html(grid)
    assert "&lt;i&gt;" in to_html(grid)
    assert "| &lt;i>\\| |" in to_markdown(grid)


def test_points_round_without_a_signed_zero():
    assert [points(value, signed=True) for value in (0.0, -0.0004, 0.031, -0.25)] == ["0.0", "0.0", "+3.1", "−25.0"]
    assert set(OUTCOMES) == {"better", "worse", "equivalent", "undecided"}


def test_one_model_alone_has_a_report_without_contrasts(tmp_path):
    made = load_run(made_run(tmp_path / "run", models=("base",), asked=prompts(20)))
    written = write_report(made, tmp_path / "out")
    assert "nothing to compare it with" in written.page.read_text()
    assert not (tmp_path / "out" / "comparator").exists()


@pytest.mark.slow
def test_ten_thousand_prompts_fit_in_time_and_memory(tmp_path):
    """About a minute and 0.7 GiB where it was measured; the limits are loose, for slower and busier machines."""
    import resource
    import time

    asked = prompts(10_000, copies=41)
    begun = time.process_time()
    made = load_run(made_run(tmp_path / "run", models=("base", "stage3"), asked=asked))
    written = write_report(made, tmp_path / "run", figures=False)
    assert time.process_time() - begun < 240
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20
    assert len(made.rows) == 10_000
    assert written.page.stat().st_size < 30 * 2**20
