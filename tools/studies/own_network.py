"""Measures what the re-fit and INT8 are worth to networks of several kinds, beside other tools.

    python -m tools.studies own_network docs/results/own_network

makes a project for each network of tools/studies/own_network.yaml, with stages configure, prepare and teacher,
and prunes the teacher. The pruned network is measured as torch-pruning leaves it, with its batch norms measured anew,
and re-fitted: all three have the same channels. Then each is distilled alike, and what came of the re-fitted one is
quantized by LeanFace, ONNX Runtime and NNCF. The re-fit's ridge is chosen on the val split, from which trainings choose
their best step, too; the test split is measured alone.
"""

import contextlib
import copy
import importlib
import inspect
import logging
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
import yaml
from torch import Tensor, nn

from leanface import bundle, paths
from leanface.config import load_config
from leanface.distillation.distill import distill, train_on
from leanface.export.onnx import export_network
from leanface.files import Json, atomic_write
from leanface.metrics.outputs import mean_errors, predict
from leanface.networks.widths import widths_of
from leanface.pruning.compensate import compensate
from leanface.pruning.cost import macs_and_parameters
from leanface.pruning.prune import prune
from leanface.quantization.calibrate import calibrate, quantizer_of, round_calibrated
from leanface.runner import stage_sections
from leanface.stages import configure
from leanface.task import load_task
from leanface.training.batch_norm import measure_batch_norm
from leanface.training.fit import Session
from tools.studies.int8_peers import BATCH, Peer, exact, open_as, quantized_by_nncf, quantized_by_peer, size_bytes_of
from tools.studies.kept import Kept
from tools.studies.own_network_page import STATES, write_page

logger = logging.getLogger(__name__)

TABLE = Path(__file__).parent / "own_network.yaml"
LINKED = ("conf", "tools")
"""What a project has of the checkout that the study runs in."""

RIDGES = (0.01, 0.1, 1.0)
TOOLS = ("LeanFace PTQ", "LeanFace QAT", "ONNX Runtime quantize_static", "NNCF quantize")
STATISTICS_BATCH = 64
"""Images that a batch norm is measured on at a time."""

Errors = dict[str, list[float]]
"""Of each test sample, to each reference."""


@contextlib.contextmanager
def project(folder: Path, params: Mapping[str, Any]) -> Generator[None]:
    """Work in a project of its own."""
    root = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        if not (folder / name).exists():
            (folder / name).symlink_to(root / name)
    with contextlib.chdir(folder):
        atomic_write(paths.PARAMS, yaml.safe_dump(dict(params)))
        configure.run()
        yield


