"""Whether other processors are really simulated."""

from tests import processors


def test_a_simulation_without_effect_is_told() -> None:
    here = processors.running()["OpenBLAS"]
    another = next(one for one in processors.PROCESSORS if one.openblas not in here)
    assert "the simulation has no effect" in str(processors.problem(another))
