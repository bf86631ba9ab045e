"""Make a sweep of many trials, and time how they are compared: `python -m tools.many_trials 1000`.

In a scratch clone whose pipeline has run: each trial is the last report's numbers, slightly changed, as an experiment
of Git, a record of the sweep, and a run in MLflow.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from typing import Any

from leanface import paths, tracking
from leanface.catalog import DEPLOYED
from leanface.sweep.trials import Trial, save_trial, sweep_folder

SWEEP = "many"


def main() -> None:
    """Print seconds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("count", type=int)
    count = parser.parse_args().count
    summary, names = json.loads(paths.SUMMARY.read_text()), [f"{SWEEP}-{number:07x}" for number in range(count)]
    parent = tracking.begin_run(f"sweep {SWEEP}", {}, {tracking.SWEEP_TAG: SWEEP})
    for name in names:
        ratio, temperature = round(random.uniform(0.1, 0.9), 3), random.choice([1, 2, 4, 8])
        varied = {"prune.ratio": ratio, "distill.temperature": temperature}
        _record(name, varied, _changed(summary, ratio), parent.record.run_id)
    parent.finish("FINISHED")
    start, before = time.perf_counter(), _cpu_seconds()
    command = [sys.executable, "-m", "leanface", "compare", "--sweep", SWEEP]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds() - before
    size = (paths.COMPARISONS / f"{SWEEP}.html").stat().st_size
    print(f"leanface compare of {count} trials: {seconds:.1f} s, CPU time {cpu_seconds:.1f} s, {size / 1e6:.1f} MB")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _changed(summary: dict[str, Any], ratio: float) -> dict[str, Any]:
    row: dict[str, Any] = summary["variants"][DEPLOYED]
    changed = {key: value * random.uniform(0.9, 1.1) for key, value in row.items() if isinstance(value, float)}
    changed["speedup"] = 10 + 20 * ratio * random.uniform(0.9, 1.1)
    return summary | {"variants": summary["variants"] | {DEPLOYED: row | changed}}


def _record(name: str, varied: dict[str, Any], summary: dict[str, Any], parent: str | None) -> None:
    blob = _git("hash-object", "-w", "--stdin", text=json.dumps(summary))
    reports = _git("ls-tree", f"HEAD:{paths.REPORTS}").splitlines()
    kept = [line for line in reports if not line.endswith(f"\t{paths.SUMMARY.name}")]
    tree = _git("mktree", text="\n".join([*kept, f"100644 blob {blob}\t{paths.SUMMARY.name}"]) + "\n")
    top = [line for line in _git("ls-tree", "HEAD").splitlines() if not line.endswith(f"\t{paths.REPORTS}")]
    root = _git("mktree", text="\n".join([*top, f"040000 tree {tree}\t{paths.REPORTS}"]) + "\n")
    head = _git("rev-parse", "HEAD")
    _git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", _git("commit-tree", root, "-p", head, "-m", name))
    now = time.time()
    save_trial(Trial(name, [], varied, "finished", started=now, ended=now), sweep_folder(SWEEP))
    tags = {tracking.EXPERIMENT_TAG: name, tracking.SWEEP_TAG: SWEEP}
    run = tracking.begin_run(name, varied, tags, parent=parent)
    tracking.log_headline(run, summary)
    run.finish("FINISHED")


def _git(*arguments: str, text: str = "") -> str:
    done = subprocess.run(["git", *arguments], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
