import pytest

from leanface.catalog import number
from leanface.report.tables import flatten


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0"),
        (0.98214, "0.982"),
        (1.0, "1.00"),
        (2.071, "2.07"),
        (41.27, "41.3"),
        (182.4, "182"),
        (999.7, "1,000"),
        (12345.6, "12,346"),
        (0.00312, "0.00312"),
        (0.4267, "0.427"),
        (0.00003, "3.0\N{MULTIPLICATION SIGN}10⁻⁵"),
        (-1.2345, "-1.23"),
    ],
)
def test_numbers_keep_about_three_digits(value, text):
    assert number(value) == text


def test_flatten_names_every_scalar():
    tree = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": [{"f": "x"}, {"f": "y"}]}
    assert dict(flatten(tree)) == {"a": "1", "b.c": "1, 2", "b.d": "not known", "e.0.f": "x", "e.1.f": "y"}
