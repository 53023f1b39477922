"""The report as text: what it holds, whatever the records are. `test_report_browser.py` opens it in a browser."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from benchmark.cli.__main__ import main, parser
from benchmark.core.paths import ROOT
from benchmark.method.registry import method_class, method_files
from benchmark.records.record import records
from benchmark.report.card import reproducibility_card
from benchmark.report.html import write_report
from benchmark.report.method_text import method_text
from benchmark.report.rerun import train_command
from benchmark.results.results import Results
from benchmark.spec.runs import Manifest
from tests.benchmark.builders import heteroakd, pair_records, run, setting, source

COMMITTED = records(ROOT / "results" / "records")


class Page(HTMLParser):
    """Tags, the text of each section, and everything that would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sections, self.fetched, self.tags = [], {}, [], []
        self.feed(text)
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.fetched += [found[name] for name in ("src", "href") if found.get(name, "#")[:1] != "#"]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append((tag, found.get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        section = next((name for tag, name in self.open if tag == "section"), "top")
        self.sections[section] = self.sections.get(section, "") + text


def report(made, folder, manifests=(), reason=None):
    return write_report(Results.of(made, manifests, reason), made, folder)


def test_all_of_it_is_in_the_file_and_records_are_text_and_never_markup(tmp_path):
    evil = setting("kd", variant="<script>alert(1)</script>")
    made = pair_records((evil, [51.0, 53.0, 52.0]), (heteroakd("HeteroAKD"), [51.0, 52.0, None]))
    text = report(made, tmp_path)
    page = Page(text)
    assert "<script>alert" not in text and "<script>alert(1)</script>" in page.sections["tables"]
    assert all(place.startswith("data:") for place in page.fetched)
    assert len(text) < 5_000_000
    heads = [found for tag, found in page.tags if tag == "th"]
    assert heads and all(found.get("scope") in ("col", "row") for found in heads)
    assert all(found.get("alt") for tag, found in page.tags if tag == "img")
    assert "diverged at iteration 37" in page.sections["holes"]
    assert "the largest Δ is +1.00 ± 1.00" in page.sections["verdict"]
    assert "Not made" in page.sections["figures"] and "kdseg analyze cka" in page.sections["figures"]
    assert text == report(made[::-1], tmp_path)


def test_holes_of_a_sweep_are_listed_with_their_reasons(tmp_path):
    made = pair_records((setting("kd"), [51.0]), student=(50.0,))
    manifest = Manifest(sweep="s", runs=(*[r.inputs for r in made], run(setting("cwd"), 0, source())))
    holes = Page(report(made, tmp_path, [manifest], lambda run_id: "failed: no space")).sections["holes"]
    assert "CWD" in holes and "failed: no space" in holes


def test_one_seed_and_a_student_alone_are_enough_and_nothing_is_claimed(tmp_path):
    page = Page(report(pair_records((setting("kd"), [51.0]), student=(50.0,)), tmp_path))
    assert "With n = 1 no conclusion can be drawn." in page.sections["verdict"]
    page = Page(report(pair_records(student=(50.0,)), tmp_path))
    assert "None: every run that is known of has finished." in page.sections["holes"]


def test_the_card_says_where_every_number_comes_from():
    sections = {section.title: section.items for section in reproducibility_card(COMMITTED)}
    text = {title: "\n".join(f"{item.term}: {item.text}" for item in items) for title, items in sections.items()}
    assert all(items for items in sections.values())
    for record in COMMITTED:
        origin = record.provenance
        assert origin.commit in text["Code"]
        assert all(value in text["Data sets"] for value in origin.list_hashes.values())
        assert all(f"{count} images" in text["Data sets"] for count in origin.images.values())
        assert all(version in text["Software"] for version in origin.versions.values())
        assert origin.processor in text["Hardware and time"]
        assert record.inputs.method.variant in text["Hyper-parameters"]
        if record.inputs.weights:
            assert record.inputs.weights[:16] in text["Networks and teachers"]
    assert "S_t = 1 − H_t / (H_t + H_s)" in text["Methods"], "formulas come from the docstrings"


def test_methods_are_read_without_being_imported_and_say_the_same():
    for name in method_files():
        text, kind = method_text(name), method_class(name)
        assert text and (text.title, text.source) == (kind.title, kind.source)
        known = kind.defaults()
        assert all(known[key] == value for key, value in text.defaults.items() if key in known)
    assert method_text("gone") is None


@pytest.mark.parametrize("record", COMMITTED[::6], ids=lambda record: record.id)
def test_the_command_of_a_run_makes_that_run(record):
    from benchmark.cli.train import key_values
    from benchmark.method.recipes import method_setting
    from benchmark.spec import definitions
    from benchmark.spec.networks import network
    from benchmark.spec.runs import make_run

    words = train_command(record.inputs).split(" ", 1)[1]
    asked = parser().parse_args(shlex.split(words))
    assert asked.teacher == (record.inputs.teacher and record.inputs.teacher.id)
    made = make_run(
        definitions.dataset(asked.dataset),
        definitions.protocol(asked.protocol),
        network(asked.model),
        method_setting(asked.method, key_values(asked.set, "--set"), asked.dataset),
        seed=asked.seed,
        teacher=record.inputs.teacher,
        weights=record.inputs.weights,
        overrides=key_values(asked.cfg_options, "--cfg-options"),
        precision="amp" if asked.amp else "fp32",
    )
    assert made.id == record.id


def test_the_command_writes_the_file(tmp_path, capsys):
    for made in pair_records((setting("kd"), [51.0]), student=(50.0,)):
        folder = tmp_path / "runs" / made.id
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(made.model_dump_json())
    assert main(["report", "--work-dir", str(tmp_path), "--output", str(tmp_path / "out" / "r.html")]) == 0
    assert re.search(r"^report: .*r.html$", capsys.readouterr().out, re.MULTILINE)
    assert (tmp_path / "out" / "r.html").read_text().startswith("<!doctype html>")
    assert main(["report", "--work-dir", str(tmp_path / "out")]) == 2


@pytest.mark.slow
def test_a_report_of_real_records_loads_no_torch(tmp_path):
    folder = ROOT / "results" / "records"
    arguments = ["report", "--work-dir", str(folder), "--output", str(tmp_path / "r.html")]
    code = (
        f"import sys; from benchmark.cli.__main__ import main; main({arguments!r}); "
        "print(sorted({'torch', 'mmengine', 'mmseg', 'mmcv'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "r.html").stat().st_size < 5_000_000


def test_records_that_cannot_be_read_and_seeds_without_a_record_are_named(tmp_path):
    made = pair_records((setting("kd"), [51.0, 53.0, 52.0]), (heteroakd("HeteroAKD"), [51.0, 52.0, 53.0]))
    lost = next(each for each in made if each.inputs.method.name == "heteroakd")
    left = [each for each in made if each is not lost]
    for each in left:
        (tmp_path / each.id).mkdir()
        (tmp_path / each.id / "record.json").write_text(each.model_dump_json())
    (tmp_path / lost.id).mkdir()
    (tmp_path / lost.id / "record.json").write_text("{")
    assert main(["report", "--work-dir", str(tmp_path)]) == 0
    page = Page((tmp_path / "report.html").read_text())
    assert lost.id in page.sections["holes"] and "no record" in page.sections["holes"]
    assert "and 1 that cannot be read" in page.sections["top"]
    assert "HeteroAKD has no Δ" in page.sections["verdict"]
