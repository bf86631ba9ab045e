"""A project with MLflow's database, and pipelines that are recorded in it."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from leanface import tracking

Runs = Callable[[], dict[str, Run]]

OUTSIDE_OUR_REACH = [
    # MLflow's own use of what it depends on
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore, in this folder's tests, warnings that are not ours."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for entry in OUTSIDE_OUR_REACH:
                item.add_marker(pytest.mark.filterwarnings(entry))


@pytest.fixture
def runs(project: Path, mlflow_database: Path) -> Runs:
    """Reads the project's recorded runs, by name; of several the newest."""
    (project / "mlflow.db").write_bytes(mlflow_database.read_bytes())

    def read() -> dict[str, Run]:
        client = MlflowClient(tracking.tracking_uri())
        experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        return {run.info.run_name: run for run in reversed(found)}

    return read


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Takes MLflow away, or brings the project's own store back."""

    def switch(gone: bool) -> None:
        if gone:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://")
        else:
            monkeypatch.delenv("MLFLOW_TRACKING_URI")

    return switch


@pytest.fixture
def finish(project: Path) -> Callable[..., None]:
    """Records a pipeline, as the end of stage report does."""

    def record(name: str, network: str, passed: bool = True, task: str = "face") -> None:
        """The network's one weight, by which it is known, is `network`."""
        file = project / "models/onnx/quantized_int8.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 64, 64])
        identity = onnx.helper.make_node("Identity", ["images"], ["coefficients"])
        graph = onnx.helper.make_graph([identity], network, [images], [])
        onnx.save(onnx.helper.make_model(graph), file)
        (project / "report.md").write_text(f"report of {name}")
        gates, variants = {"ssim": {"passed": passed}}, {"quantized_int8": {"ssim": 0.98}}
        summary = {"task": task, "gates": gates, "variants": variants}
        tracking.log_summary(summary, {"run": name, "task": {"name": task}}, [project / "report.md"], {}, file)

    return record
