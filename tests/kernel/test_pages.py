import mmap
import re
from pathlib import Path

import pytest
import torch

from spikestrap.kernel import pages
from spikestrap.kernel.pages import by_large_pages

POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def advised(tensor):
    """Whether the system notes that the tensor's memory is to have large pages."""
    address, here = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            here = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif here and line.startswith("VmFlags"):
            return "hg" in line.split()
    return False


@pytest.mark.skipif(
    not (hasattr(mmap, "MADV_HUGEPAGE") and POLICY.exists()), reason="no large pages here"
)
def test_large_results_are_on_large_pages():
    assert advised(by_large_pages(torch.empty(3, 2**21 + 5)))
    assert not advised(by_large_pages(torch.empty(2**10)))


def test_where_there_are_none(monkeypatch):
    monkeypatch.setattr(pages, "_advise", lambda: None)
    x = torch.empty(2**21)
    assert by_large_pages(x) is x
