"""Spelling of the command lines, names that do not exist, and exit codes."""

import pytest

from runs.cli import normalise_arguments
from runs.console import guard
from runs.errors import IntegrityError, Preempted, UsageError, UserError, unknown_name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--models", "a", "b", "--limit", "3"], ["run", "--models", "a,b", "--limit", "3"]),
        (["--models", "a,b", "c"], ["run", "--models", "a,b,c"]),
        (["--models=a,b"], ["run", "--models=a,b"]),
        (["run", "--batch_size", "4"], ["run", "--batch-size", "4"]),
        (["--max_new_tokens=4"], ["run", "--max-new-tokens=4"]),
        (["ls", "models"], ["ls", "models"]),
        (["--help"], ["--help"]),
        ([], ["run"]),
    ],
)
def test_command_lines_are_read_as_people_write_them(given, expected):
    assert normalise_arguments(given, lists=("--models",), commands=("run", "ls"), default="run") == expected


def test_unknown_names_come_with_the_nearest_known_one():
    error = unknown_name("model", "stage4", ["base", "stage2", "stage3"])
    assert "Did you mean 'stage3'" in str(error) or "Did you mean 'stage2'" in str(error)
    assert "Known: base, stage2, stage3" in str(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (UserError("x"), 1),
        (IntegrityError("x"), 64),
        (Preempted("x"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes(error, code, capsys):
    def action():
        raise error

    assert guard(action) == code


def test_faults_of_ours_keep_their_traceback():
    def action():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guard(action)