class NetworkStudy:
    """One network, in its project."""

    def __init__(self, name: str, kept: Kept) -> None:
        self.name, self.kept = name, kept
        self.config = load_config(paths.CONFIG)

    def measure(self) -> Json:
        """Measure everything that was not measured yet; see `tools.studies.own_network_page` for the result."""
        original = self._piece("teacher", "task data seed teacher", self._make_teacher)
        self.task = load_task(self.config.task, self.config.data)
        self.train, self.val, self.test = (self.task.split(name) for name in ("train", "val", "test"))
        self.teacher, _ = bundle.load_network(paths.TEACHER)
        self.subject = self.task.subject
        self.original = predict(self.teacher, self.test)
        original |= {"errors": self._errors(self.original)}
        pruned = self._piece("pruned", "task data seed teacher prune", self._prune)
        sections = "task data seed teacher prune distill machine"
        trained = {
            state: self._piece(f"trained_{state}", sections, lambda state=state: self._distill(state))
            for state in STATES
        }
        int8 = {
            tool: self._piece(f"int8_{tool}", f"{sections} quantize", lambda tool=tool: self._quantize(tool))
            for tool in TOOLS
        }
        named = {"error": self.subject.error, "teacher_error": self.subject.teacher_error}
        settings = self.config.model_dump(mode="json", include={"prune", "distill", "quantize", "data"})
        return named | {
            "settings": settings, "original": original, "pruned": pruned, "trained": trained, "int8": int8,
        }  # fmt: skip

    def _piece(self, name: str, sections: str, measure: Callable[[], Json]) -> Json:
        def said() -> Json:
            logger.info("%s: %s", self.name, name)
            return measure()

        conditions = self.config.model_dump(mode="json", include=set(sections.split()))
        return self.kept.get(f"{self.name}/{name}", conditions, said)

    def _errors(self, outputs: Tensor, **further: Tensor) -> Errors:
        """Measure every test sample against the teacher, the truth and further outputs."""
        subject = self.subject
        like, true = subject.teacher_error.removeprefix("teacher_"), subject.error.removeprefix("truth_")
        errors: Errors = {}
        for name, reference in {"teacher": self.original, **self.test.truth(), **further}.items():
            found = self.task.errors(outputs, reference)[true if name == "truth" else like]
            values = cast(list[float], found.tolist())
            errors[name] = [float(f"{value:.6g}") for value in values]
        return errors

    def _make_teacher(self) -> Json:
        for name in ("prepare", "teacher"):
            run: Any = importlib.import_module(f"leanface.stages.{name}").run
            arguments = {section: getattr(self.config, section) for section in stage_sections(name)}
            if "log" in inspect.signature(run).parameters:
                arguments["log"] = _discard
            run(**arguments)
        return {}

    def _prune(self) -> Json:
        settings = self.config.prune
        images = self.train.head(settings.calibration_count).images
        without = settings.model_copy(update={"compensate": False})
        pruned, kept, _, _ = prune(self.teacher, without, images, self.task, self.config.seed)
        remeasured = copy.deepcopy(pruned)
        measure_batch_norm(remeasured, cast(tuple[Tensor, ...], images.split(STATISTICS_BATCH)))
        answers, error = predict(self.teacher, self.val), self.subject.teacher_error.removeprefix("teacher_")
        fitted = {ridge: compensate(pruned, self.teacher, kept, images, ridge) for ridge in RIDGES}
        scores = {
            ridge: mean_errors(self.task, predict(network, self.val), answers)[error]
            for ridge, (network, _) in fitted.items()
        }
        best = min(scores, key=lambda ridge: scores[ridge])
        networks = {"pruned": pruned, "remeasured": remeasured, "compensated": fitted[best][0]}
        for state, network in networks.items():
            self._save(network, state, kept_channels=kept)
        macs, parameters = (
            ours / theirs
            for ours, theirs in zip(
                macs_and_parameters(pruned, self.val.image_size),
                macs_and_parameters(self.teacher, self.val.image_size),
                strict=True,
            )
        )
        return {
            "macs": macs,
            "parameters": parameters,
            "original_macs": macs_and_parameters(self.teacher, self.val.image_size)[0],
            "ridges": {str(ridge): score for ridge, score in scores.items()},
            "ridge": best,
            "left": {fit.name: fit.left for fit in fitted[best][1] if fit.left},
            "errors": {state: self._errors(predict(network, self.test)) for state, network in networks.items()},
        }

    def _distill(self, state: str) -> Json:
        student, spec = bundle.load_network(Path("models") / state)
        answers = self.val.labeled(predict(self.teacher, self.val))
        session = Session(self.config.machine, self.config.seed, Path("reports") / state)
        result = distill(student, self.teacher, self.task, self.config.distill, session, val=answers)
        self._save(student, f"trained_{state}", kept_channels=spec.kept_channels)
        return {"best_step": result.best_step, "errors": self._errors(predict(student, self.test))}

    def _quantize(self, tool: str) -> Json:
        student, _ = bundle.load_network(Path("models/trained_compensated"))
        folder = Path("models/int8")
        folder.mkdir(exist_ok=True)
        images = self.train.head(self.config.quantize.calibration_count).images.numpy()
        if tool.startswith("LeanFace"):
            made = Peer(self._own(student, folder / "own.onnx", "qat" if tool.endswith("QAT") else "ptq"))
        else:
            floating = folder / "floating.onnx"
            onnx.save(self._exported(student, "fp32"), floating)
            if tool.startswith("NNCF"):
                made = quantized_by_nncf(floating, images, folder / "nncf.xml")
            else:
                quantized_by_peer(floating, images, folder / "static.onnx")
                made = Peer(folder / "static.onnx")
        if made.path is None:
            return {"not_run": made.not_run}
        run = exact(made.path) if made.path.suffix == ".onnx" else open_as(made.path, "openvino")
        outputs = [run(batch.images.numpy()) for batch in self.test.batches(BATCH)]
        return {
            "errors": self._errors(torch.from_numpy(np.concatenate(outputs)), float=predict(student, self.test)),
            "size_bytes": size_bytes_of(made.path),
        }

    def _own(self, student: nn.Module, path: Path, method: str) -> Path:
        """Quantize as stage quantize does, and export the flavor with unsigned bytes, which the peers have, too."""
        settings = self.config.quantize.model_copy(update={"method": method})
        quantizer = quantizer_of(settings, widths_of(student))
        network = calibrate(copy.deepcopy(student), settings, quantizer, self.train)
        if method == "qat":
            answers = self.val.labeled(predict(self.teacher, self.val))
            session = Session(self.config.machine, self.config.seed, Path("reports/qat"))
            train_on(network, self.teacher, self.task, settings.optimizer, self.config.distill, session, val=answers)
        round_calibrated(network, settings, self.train)
        onnx.save(self._exported(network, "int8", quantizer=quantizer.model_dump(mode="json")), path)
        return path

    def _exported(self, network: nn.Module, precision: str, **fields: Any) -> onnx.ModelProto:
        spec, opset = self._spec(network, **fields), self.config.export.opset
        return export_network(network, spec, precision, opset, dynamic_size=False, flavor="cpu")

    def _spec(self, network: nn.Module, **fields: Any) -> bundle.Spec:
        return bundle.new_spec(network, self.val.image_size, self.config.task.name, **fields)

    def _save(self, network: nn.Module, name: str, **fields: Any) -> None:
        bundle.save_bundle(network, self._spec(network, **fields), Path("models") / name)


def _discard(metrics: Mapping[str, float], step: int) -> None: ...


def main(folder: Path, seconds: float | None) -> None:
    """Measure what was not measured yet, and write tables.md and own_network.png.

    Raises:
        Unfinished: the time was over.
    """
    place = (paths.REPORTS / "own_network").resolve()
    kept, results = Kept(place / "results", seconds), dict[str, Json]()
    for name, params in yaml.safe_load(TABLE.read_text()).items():
        with project(place / name, params):
            results[name] = NetworkStudy(name, kept).measure()
    write_page(results, folder)
