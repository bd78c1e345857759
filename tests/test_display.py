"""What a notebook and a terminal show: displays, reports as tables and progress bars."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import time
import warnings
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import (
    AutoencoderTransformer,
    HEBAEImputer,
    HEBAETransformer,
    NoveltyDetector,
    VAETransformer,
    WAETransformer,
    _sklearn,
)
from skhebae.diagnostics import bound_gap, latent_report, regularisation_path
from skhebae.exceptions import LatentWarning
from skhebae.fitted import FitSummary, progress
from skhebae.fitted.progress import find_tqdm, progress_bar
from skhebae.markup import html_table

# A few epochs are all that these tests need.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CLASSES = [HEBAETransformer, VAETransformer, WAETransformer, AutoencoderTransformer]
VOID = {"br", "hr", "img", "input", "meta", "link", "path", "svg"}


class Reader(HTMLParser):
    """Reads tables, ids and addresses, and checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tables, self.ids, self.addresses, self.tags, self.captions = [], [], [], [], []
        self._open, self._text = [], ""
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href"):
                self.addresses.append(value)
            assert not name.startswith("on")
        if tag not in VOID:
            self._open.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td", "caption"):
            self._text = ""

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        opened, attrs = self._open.pop()
        assert opened == tag
        if tag in ("th", "td"):
            self.tables[-1][-1].append((self._text, "text-align:right" in attrs["style"]))
        elif tag == "caption":
            self.captions.append(self._text)

    def handle_data(self, data):
        self._text += data


def cells(table):
    return [[text for text, _ in row] for row in table]


def below(estimator):
    """Return what follows scikit-learn's display, and the values that it shows."""
    shown = estimator._repr_html_()
    start = shown.rindex("<details")
    reader = Reader(shown[start:])
    (table,) = reader.tables
    assert reader.ids == reader.addresses == []
    assert set(reader.tags) <= {"details", "summary", "table", "thead", "tbody", "tr", "th", "td"}
    return shown[start:], {name: rest for name, *rest in cells(table)[1:]}


@pytest.fixture(params=[*CLASSES, HEBAEImputer, NoveltyDetector], ids=lambda cls: cls.__name__)
def every(request, table, brief):
    """Each estimator, fitted."""
    cls = request.param
    if cls is HEBAEImputer:
        return cls(HEBAETransformer(**brief)).fit(table)
    if cls is NoveltyDetector:
        return cls(HEBAETransformer(**brief), calibration=0.25, random_state=0).fit(table)
    return cls(**brief).fit(table)


# Estimators


def test_summary(fitted):
    summary = fitted.fitted_.summary()
    assert isinstance(summary, FitSummary)
    found = summary.to_dict()
    assert found["rows"] == "240"
    assert found["features"] == "12"
    assert found["epochs"].split()[0] == str(fitted.n_iter_)
    assert found["rows per minibatch"] == "64"
    text = str(summary).splitlines()
    assert len(text) == len(summary.facts)
    assert re.split(r"\s{2,}", text[2]) == ["components", "3", "n_components=3"]
    (table,) = Reader(summary._repr_html_()).tables
    assert cells(table) == [["", "fitted", "parameter"], *map(list, summary.facts)]


def test_what_auto_was_is_what_training_used(table, quick, monkeypatch):
    import skhebae.fitted.fit as fit_module

    seen, train = [], fit_module.train

    def watched(run, rows, split, schedule, **rest):
        seen.append((schedule, run))
        return train(run, rows, split, schedule, **rest)

    monkeypatch.setattr(fit_module, "train", watched)
    model = HEBAETransformer(**quick, row_share=0.25, input_noise=0.1, max_iter=3).fit(table)
    ((schedule, run),) = seen
    found = {fact.name: fact for fact in model.fitted_.summary().facts}
    assert found["row share of the penalty"][1:] == ("0.25", "row_share=0.25")
    assert found["rows per minibatch"].value == str(schedule.batch_size)
    assert found["learning rate at the start"].value == f"{schedule.learning_rate:g}"
    assert found["weight decay"].value == f"{run.weight_decay:.4g}"
    assert found["input noise"][1:] == ("0.1", "input_noise=0.1")
    assert found["epochs"][1:] == (str(schedule.n_epochs), "max_iter=3")


def test_epochs_of_a_training_that_stopped_early(table, quick):
    model = HEBAETransformer(**quick, max_iter=400, tol=9.0, linear_path=False).fit(table)
    value = model.fitted_.summary().to_dict()["epochs"]
    record = model.fitted_.record
    assert value == f"{model.n_iter_} of at most {record.used['max_iter']}, converged"


def test_parts_of_a_stream(table, brief):
    model = HEBAETransformer(**brief).partial_fit(table[:100]).partial_fit(table[100:])
    found = model.fitted_.summary().to_dict()
    assert (found["rows"], found["epochs"]) == ("240", "2")


