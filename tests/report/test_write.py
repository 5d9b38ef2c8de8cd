import re

import pytest

import spikestrap as ss
from spikestrap.report import write_report


def test_writes_one_file(run):
    before = {path.name for path in run.iterdir()}
    done = write_report(run)
    assert {path.name for path in run.iterdir()} - before == {"report.html"}
    assert done["file"] == str(run / "report.html")
    assert done["bytes"] == (run / "report.html").stat().st_size
    assert done["images"] == 450


def test_writes_where_it_is_told_and_without_test_images(run, tmp_path):
    done = write_report(run, evaluate=False, out=tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size == done["bytes"]
    assert done["images"] == 0
    assert not (run / "report.html").exists()


def test_a_failure_leaves_the_old_page(run, edit):
    page = run / "report.html"
    page.write_text("old")
    edit(run / "result.json", lambda result: result.update(event_rate=-1))
    with pytest.raises(ss.SpikestrapError, match="event_rate"):
        write_report(run)
    assert page.read_text() == "old"
    assert not list(run.glob(".report*"))


@pytest.mark.parametrize("out", ["", "none/page.html"])
def test_a_file_that_cannot_be_written_is_told_before_the_work(run, tmp_path, out):
    target = tmp_path / out
    with pytest.raises(ss.SpikestrapError, match=f"--out: .*{re.escape(str(target))}"):
        write_report(run, out=target)


def test_no_such_run(tmp_path):
    with pytest.raises(ss.SpikestrapError, match="run: expected the folder of a run, got"):
        write_report(tmp_path / "none")
