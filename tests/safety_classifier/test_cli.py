"""The commands, on a tiny artifact: what they print, write and return; the server as a process of its own."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pandas as pd
import pytest
import yaml

from runs import config as configs
from runs.errors import ExitCode, UsageError, UserError
from runs.paths import CONFIGS
from safety_classifier.cli import main
from safety_classifier.evaluate import Request, limited, read_data, resolved
from safety_classifier.serving.settings import ServeSettings

START = [sys.executable, "-c", "from safety_classifier.cli import main; main()"]
KEY = "a-key-of-sixteen-or-more"
COMMANDS = ("train", "prepare", "evaluate", "predict", "serve", "explain", "export")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process; returns exit code, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["safety-classifier", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def words_of(text):
    """Printed text without the line breaks that a narrow terminal puts in."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_help_names_every_command_and_loads_nothing_heavy():
    script = (
        "import sys; sys.argv = ['x', '--help']\n"
        "from safety_classifier.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'jax', 'flax', 'fastapi', 'uvicorn', 'pandas', 'pyarrow', 'numpy', 'tokenizers'}\n"
        "    print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    assert "loaded: []" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, call):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"safety-classifier {command}" in out


@pytest.mark.parametrize("spelling", ["--text-column", "--text_column"])
def test_predict_writes_a_file_and_says_what_it_did(spelling, call, tiny_artifact, tmp_path):
    (tmp_path / "in.csv").write_text("id,body\n1,you are an awful person\n2\n3,bread bakes\n")
    words = ["predict", "--input", tmp_path / "in.csv", spelling, "body", "--keep", "id"]
    words += ["--output", tmp_path / "out.csv", "--artifact", tiny_artifact, "--json"]
    code, out, err = call(*words)
    assert code == 0
    summary = json.loads(out)
    assert (summary["rows"], summary["judged"], summary["errors"]) == (3, 2, 1)
    assert summary["first_errors"] == [{"row": 2, "error": "has 1 columns; the header has 2"}]
    assert "warning" in err
    assert "row 2: has 1 columns" in words_of(err)
    frame = pd.read_csv(tmp_path / "out.csv")
    assert frame["id"].fillna(0).tolist() == [1, 0, 3]
    code, out, _ = call(*words, "--strict")
    assert code == 1
    assert json.loads(out) == summary


def test_predict_reads_stdin_and_writes_json_lines(call, tiny_artifact, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "the weather is lovely"}\n{\n')))
    code, out, err = call("predict", "--input", "-", "--format", "jsonl", "--artifact", tiny_artifact)
    assert code == 0
    first, second = [json.loads(line) for line in out.splitlines()]
    assert 0 < first["probabilities"]["toxicity"] < 1
    assert second["error"].startswith("is not JSON")
    assert "1 rows judged" in err


def test_predict_shows_texts_of_the_command_line_in_a_table(call, tiny_artifact, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call("predict", "[red]you are an awful person", "", "--artifact", tiny_artifact)
    assert code == 0
    assert "[red]you are an awful person" in out
    assert "(empty)" in out
    assert "hate_speech" in out
    code, out, _ = call("predict", "sorry", "--context", "please tell me", "--artifact", tiny_artifact, "--json")
    assert set(json.loads(out)["results"][0]["response"]) == {"refusal", "harmful_response"}


@pytest.mark.parametrize(
    "words",
    [
        ["predict"],
        ["predict", "a text", "--input", "file.txt"],
        ["predict", "a text", "--output", "out.csv"],
        ["predict", "--input", "absent.txt"],
        ["predict", "--input", "-", "--context", "x"],
        ["predict", "--input", "-", "--format", "xml"],
        ["evaluate", "--suite", "hatecheck"],
        ["evaluate", "--suite", "hatechek", "--path", "x"],
        ["serve", "--set", "batching.window=3"],
        ["serve", "--host", "0.0.0.0"],
        ["serve", "--port", "99999"],
        ["explain", "a text"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_has_exit_code_2(words, call, monkeypatch, tiny_artifact):
    monkeypatch.delenv("SAFETY_CLASSIFIER_KEYS", raising=False)
    code, _, err = call(*words)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["predict", "text"], ["serve"], ["explain", "text", "--head", "toxicity"]])
@pytest.mark.parametrize("damage", ["absent", "empty", "no manifest", "changed weights"])
def test_without_a_valid_artifact_nothing_runs(command, damage, call, tiny_artifact, tmp_path):
    folder = tmp_path / "artifact"
    if damage == "empty":
        folder.mkdir()
    elif damage != "absent":
        shutil.copytree(tiny_artifact, folder)
        if damage == "no manifest":
            (folder / "manifest.json").unlink()
        else:
            weights = bytearray((folder / "weights.safetensors").read_bytes())
            weights[-9] ^= 1
            (folder / "weights.safetensors").write_bytes(weights)
    code, _, err = call(*command, "--artifact", folder)
    assert code == ExitCode.DATA
    assert "error" in err
    assert "Traceback" not in err
    assert re.search("Make it|Rebuild|rebuild", err)


def test_explain_shows_words_that_add_up(call, tiny_artifact):
    text = "you are an awful person"
    code, out, _ = call("explain", text, "--head", "toxicity", "--artifact", tiny_artifact, "--json")
    assert code == 0
    found = json.loads(out)
    assert [token["text"] for token in found["tokens"]] == text.split()
    total = found["baseline_logit"] + sum(token["value"] for token in found["tokens"]) + found["residual"]
    assert total == pytest.approx(found["logit"], abs=1e-4)
    code, out, _ = call("explain", text, "--head", "toxicity", "--artifact", tiny_artifact)
    assert "awful" in out
    code, _, err = call("explain", text, "--head", "toxicty", "--artifact", tiny_artifact)
    assert code == 2
    assert "Did you mean 'toxicity'" in words_of(err)


def test_export_writes_a_bundle_that_agrees(call, tiny_artifact, tmp_path):
    target = tmp_path / "bundle"
    code, out, _ = call("export", "--artifact", tiny_artifact, "--output-dir", target, "--json")
    assert code == 0
    assert json.loads(out)["largest_difference"] < 0.05
    assert {"model.stablehlo", "model.json", "weights.safetensors", "tokenizer.json"} <= {
        path.name for path in target.iterdir()
    }
    assert call("export", "--artifact", tiny_artifact, "--output-dir", target)[0] == 2


def test_the_shipped_server_config_is_the_default():
    assert configs.load(ServeSettings, CONFIGS / "safety_classifier" / "serve.yaml") == ServeSettings()


def test_serve_reads_config_flags_and_overrides(call, tiny_artifact, tmp_path, monkeypatch):
    monkeypatch.setenv("SAFETY_CLASSIFIER_KEYS", KEY)
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump({"host": "0.0.0.0", "port": 1, "batching": {"max_rows": 4}}))
    code, out, _ = call("serve", "--config", path, "--artifact", tiny_artifact, "--port", 0, "--dry-run")
    assert code == 0
    assert "Loaded classifier" in out
    monkeypatch.delenv("SAFETY_CLASSIFIER_KEYS")
    code, _, err = call("serve", "--config", path, "--artifact", tiny_artifact, "--dry-run")
    assert code == 2
    assert "can be reached from other machines" in words_of(err)
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    assert call("serve", "--config", path, "--artifact", tiny_artifact, "--keys-file", keys, "--dry-run")[0] == 0
    assert KEY not in err


def test_evaluate_resolves_its_config(tmp_path):
    request = Request(
        config=CONFIGS / "safety_classifier" / "evaluate.yaml",
        overrides=("settings.resamples=0",),
        artifact=tmp_path,
        suites=(("hatecheck", Path("cases.csv")),),
        baselines=False,
        seed=5,
    )
    found = resolved(request)
    assert (found.artifact, found.seed, found.baselines) == (tmp_path, 5, ())
    assert found.settings.resamples == 0
    assert found.settings.compare == ()
    assert found.settings.goals
    assert [(one.suite, one.path) for one in found.suites] == [("hatecheck", Path("cases.csv"))]
    with pytest.raises(UsageError, match="there is no suite"):
        resolved(Request(config=request.config, suites=(("hatechek", Path("x")),)))


def test_a_limit_keeps_splits_and_pairs():
    frame = pd.DataFrame({"split": ["train"] * 50 + ["test"] * 30, "pair": [-1] * 50 + [n // 2 for n in range(30)]})
    found = limited(frame, 5)
    assert found["split"].value_counts().to_dict() == {"test": 10, "train": 5}
    pairs = found[found["split"] == "test"]["pair"].value_counts()
    assert set(pairs) == {2}
    assert limited(frame, None) is frame


def test_data_that_is_not_there_or_not_unique_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no prepared tables"):
        read_data(tmp_path)
    (tmp_path / "table.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="not a Parquet table"):
        read_data(tmp_path / "table.parquet")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="holds 2 prepared tables"):
        read_data(tmp_path)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_server_on_a_real_artifact(stop, tiny_artifact, own_cache):
    from safety_classifier.api import Classifier

    command = [*START, "serve", "--artifact", str(tiny_artifact), "--port", "0", "--precision", "float32"]
    environment = {**os.environ, "SAFETY_CLASSIFIER_KEYS": KEY, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            raise AssertionError(process.stderr.read())
        with httpx.Client(base_url=found.group(), headers={"Authorization": f"Bearer {KEY}"}, timeout=120) as client:
            assert client.get("/healthz").status_code == 200
            deadline = time.monotonic() + 600
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            texts = ["you are an awful person", "", "bread bakes in small ovens " * 30, "sorry cannot help"]
            inputs = [{"text": text, "context": "please tell me" if n == 3 else ""} for n, text in enumerate(texts)]
            body = client.post("/v1/classify", json={"inputs": inputs}).json()
            moderated = client.post("/v1/moderations", json={"input": texts[0]}).json()
            assert client.post("/v1/classify", json={"text": "a"}, headers={"Authorization": "no"}).status_code == 401
        process.send_signal(stop)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.wait()
    classifier = Classifier.load(tiny_artifact, precision="float32")
    assert body["model"] == classifier.identity
    expected = classifier.classify(texts, [one["context"] for one in inputs])
    for result, one in zip(body["results"], expected, strict=True):
        assert result["probabilities"] == pytest.approx(one.probabilities, abs=1e-5)
        assert (result["flagged"], result["windows"], result["empty"]) == (one.flagged, one.windows, one.empty)
    assert body["results"][2]["windows"] > 1
    assert body["results"][3]["response"] == pytest.approx(expected[3].response, abs=1e-5)
    scores = moderated["results"][0]["category_scores"]
    assert scores["harassment"] == pytest.approx(expected[0].probabilities["toxicity"], abs=1e-5)


@pytest.mark.slow
def test_prepare_train_and_evaluate_from_the_command_line(tmp_path):
    """The tiny shipped config, cut short: data, artifact, report."""
    environment = {**os.environ, "CAI_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    config = str(CONFIGS / "safety_classifier" / "tiny.yaml")

    def run(*words):
        done = subprocess.run(
            [*START, *map(str, words), "--json"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    data = run("prepare", "--config", config, "--limit", 5000, "--output-dir", tmp_path / "data")
    assert data["rows"]["test"] > 10
    steps = ["--set", "train.max_steps=4", "--set", "track.report_to=[]", "--set", f"artifact={tmp_path / 'made'}"]
    words = ["train", "--config", config, "--limit", 5000, "--output-dir", tmp_path / "run", *steps]
    assert run(*words, "--dry-run")["steps"] == 4
    assert not (tmp_path / "made").exists()
    assert Path(run(*words)["artifact"]).resolve() == (tmp_path / "made").resolve()
    words = ["evaluate", "--artifact", tmp_path / "made", "--data", tmp_path / "data", "--limit", 400, "--no-baselines"]
    words += [
        "--set",
        "settings.resamples=0",
        "--set",
        "settings.fairness_resamples=0",
        "--set",
        "settings.attacks=[typos]",
    ]
    words += ["--set", "settings.latency_seconds=0.05", "--output-dir", tmp_path / "report", "--update-card"]
    found = run(*words)
    assert (tmp_path / "report" / "report.html").is_file()
    assert "test/macro/auprc" in found["figures"]
