"""`python -m leanface.assets.ship`: the pipeline's INT8 network becomes the one that LeanFace ships, and its FP16 one.

For whoever prepares a release: it takes what lies in the working tree, if the report's gates passed.
"""

from leanface import paths
from leanface.bundle import load_network, save_bundle
from leanface.config import load_config
from leanface.report.files import copy_file, read_json, write_json
from leanface.report.gate import require_gates


def ship() -> None:
    """Copy both networks and the model card; beside them, what they scored, and on which faces.

    Raises:
        LeanFaceError: a gate failed, or the report or a network is missing; nothing was changed.
    """
    require_gates(paths.SUMMARY)
    summary, config = read_json(paths.SUMMARY), load_config(paths.CONFIG)
    scores = {
        "seed": config.seed,
        "data": config.data.model_dump(mode="json"),
        "device": summary["device"],
        "gates": summary["gates"],
        "scores": {name: summary["variants"][name] for name in (paths.DEPLOYED, "distilled_fp16")},
    }
    # Reports are in Git, the network is in DVC's cache: where it is missing, nothing may change.
    student, spec = load_network(paths.DISTILLED)
    copy_file(paths.onnx_path(paths.DEPLOYED), paths.PACKAGED_MODEL)
    save_bundle(student, spec, paths.PACKAGED_STUDENT, half=True)
    copy_file(paths.MODEL_CARD, paths.PACKAGED_CARD)
    write_json(paths.PACKAGED_SCORES, scores)


if __name__ == "__main__":
    ship()
