import pytest

from spikestrap import SpikestrapError
from spikestrap.train.extras import require


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import not_there.at_all")
    monkeypatch.syspath_prepend(tmp_path)
    message = r"^recordings: needs not_there, which is not installed: pip .*spikestrap\[events\]"
    for module in ("needs_another", "not_there", "not_there.deep"):
        for kind in (SpikestrapError, ImportError):
            with pytest.raises(kind, match=message):
                require(module, "recordings", extra="events")