def test_display_of_every_estimator(every):
    html, found = below(every)
    assert found["rows"][0] == ("180" if isinstance(every, NoveltyDetector) else "240")
    assert found["epochs"] == ["5", "max_iter=5"]
    assert found["device of the fit"][1] == "device='auto'"
    assert f"What {type(every).__name__}.fit chose" in html
    assert "<details style" in html  # folded
    bundle = every._repr_mimebundle_()
    assert bundle["text/html"].endswith(html)
    assert bundle["text/plain"] == repr(every)


def test_copies_and_files_have_the_same_display(every, tmp_path):
    html, _ = below(every)
    assert below(pickle.loads(pickle.dumps(every)))[0] == html
    assert below(copy.deepcopy(every))[0] == html
    if hasattr(every, "save"):
        every.save(tmp_path / "model")
        assert below(type(every).load(tmp_path / "model"))[0] == html


def test_scikit_learns_own_display_stays(every):
    cls = type(every)
    plain = cls()
    shown = plain._repr_html_()
    assert "fit chose" not in shown
    assert cls.__name__ in shown
    with sklearn.config_context(display="text"):
        assert not hasattr(every, "_repr_html_")
        assert set(every._repr_mimebundle_()) == {"text/plain"}
    two = every._repr_html_() + every._repr_html_()
    ids = re.findall(r' id="([^"]+)"', two)
    assert len(ids) == len(set(ids))


def test_changed_parameters_are_still_marked():
    shown = HEBAETransformer(3)
    assert repr(shown) == "HEBAETransformer(n_components=3)"
    html = shown._repr_html_()
    if "user-set" in html:  # scikit-learn from 1.7 on
        rows = re.findall(r'<tr class="([a-z-]+)">.*?</tr>', html, re.DOTALL)
        assert rows.count("user-set") == 1


def test_pipelines_and_searches(table, brief):
    pipeline = make_pipeline(StandardScaler(), HEBAETransformer(**brief)).fit(table)
    assert "HEBAETransformer" in pipeline._repr_html_()
    columns = ColumnTransformer([("codes", HEBAETransformer(**brief), [0, 1, 2])]).fit(table)
    assert "HEBAETransformer" in columns._repr_html_()
    search = GridSearchCV(HEBAETransformer(**brief), {"n_components": [1, 2]}, cv=2).fit(table)
    assert "HEBAETransformer" in search._repr_html_()
    assert "fit chose" in search.best_estimator_._repr_html_()


def test_no_link_without_a_site(every, monkeypatch):
    assert every._get_doc_link() == ""
    assert "skhebae." not in "".join(re.findall(r'href="([^"]*)"', every._repr_html_()))
    monkeypatch.setattr(_sklearn, "DOCS_URL", "https://docs.local/")
    page = f"https://docs.local/api/skhebae.{type(every).__name__}.html"
    assert every._get_doc_link() == page
    assert f'href="{page}"' in every._repr_html_()


class Mine(HEBAETransformer):
    """A subclass of a user's."""


def test_no_link_for_classes_of_the_users(monkeypatch):
    monkeypatch.setattr(_sklearn, "DOCS_URL", "https://docs.local/")
    assert Mine()._get_doc_link() == ""


def test_names_are_escaped(brief):
    rng = np.random.default_rng(0)
    name = "<script>alert(1)</script>"
    X = pd.DataFrame(rng.normal(size=(40, 3)), columns=[name, "b", "c"])
    model = HEBAETransformer(**brief).fit(X)
    batch = np.array(["<b>x</b>", "y"])[np.arange(40) % 2]
    for shown in (model, HEBAETransformer(**brief).fit(X, batch=batch)):
        html, _ = below(shown)
        assert "<script>alert" not in shown._repr_html_()
        assert "<b>x" not in html


def test_displays_are_quick(fitted):
    """In processor time, so that a busy machine does no harm; measured at 0.6 ms."""
    fitted._html_below()
    start = time.process_time()
    for _ in range(10):
        fitted._html_below()
    assert (time.process_time() - start) / 10 < 0.1


def test_fitted_value_has_a_short_repr(fitted):
    expected = f"FittedAutoencoder(12 features, 3 components, {fitted.n_iter_} epochs)"
    assert repr(fitted.fitted_) == expected


# Tables and reports


def test_html_table():
    html = html_table(("a", "<b>"), [("x & y", "1\n2"), ("z", 3)], caption="<c>", right=(1,))
    reader = Reader(html)
    assert reader.captions == ["<c>"]
    assert reader.tables == [
        [
            [("a", False), ("<b>", True)],
            [("x & y", False), ("1 2", True)],
            [("z", False), ("3", True)],
        ]
    ]
    # Colours of the page, so that it is legible in any theme.
    legible(html)


