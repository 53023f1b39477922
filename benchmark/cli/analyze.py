"""The command `analyze`: what needs networks and is written down as data."""

from __future__ import annotations

import sys
from argparse import Namespace

from benchmark.cli.output import say_where
from benchmark.records.record import records


def analyze(arguments: Namespace) -> int:
    """`kdseg analyze cka | panels | networks`: writes data files that figures, plans and pages read."""
    if arguments.what == "networks":
        from benchmark.models.build import write_facts
        from benchmark.spec.networks import FACTS

        write_facts(FACTS)
        say_where({"networks": [str(FACTS)]})
        return 0
    from benchmark.analysis import cka, panels
    from benchmark.analysis.sources import Place, choose, known_files
    from benchmark.cli.deploy import device_of

    groups = choose(records(arguments.work_dir), arguments.dataset, arguments.methods)
    files = known_files(arguments.work_dir, arguments.teacher)
    place = Place(arguments.work_dir, files, arguments.data_root, device_of(arguments))
    written = {"cka": cka, "panels": panels}[arguments.what].analyze(
        groups, place, lambda line: print(line, file=sys.stderr)
    )
    say_where({arguments.what: [str(path) for path in written]})
    return 0
