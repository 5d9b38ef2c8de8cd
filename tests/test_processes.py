from tests.processes import run_in

from spikestrap import processes


def test_alone():
    assert (processes.count(), processes.rank(), processes.is_first()) == (1, 0, True)


def test_the_first_is_known_before_they_are_connected(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.setenv(name, "0")
    assert processes.is_first()
    monkeypatch.setenv("NODE_RANK", "1")
    assert not processes.is_first()


def test_sums_maxima_and_copies():
    run_in(
        2,
        """
assert (processes.count(), processes.rank(), processes.is_first()) == (2, rank, rank == 0)
own = torch.tensor([1.0 + rank, -rank])
assert processes.add_up(own.clone()).tolist() == [3, -1]
assert processes.largest(own.clone()).tolist() == [2, 0]
assert processes.copy_of_first(own.clone()).tolist() == [1, 0]
""",
    )