def legible(html):
    assert set(re.findall(r"(?<![a-z-])color:([^;]+)", html)) == {"inherit"}
    assert set(re.findall(r"background[a-z-]*:([^;]+)", html)) <= {"transparent"}


def test_latent_report_as_a_table(fitted, table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)
        report = latent_report(fitted, table)
    html = report._repr_html_()
    legible(html)
    reader = Reader(html)
    name = type(fitted).__name__
    assert reader.captions == [f"LatentReport of {name} on 240 rows (nats per row)"]
    summary, dimensions = reader.tables
    assert dict(cells(summary))["standard ELBO"] == f"{report.elbo:.2f}"
    assert cells(dimensions)[0][0] == "dimension"
    assert [right for _, right in dimensions[1]] == [False, True, True, True, False]
    assert [row[3] for row in cells(dimensions)[1:]] == [f"{kl:.3g}" for kl in report.kl]
    frame = report.to_frame()
    np.testing.assert_array_equal(frame["kl"], report.kl)
    for remark in report.remarks:
        assert remark.split(":")[0] in html


@pytest.mark.parametrize("cls", [HEBAETransformer, VAETransformer, WAETransformer])
def test_bound_gap_as_a_table(cls, table, brief):
    gap = bound_gap(cls(**brief).fit(table), table[:20], n_draws=200)
    html = gap._repr_html_()
    legible(html)
    reader = Reader(html)
    assert reader.captions == [f"BoundGap of {cls.__name__} on 20 rows (nats per row)"]
    (found,) = reader.tables
    values = {name: rest for name, *rest in cells(found)}
    mean, error = gap.summary["gaussian"]
    assert values["any Gaussian misses"] == [f"{mean:.3f}", f"{error:.3f}"]
    assert values["log p(x), by importance weights"] == [f"{gap.log_likelihood.mean():.3f}", ""]
    assert all(row[1][1] and row[2][1] for row in found)
    # The text has the same numbers.
    assert all(value in repr(gap) for value, _ in list(values.values())[1:])


def test_regularisation_path_as_a_table(table):
    path = regularisation_path(StandardScaler().fit_transform(table))
    html = path._repr_html_()
    legible(html)
    reader = Reader(html)
    curves, findings = reader.tables
    assert reader.captions[0].startswith("RegularisationPath of Gaussian on 240 rows")
    assert cells(curves)[0] == ["covariance_prior", "train", "held-out", "generated", ""]
    (best,) = [row for row in cells(curves) if row[-1] == "best"]
    assert best[0] == f"{path.best:.4g}"
    assert dict(cells(findings))["highest held-out likelihood"].endswith(f"{path.best:.4g}")
    assert [right for _, right in curves[1]] == [True] * 4 + [False]
    assert str(path).count("  best") == 1
    narrow = regularisation_path(StandardScaler().fit_transform(table), values=[1e3, 1e4])
    assert narrow.remarks == ("The best value is the last on its side: try smaller ones too.",)
    assert narrow.remarks[0] in narrow._repr_html_()
    assert f"! {narrow.remarks[0]}" in repr(narrow)


def test_explain_is_a_frame_with_a_display(table, brief):
    detector = NoveltyDetector(HEBAETransformer(**brief), calibration=0.25, random_state=0)
    shares = detector.fit(table).explain(table[:2])
    assert "<table" in shares._repr_html_()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


# Progress bars


def lines(text):
    return [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]


