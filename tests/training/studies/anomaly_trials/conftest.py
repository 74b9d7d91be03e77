from tests.training.evaluation.conftest import digits, small_scorer

__all__ = ["digits", "small_scorer"]
