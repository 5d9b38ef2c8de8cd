"""Recordings in N-MNIST's own format, as its authors describe it, written bit by bit.

An event is 40 bits: x (8), y (8), polarity (1), microseconds (23), the most significant first.
"""

TIME_MARK = 240  # as y: no event, time has run over


def recording(events):
    """Events (x, y, polarity, microseconds) as the bytes of a file."""
    words = (x << 32 | y << 24 | polarity << 23 | time for x, y, polarity, time in events)
    return b"".join(word.to_bytes(5, "big") for word in words)


def write(folder, part, digit, number, events):
    path = folder / "NMNIST" / part / str(digit) / f"{number:05d}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(recording(events))
    return path


def write_data(folder, each=3):
    """So many recordings a digit and part; each digit lights up a column of its own."""
    for part in ("Train", "Test"):
        for digit in range(10):
            for i in range(each):
                pixels = [(3 * digit + 2, row, (row + i) % 2) for row in range(34)]
                events = [(*pixel, 1000 * k) for k, pixel in enumerate(6 * pixels)]
                write(folder, part, digit, 10 * i + digit, events)
    return folder