class Recorder:
    """Stands for tqdm, and writes down what is asked of it."""

    made: list[Recorder] = []  # noqa: RUF012

    def __init__(self, **options):
        self.options, self.n, self.total = options, options["initial"], options["total"]
        self.moves, self.losses, self.closed = [], [], False
        Recorder.made.append(self)

    def update(self, by):
        assert by >= 0.0
        self.n += by
        self.moves.append(self.n)

    def set_postfix(self, loss, refresh):
        self.losses.append(loss)

    def refresh(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(Recorder, "made", [])
    monkeypatch.setattr(progress, "find_tqdm", lambda: Recorder)
    return Recorder.made


def test_bars_of_trials_and_of_the_fit(table, brief, bars):
    model = HEBAETransformer(**brief, verbose=1).fit(table)
    *trials, last = bars
    names = [bar.options["desc"] for bar in trials]
    n = len(trials)
    assert n == 3
    assert names == [f"HEBAETransformer, trial {i} of {n}" for i in range(1, n + 1)]
    assert not any(bar.options["leave"] for bar in trials)
    assert last.options["desc"] == "HEBAETransformer"
    assert last.options["leave"]
    assert last.losses == [f"{loss:.4g}" for loss in model.history_["loss"]]
    assert last.moves == list(range(1, model.n_iter_ + 1))
    assert all(bar.closed for bar in bars)


def test_long_epochs_move_the_bar(table, quick, bars):
    HEBAETransformer(**quick, verbose=1, batch_size=8, max_iter=2, linear_path=False).fit(table)
    (bar,) = bars
    assert bar.moves[:3] == pytest.approx([1 / 30, 2 / 30, 3 / 30])
    assert len(bar.moves) == 2 * (30 + 1)
    assert bar.n == pytest.approx(2.0)
    assert "{n:.1f}/{total_fmt}" in bar.options["bar_format"]


def test_a_bar_goes_on_where_a_resumed_fit_does(table, quick, bars, tmp_path):
    options = {**quick, "max_iter": 4, "linear_path": False, "verbose": 1}
    HEBAETransformer(**options).fit(table, checkpoint=tmp_path / "state")
    HEBAETransformer(**options).fit(table, checkpoint=tmp_path / "state")
    first, second = bars
    assert (first.options["initial"], first.n) == (0, 4)
    assert (second.options["initial"], second.n, second.total) == (4, 4, 4)


def test_a_training_that_stopped_early_fills_its_bar(table, quick, bars):
    model = HEBAETransformer(**quick, max_iter=400, tol=9.0, linear_path=False, verbose=1).fit(
        table
    )
    (bar,) = bars
    assert bar.options["total"] == 400
    assert bar.n == bar.total == model.n_iter_ < 400


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_bar_closes_when_a_fit_fails(table, quick, bars, error):
    def rate(epoch):
        if epoch == 2:
            raise error("enough")
        return 1.0

    with pytest.raises(error, match="enough"):
        HEBAETransformer(**quick, learning_rate=rate, linear_path=False, verbose=1).fit(table)
    (bar,) = bars
    assert bar.closed
    assert bar.n == 2
    assert bar.total > 2  # it shows where the fit stopped


def test_bars_change_no_result(table, quick):
    options = {**quick, "batch_size": 8, "max_iter": 2}
    silent = HEBAETransformer(**options).fit_transform(table)
    np.testing.assert_array_equal(
        HEBAETransformer(**options, verbose=1).fit_transform(table), silent
    )


def test_what_a_terminal_shows(table, quick, capsys):
    HEBAETransformer(**quick, verbose=1, max_iter=4, linear_path=False).fit(table)
    output = capsys.readouterr()
    assert output.out == ""
    last = lines(output.err)[-1]
    assert last.startswith("HEBAETransformer: 100%")
    assert re.search(r"\| 4/4 \[00:0\d<00:00, loss=\d+\.\d+\]$", last)


def test_no_bar_without_verbose(capsys):
    with progress_bar("x", shows=False, n_epochs=3, n_minibatches=100) as callbacks:
        assert callbacks.on_epoch(1.0) is None
        assert callbacks.on_step is None
    assert capsys.readouterr().err == ""


def test_no_warning_in_a_notebook_without_ipywidgets(monkeypatch):
    """As if IPython's kernel ran, and ipywidgets were missing."""
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("ipywidgets", "IPython.html.widgets"):
        monkeypatch.setitem(sys.modules, name, None)
    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tqdm = find_tqdm()
    assert "notebook" not in tqdm.__name__
    assert tqdm.__mro__[1].__module__ in ("tqdm.asyncio", "tqdm.std")


CELLS = [
    "import numpy as np\n"
    "from skhebae import HEBAETransformer\n"
    "from skhebae.diagnostics import latent_report\n"
    "X = np.random.default_rng(0).normal(size=(240, 6))\n"
    "model = HEBAETransformer(2, hidden_layer_sizes=(8,), random_state=0, verbose=1)\n"
    "model",
    "model.fit(X)",
    "latent_report(model, X)",
    "from IPython.display import Markdown\nMarkdown(model.card())",
]


@pytest.mark.slow
def test_a_notebook():
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own libraries
        client.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    unfitted, fitted, report, card = (cell.outputs for cell in notebook.cells)
    assert "fit chose" not in unfitted[-1]["data"]["text/html"]
    assert "What HEBAETransformer.fit chose" in fitted[-1]["data"]["text/html"]
    streams = "".join(out["text"] for out in fitted if out["output_type"] == "stream")
    assert "Warning" not in streams
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        assert re.search(r"HEBAETransformer: 100%.*loss=", streams)
        assert "trial 1 of 3" in streams
    else:
        view = "application/vnd.jupyter.widget-view+json"
        assert any(view in out.get("data", {}) for out in fitted)
    assert "LatentReport of HEBAETransformer" in report[-1]["data"]["text/html"]
    assert card[-1]["data"]["text/markdown"].startswith("# Model card: HEBAETransformer")
