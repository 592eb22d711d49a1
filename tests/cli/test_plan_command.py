"""`coopt plan` as a person uses it: output, files, exit codes, and messages without a traceback."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import coopt
from command_line import FLEET, JOB, quadratic_measurement, run, write_files
from coopt import Allocation, Budget, Fleet, Problem, solve_allocation
from coopt.cli import example_problem, main
from coopt.cli.plan_command import EXAMPLE
from coopt.problem.files import read_problem


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_files(tmp_path)


def test_plan_prints_the_decision_and_writes_it(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    assert run("plan", *files, "--json", out) == 0
    plan = Allocation.from_json(out.read_text())
    printed = capsys.readouterr()
    for expected in (
        f"{plan.rounds:,}",
        f"{plan.local_steps}",
        "phone",
        "board",
        "server",
        "transient",
        "noise",
    ):
        assert expected in printed.out
    for batch in plan.batch_sizes:
        assert f"{batch:,}" in printed.out
    assert str(out) in printed.err
    plan.certify()


def test_the_printed_plan_is_the_library_s(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    run("plan", *files, "--json", out)
    read = Allocation.from_json(out.read_text())
    assert read == solve_allocation(read.problem)


def test_the_example_in_the_help_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", "--help"])
    assert end.value.code == 0
    assert EXAMPLE in capsys.readouterr().out
    lines = [line.strip() for line in EXAMPLE.splitlines()]
    middle, last = lines.index("job.toml"), next(i for i, line in enumerate(lines) if line.startswith("$"))
    fleet, job = tmp_path / "fleet.csv", tmp_path / "job.toml"
    fleet.write_text("\n".join(lines[lines.index("fleet.csv") + 1 : middle]).strip())
    job.write_text("\n".join(lines[middle + 1 : last]))
    assert run("plan", fleet, job) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"coopt {coopt.__version__}\n"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("smoothness = 1.0", "smoothnes = 1.0", ["'smoothnes' is unknown", "did you mean 'smoothness'"]),
        ("learning_rate = 0.1", "learning_rate = -0.1", ["learning_rate = -0.1"]),
        ("learning_rate = 0.1", "learning_rate = 1.5", ["learning_rate"]),
        ("pl_constant = 0.02\n", "", ["pl_constant"]),
        ("initial_gap = 2.0", 'initial_gap = "two"', ["initial_gap = 'two'"]),
        ("[budget]", "[buget]", ["'buget' is unknown", "did you mean 'budget'"]),
        ("cost = 200_000", "cost = ", ["is not valid TOML"]),
        ("cost = 200_000\ntime = 1800\n", "", ["max_rounds"]),
        ("round_cost = 100", "round_cost = 100\nmax_rounds = 2.5", ["max_rounds = 2.5"]),
    ],
)
def test_a_wrong_job_is_exit_code_2(
    files: tuple[Path, Path], before: str, after: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, job = files
    assert before in JOB
    job.write_text(JOB.replace(before, after))
    assert run("plan", fleet, job) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("coopt: error: ")
    for words in said:
        assert words in printed.err


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("600", "-600", ["samples", "0", "-600"]),
        ("600", "6e2.5", ["line 2", "samples = '6e2.5'"]),
        ("divergence", "divergance", ["'divergance' is unknown", "did you mean 'divergence'"]),
        ("phone,600", "600", ["line 2", "5 cells"]),
        ("0.1,200", "nan,200", ["divergence[1] (board) = nan"]),
        (FLEET, "", ["is empty"]),
        (FLEET, "names,samples,gradient_noise\nphone,600,4.0\n", ["line 1", "'divergence' is missing"]),
        (FLEET, "samples,gradient_noise,divergence\n", ["at least one device"]),
    ],
)
def test_a_wrong_fleet_is_exit_code_2(
    files: tuple[Path, Path], before: str, after: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, job = files
    assert before in FLEET
    fleet.write_text(FLEET.replace(before, after, 1))
    assert run("plan", fleet, job) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    for words in said:
        assert words in printed.err


def test_missing_files_and_folders_are_exit_code_2(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, job = files
    assert run("plan", tmp_path / "nowhere.csv", job) == 2
    assert run("plan", fleet, job, "--json", tmp_path / "nowhere" / "plan.json") == 2
    assert run("plan", fleet, job, "--json", tmp_path) == 2
    assert run("plan", fleet, job, "--json", tmp_path / ("x" * 300)) == 2
    assert run("plan", fleet, job, "--plot", tmp_path / "plan.xyz") == 2
    errors = capsys.readouterr().err
    assert "nowhere.csv" in errors
    assert "no folder" in errors
    assert "is a folder" in errors
    assert "picture format" in errors


@pytest.mark.parametrize(("limit", "name"), [("cost = 50", "cost"), ("time = 5", "time")])
def test_no_plan_within_the_limits_is_exit_code_3(
    files: tuple[Path, Path], limit: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, job = files
    before = "cost = 200_000" if name == "cost" else "time = 1800"
    job.write_text(JOB.replace(before, limit))
    assert run("plan", fleet, job) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert name in printed.err


def test_warnings_are_said_in_one_line(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    fleet, job = files
    job.write_text(JOB.replace("initial_gap = 2.0", "initial_gap = 1e-9"))
    assert run("plan", fleet, job) == 0
    errors = capsys.readouterr().err
    assert errors.startswith("coopt: warning: ")
    assert "cli.py" not in errors


def test_large_fleets_are_summarised(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.reader(io.StringIO(FLEET)))
    many = [rows[0], *([f"{row[0]}-{i}", *row[1:]] for i in range(10) for row in rows[1:])]
    fleet = tmp_path / "many.csv"
    fleet.write_text("\n".join(",".join(row) for row in many))
    assert run("plan", fleet, files[1]) == 0
    out = capsys.readouterr().out
    assert "Plan for 30 devices" in out
    assert "median" in out
    assert "board-7" not in out


def test_the_example_is_instructive() -> None:
    problem = example_problem()
    plan = solve_allocation(problem)
    assert plan.gap <= 1e-12
    assert plan.rounds > 1
    assert plan.local_steps > 1
    assert {"cost", "time"} <= set(plan.binding)
    assert plan.batch_sizes.max() >= 4 * plan.batch_sizes.min()
    assert Problem(problem.fleet, problem.constants, problem.budget) == problem


def test_the_command_is_installed_and_refuses_nonsense() -> None:
    command = [str(Path(sys.executable).with_name("coopt")), "fly"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_several_jobs_are_one_table(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, job = files
    hurried, out = tmp_path / "hurried.toml", tmp_path / "plans.csv"
    hurried.write_text(JOB.replace("time = 1800", "time = 5"))
    assert run("plan", fleet, job, hurried, "--csv", out) == 3
    printed = capsys.readouterr()
    assert "hurried.toml: " in printed.err and str(out) in printed.err
    with out.open() as stream:
        found, missing = csv.DictReader(stream)
    alone = solve_allocation(Problem(*read_problem(job, Fleet.from_csv(fleet))))
    assert int(found["rounds"]) == alone.rounds
    assert float(found["error_bound"]) == alone.error_bound
    assert missing["rounds"] == "" and "time" in missing["reason"]
    assert f"{alone.rounds:,}" in printed.out and "none" in printed.out


def test_a_measurement_is_planned_by_its_forecast(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, job = files
    saved, written, table = tmp_path / "m.npz", tmp_path / "plan.json", tmp_path / "plans.csv"
    measurement = quadratic_measurement(fleet)
    measurement.save(saved)
    assert run("plan", fleet, job, "--measurement", saved, "--json", written) == 0
    printed = capsys.readouterr().out
    assert "Predicted error: forecast" in printed and "for this forecast" in printed
    plan = Allocation.from_json(written.read_text())
    assert plan.source is not None and plan.source.measurement == measurement.model.digest
    plan.certify(measurement)
    assert run("plan", fleet, job, "--measurement", saved, "--learning-rate", "0.2", "--csv", table) == 0
    with table.open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["learning_rate"] == "0.2" and row["error_bound"] == "" and float(row["predicted_error"]) > 0.0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("plan", fleet, job, "--measurement", saved, "--bound", "dynamite")
    renamed = replace(measurement, names=("one", "two", "three"))
    renamed.save(saved)
    assert run("plan", fleet, job, "--measurement", saved) == 2
    assert "a forecast knows devices by position" in capsys.readouterr().err


def test_json_and_csv_and_devices_go_together_for_one_job_and_for_several(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, job = files
    plan, table, devices = tmp_path / "plan.json", tmp_path / "plans.csv", tmp_path / "devices.csv"
    assert run("plan", fleet, job, "--json", plan, "--csv", table, "--devices", devices) == 0
    alone = Allocation.from_json(plan.read_text())
    with table.open() as stream:
        (row,) = csv.DictReader(stream)
    assert int(row["rounds"]) == alone.rounds
    with devices.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(each["batch_size"]) for each in rows] == alone.batch_sizes.tolist()
    assert [each["device"] for each in rows] == ["phone", "board", "server"]

    hurried = tmp_path / "hurried.toml"
    hurried.write_text(JOB.replace("time = 1800", "time = 5"))
    capsys.readouterr()
    assert run("plan", fleet, job, hurried, "--json", plan, "--csv", table, "--devices", devices) == 3
    several = json.loads(plan.read_text())
    assert Allocation.from_dict(several["plans"]["job.toml"]) == alone
    assert several["errors"]["hurried.toml"]["kind"] == "InfeasibleError"
    assert len(devices.read_text().splitlines()) == 4


def test_a_dash_is_standard_output_and_leaves_out_the_tables(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", *files, "--json", "-") == 0
    plan = Allocation.from_json(capsys.readouterr().out)
    assert run("plan", *files, "--csv", "-") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert int(row["rounds"]) == plan.rounds
    assert run("plan", *files, "--json", "-", "--csv", "-") == 2
    assert "standard output: two results cannot go to the same place" in capsys.readouterr().err


def test_a_picture_is_for_one_job(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, job = files
    other = tmp_path / "other.toml"
    other.write_text(JOB)
    assert run("plan", fleet, job, other, "--plot", tmp_path / "plan.png") == 2
    assert "--plot is for one job" in capsys.readouterr().err
    assert run("plan", fleet, job, "--plot", tmp_path / "plan.png") == 0
    assert (tmp_path / "plan.png").stat().st_size > 10_000


def test_limits_on_the_command_line_take_the_place_of_the_job_s_and_have_units(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--time", "20min", "--cost", "5 epochs", "--max-rounds", "40", "--energy", "1 kWh")
    assert run("plan", *files, *given, "--json", "-") == 0
    plan = Allocation.from_json(capsys.readouterr().out)
    assert plan.problem.budget == Budget(
        cost=5.0 * 11_600, time=1200.0, round_cost=100.0, max_rounds=40, energy=3.6e6
    )
    assert run("plan", *files, "--time", "1 fortnight") == 2
    assert "'fortnight' is no unit here" in capsys.readouterr().err


def test_every_bound_can_be_named(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dynamite", "nonconvex", "certified(gamma=0.3, z=2.0)"):
        assert run("plan", *files, "--bound", name, "--json", "-") == 0
        assert Allocation.from_json(capsys.readouterr().out).bound.startswith(name.partition("(")[0])
    assert run("plan", *files, "--max-rounds", 5, "--max-local-steps", 3, "--bound", "tradeoff") == 2
    assert "tradeoff" in capsys.readouterr().err
    assert run("plan", *files, "--bound", "sertified") == 2
    assert "must be one of 'certified'" in capsys.readouterr().err
    assert run("plan", *files, "--bound", "certified(gamma=0.3)") == 2
    assert "must be written as certified(gamma=..., z=...)" in capsys.readouterr().err


def test_a_search_ends_when_it_is_told_to(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for given, status in ((("--gap-tolerance", 0.5), "GAP_TOLERANCE"), (("--time-limit", 0), "TIME_LIMIT")):
        assert run("plan", *files, *given, "--json", "-") == 0
        assert json.loads(capsys.readouterr().out)["status"] == status
    assert run("plan", *files, "--time-limit", -1) == 2
    assert "time_limit = -1.0: must be" in capsys.readouterr().err


def test_files_in_the_wrong_places_are_named(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", *files[::-1]) == 2
    assert "a job stands where the fleet should" in capsys.readouterr().err
    assert run("plan", *files, "--measurement", files[0]) == 2
    said = capsys.readouterr().err
    assert "is no measurement: not an .npz archive" in said and "pickle" not in said
    assert run("plan", tmp_path / "none.csv", files[1]) == 2
    assert capsys.readouterr().err.endswith("none.csv: cannot be read: No such file or directory\n")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(files[1].read_text().replace("\ncost = ", "\ncost = -"))
    assert run("plan", *files, wrong) == 2
    assert "[budget] of wrong.toml: cost = -" in capsys.readouterr().err


def test_a_limit_that_changes_nothing_is_said(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", *files, "--energy", "1 kWh", "--json", "-") == 0
    assert "the limit on energy changes nothing: " in capsys.readouterr().err
    assert run("plan", *files, "--time", "20min", "--json", "-") == 0
    assert capsys.readouterr().err == ""


def test_the_cheapest_plan_that_reaches_an_error(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--objective", "cost", "--target-error", "0.5", "--bound", "dynamite")
    assert run("plan", *files, *given, "--json", "-") == 0
    plan = Allocation.from_json(capsys.readouterr().out)
    assert plan.error_bound <= 0.5 * (1 + 1e-9) and plan.cost < 200_000
    assert run("plan", *files, "--objective", "cost") == 2
