import json
import math
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


ODD = st.sampled_from([None, True, -1, 0, 1e300, math.nan, "x", "<b>", [], {}, [[]], {"x": 1}])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["config", "result", "history", "curves"]), odd=ODD, data=st.data())
def test_whatever_a_file_says_the_page_is_whole_or_the_error_is_ours(run, name, odd, data):
    path = run / f"{name}.json"
    whole = path.read_text()
    value = json.loads(whole)
    # One value, somewhere in the file, becomes an odd one.
    inner = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(inner[key], dict | list) and inner[key] and data.draw(st.booleans())):
            break
        inner = inner[key]
    inner[key] = odd
    path.write_text(json.dumps(value))
    try:
        write_report(run, evaluate=False)
        assert (run / "report.html").read_text().endswith("</html>\n")
    except ss.SpikestrapError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        path.write_text(whole)


def test_no_such_run(tmp_path):
    with pytest.raises(ss.SpikestrapError, match="run: expected the folder of a run, got"):
        write_report(tmp_path / "none")
