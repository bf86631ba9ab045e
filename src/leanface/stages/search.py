"""Stage search: an architecture that meets the targets, by measured time and errors; without targets nothing."""

from leanface import bundle, paths
from leanface.config import Machine, Prune, Quantize, Samples, Search, TaskChoice
from leanface.files import atomic_write, write_json
from leanface.networks.widths import widths_of
from leanface.search.pictures import plot_search
from leanface.search.record import metrics_of
from leanface.search.search import Searcher, Settings, UnreachableError
from leanface.task import Track, load_task


def run(
    *,
    task: TaskChoice,
    search: Search,
    prune: Prune,
    quantize: Quantize,
    data: Samples,
    machine: Machine,
    seed: int,
    track: Track | None = None,
) -> dict[str, float]:
    if not search.targets:
        write_json(paths.SEARCH_REPORT / "metrics.json", {})
        write_json(paths.ARCHITECTURE, {})
        return {}
    teacher, _ = bundle.load_network(paths.TEACHER)
    settings = Settings(search, prune, quantize, machine, seed)
    searcher = Searcher(teacher, load_task(task, data), task.name, bundle.digest(paths.TEACHER), settings, track)
    record = searcher.run()
    atomic_write(paths.SEARCH, record.model_dump_json(indent=1) + "\n")
    chosen, uniform = (searcher.widths(each) for each in (record.choice.architecture, record.uniform))
    plot_search(record, widths_of(teacher), chosen, uniform, paths.SEARCH_REPORT / "search.png")
    metrics = metrics_of(record)
    write_json(paths.SEARCH_REPORT / "metrics.json", metrics)
    if record.answer is not None:
        raise UnreachableError(record.answer)
    write_json(paths.ARCHITECTURE, record.choice.architecture._asdict())
    return metrics
