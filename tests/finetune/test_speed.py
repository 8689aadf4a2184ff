from finetune.speed import Clock, rows_until, write_rows


def test_a_line_divides_its_tokens_by_the_seconds_of_its_steps():
    clock = Clock()
    clock.step(2.0)
    clock.step(3.0)
    assert clock.line(1000) == 200
    clock.step(1.0)
    # A checkpoint in the middle of a line: its seconds are taken up.
    resumed = Clock(**clock.state())
    resumed.step(1.0)
    assert resumed.line(1100) == 50
    assert resumed.mean() == 1100 / 7
    assert Clock().mean() is None
    assert Clock().line(0) == 0


def test_lines_beyond_the_checkpoint_are_left_out(tmp_path):
    path = tmp_path / "train_speed.jsonl"
    assert rows_until(path, 10) == []
    rows = [{"step": step, "tokens_per_second": 1.0} for step in (5, 10, 15)]
    write_rows(path, rows)
    assert rows_until(path, 10) == rows[:2]
