"""`python -m leanface.assets.ship`: the pipeline's INT8 network becomes the one that LeanFace ships.

For whoever prepares a release: it takes what lies in the working tree, if the report's gates passed.
"""

from leanface import paths
from leanface.config import load_config
from leanface.report.files import copy_file, read_json, write_json
from leanface.report.gate import require_gates


def ship() -> None:
    """Copy the network and its model card; beside them, what it scored, and on which faces.

    Raises:
        LeanFaceError: a gate failed, or the report or the network is missing; nothing was changed.
    """
    require_gates(paths.SUMMARY)
    summary, config = read_json(paths.SUMMARY), load_config(paths.CONFIG)
    scores = {
        "seed": config.seed,
        "data": config.data.model_dump(mode="json"),
        "device": summary["device"],
        "gates": summary["gates"],
        "scores": summary["variants"][paths.DEPLOYED],
    }
    # Reports are in Git, the network is in DVC's cache: where it is missing, nothing may change.
    copy_file(paths.onnx_path(paths.DEPLOYED), paths.PACKAGED_MODEL)
    copy_file(paths.MODEL_CARD, paths.PACKAGED_CARD)
    write_json(paths.PACKAGED_SCORES, scores)


if __name__ == "__main__":
    ship()
