"""What launch_overhead says of measured times."""

from tests.benchmarks.launch_overhead import row


def test_medians_are_compared_on_the_clock_and_of_processors() -> None:
    empty, ours = [(2.0, 1.0), (9.0, 1.5), (3.0, 1.2)], [(5.0, 2.0), (4.0, 2.4), (7.0, 9.0)]
    assert row("what", empty, ours, 3.0) == ("what", "3.0", "5.0", "2.0", "1.2", "3")
