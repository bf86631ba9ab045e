from tests.unit.report.conftest import run

__all__ = ["run"]
