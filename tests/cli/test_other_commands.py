"""Schedules, trade-offs, bounds in writing and simulated training on the command line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import JOB, quadratic_measurement, run, write_files
from coopt import Allocation, Fleet, Problem, Schedule, evaluate, frontier, solve_schedule
from coopt.problem.files import read_problem

FULL = Path("/dev/full")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_files(tmp_path)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def problem_of(files: tuple[Path, Path]) -> Problem:
    fleet, job = files
    return Problem(*read_problem(job, Fleet.from_csv(fleet)))


class TestSchedule:
    def test_it_is_the_library_s(self, files, tmp_path, capsys):
        measurement = quadratic_measurement(files[0])
        measurement.save(tmp_path / "m.npz")
        out, table, picture = tmp_path / "s.json", tmp_path / "s.csv", tmp_path / "s.png"
        given = ("--measurement", tmp_path / "m.npz", "--phases", 2, "--time", "10min")
        assert run("schedule", *files, *given, "--json", out, "--csv", table, "--plot", picture) == 0
        read = Schedule.from_json(out.read_text())
        assert read.problem.budget.time == 600.0
        alone = solve_schedule(read.problem, measurement, phases=2)
        assert read.predicted_error == pytest.approx(alone.predicted_error)
        assert str(alone) == capsys.readouterr().out.rstrip("\n")
        assert len(rows_of(table.read_text())) == 3 * len(read.phases)
        assert picture.stat().st_size > 10_000

    def test_a_measurement_is_needed(self, files, capsys):
        with pytest.raises(SystemExit) as end:
            run("schedule", *files)
        assert end.value.code == 2
        assert run("schedule", *files, "--measurement", "nowhere.npz") == 2
        assert "nowhere.npz" in capsys.readouterr().err


class TestFrontier:
    def test_it_is_the_library_s(self, files, tmp_path, capsys):
        out, table = tmp_path / "f.json", tmp_path / "f.csv"
        values = ("--vary", "time", "--values", "2s", "10min", "1h")
        picture = tmp_path / "f.png"
        assert run("frontier", *files, *values, "--json", out, "--csv", table, "--plot", picture) == 0
        printed = capsys.readouterr().out
        assert "600 s" in printed and "none" in printed
        alone = frontier(problem_of(files), vary="time", values=[2.0, 600.0, 3600.0])
        points = json.loads(out.read_text())["points"]
        assert [point["value"] for point in points] == [2.0, 600.0, 3600.0]
        assert points[0]["plan"] is None and "time" in points[0]["reason"]
        assert Allocation.from_dict(points[2]["plan"]) == alone.points[2].allocation
        assert len(rows_of(table.read_text())) == 3
        assert picture.stat().st_size > 10_000

    def test_without_values_it_looks_around_the_job_s(self, files, capsys):
        assert run("frontier", *files, "--bound", "dynamite", "--csv", "-") == 0
        costs = [float(row["cost"]) for row in rows_of(capsys.readouterr().out)]
        assert costs[0] == pytest.approx(20_000) and costs[4] == 200_000 and costs[-1] == pytest.approx(2e6)

    def test_what_cannot_be_is_said(self, files, capsys):
        assert run("frontier", *files, "--values", "1", "2") == 3
        assert "no plan at any value: no plan fits" in capsys.readouterr().err
        assert run("frontier", *files, "--vary", "target_error", "--objective", "cost") == 2
        assert "--values is missing" in capsys.readouterr().err
        assert run("frontier", *files, "--values", "much") == 2
        assert "cost = 'much'" in capsys.readouterr().err
        assert run("frontier", *files, "--objective", "cost", "--values", "1") == 2


class TestBound:
    def test_every_name_has_a_statement(self, capsys):
        for name in ("certified", "dynamite", "adacoopt", "nonconvex", "tradeoff", "krylov"):
            assert run("bound", name) == 0
            text = capsys.readouterr().out
            assert text.startswith(f"{name} (") and "with" in text and "numbers put in" not in text
            assert run("bound", name, "--latex") == 0
            assert capsys.readouterr().out.startswith(r"\begin{equation}\tag{")
        assert run("bound") == 0
        assert "certified " in capsys.readouterr().out
        assert run("bound", "sertified") == 2
        assert "is no theorem, which are certified" in capsys.readouterr().err

    def test_the_numbers_of_a_plan_are_put_in(self, files, tmp_path, capsys):
        out = tmp_path / "plan.json"
        run("plan", *files, "--json", out)
        plan = Allocation.from_json(out.read_text())
        capsys.readouterr()
        assert run("bound", "--plan", out, "--json", "-") == 0
        written = json.loads(capsys.readouterr().out)
        assert written["value"] == pytest.approx(plan.error_bound, rel=1e-12)
        values = {row["symbol"]: row["value"] for row in written["symbols"]}
        assert values["K"] == plan.rounds and values["eta"] == 0.1 and 0.9 < values["q"] < 1.0
        assert run("bound", "--plan", out) == 0
        text = capsys.readouterr().out
        formula = text.partition("numbers put in\n")[2].splitlines()
        assert f"**({plan.rounds}*{plan.local_steps})" in formula[0]
        assert float(formula[1].partition("=")[2]) == pytest.approx(plan.error_bound, rel=1e-11)
        assert run("bound", "--plan", out, "--latex") == 0
        assert rf"^{{{plan.rounds} \cdot {plan.local_steps}}}" in capsys.readouterr().out

    def test_another_bound_of_a_given_plan(self, files, tmp_path, capsys):
        given = ("--rounds", 7, "--local-steps", 3, "--batch-size", 16)
        by_hand = ("--fleet", files[0], "--job", files[1])
        for name in ("nonconvex", "dynamite", "certified(gamma=0.3, z=2.0)"):
            assert run("bound", name, *by_hand, *given, "--json", "-") == 0
            value = json.loads(capsys.readouterr().out)["value"]
            expected = evaluate(problem_of(files), 7, 3, [16, 16, 16], name)
            assert value == pytest.approx(expected.error_bound, rel=1e-11)
        assert run("bound", "tradeoff", *by_hand, *given) == 2
        assert "has no statement that numbers could be put in" in capsys.readouterr().err
        assert run("bound", "dynamite", *by_hand, "--rounds", 7) == 2
        assert "--local-steps is missing" in capsys.readouterr().err
        out = tmp_path / "plan.json"
        run("plan", *files, "--json", out)
        assert run("bound", "dynamite", "--plan", out) == 0
        assert run("bound", "--plan", out, "--rounds", 3) == 2
        assert "--plan holds all of that" in capsys.readouterr().err

    def test_small_numbers_are_powers_of_ten_in_latex(self, files, capsys):
        files[1].write_text(JOB.replace("learning_rate = 0.1", "learning_rate = 1e-5"))
        given = ("--rounds", 7, "--local-steps", 3, "--batch-size", 16, "--latex")
        assert run("bound", "dynamite", "--fleet", files[0], "--job", files[1], *given) == 0
        assert r"\left(1 \cdot 10^{-5}\right)" in capsys.readouterr().out


class TestSimulate:
    def test_rounds_that_are_all_alike(self, tmp_path, capsys):
        given = ("--rounds", 3, "--local-steps", 2, "--batch-size", 8, "--num-devices", 5)
        out = tmp_path / "run.json"
        assert run("simulate", *given, "--json", out) == 0
        assert "of the test images right" in capsys.readouterr().out
        found = json.loads(out.read_text())
        losses = [row["loss"] for row in found["rounds"]]
        assert len(losses) == 4 and losses[-1] < losses[0]
        assert found["rounds"][-1]["cost"] == 3 * 2 * 8 * 5
        assert run("simulate", *given, "--csv", "-") == 0
        assert [float(row["loss"]) for row in rows_of(capsys.readouterr().out)] == losses

    def test_a_policy_plans_each_round(self, capsys):
        given = ("--num-devices", 5, "--policy", "horizon")
        assert run("simulate", *given, "--cost", "1 epoch", "--csv", "-") == 0
        rows = rows_of(capsys.readouterr().out)
        assert 1000 < float(rows[-1]["cost"]) <= 1437
        assert run("simulate", *given) == 2
        assert "needs a limit: --cost or --time" in capsys.readouterr().err

    def test_a_plan_trains_as_it_says(self, files, tmp_path, capsys):
        out = tmp_path / "plan.json"
        run("plan", *files, "--cost", "2000", "--json", out)
        plan = Allocation.from_json(out.read_text())
        capsys.readouterr()
        assert run("simulate", "--plan", out, "--csv", "-") == 0
        last = rows_of(capsys.readouterr().out)[-1]
        assert int(last["round"]) == plan.rounds and float(last["cost"]) == pytest.approx(plan.cost)

    def test_training_that_diverges_is_said_in_a_line(self, capsys):
        given = ("--num-devices", 3, "--rounds", 3, "--local-steps", 2, "--learning-rate", 1e9)
        assert run("simulate", *given) == 0
        shown = capsys.readouterr()
        assert shown.err == "coopt: warning: the loss ended above where it began: lower --learning-rate\n"
        assert max(map(len, shown.out.splitlines())) <= 80

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (("--policy", "horizon", "--rounds", 3, "--cost", 9), "--rounds has no effect with --policy"),
            (("--cost", 9), "--cost has no effect with no --policy"),
            (("--rounds", 0), "rounds = 0"),
            (("--num-devices", 0), "devices = 0"),
            (("--plan", "nowhere.json"), "nowhere.json: cannot be read"),
        ],
    )
    def test_what_is_wrong_is_said(self, given, said, capsys):
        assert run("simulate", *given) == 2
        assert said in capsys.readouterr().err


class TestExitCodes:
    def command(self, *arguments: object) -> list[str]:
        code = "import sys; from coopt.cli import main; sys.exit(main())"
        return [sys.executable, "-c", code, *map(str, arguments)]

    @pytest.mark.skipif(os.name == "nt", reason="pipes that break are of POSIX systems")
    def test_a_reader_that_goes_away_is_no_error(self, files):
        with subprocess.Popen(
            self.command("bound", "certified"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.close()
            assert process.wait() == 141
            assert process.stderr.read() == b""

    @pytest.mark.skipif(not FULL.exists(), reason="only Linux has a disk that is always full")
    def test_a_full_disk_is_said_in_a_line(self):
        with FULL.open("w") as full:
            done = subprocess.run(
                self.command("bound", "certified"),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "coopt: cannot write: No space left on device"
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(not FULL.exists(), reason="only Linux has a disk that is always full")
    @pytest.mark.parametrize(
        "command",
        [
            "plan FLEET JOB",
            "plan FLEET JOB --csv -",
            "plan FLEET JOB --json -",
            "schedule FLEET JOB --measurement M",
            "frontier FLEET JOB --values 1e5",
            "frontier FLEET JOB --values 1e5 --csv -",
            "bound certified --latex",
            "simulate --rounds 1 --num-devices 2",
            "demo",
            "completion bash",
        ],
    )
    def test_every_command_says_that_the_disk_is_full(self, command, files, tmp_path, monkeypatch, capsys):
        fleet, job = files
        # What the demonstration trains, which takes its time, is of no matter here.
        for name, made in {"demonstrate": None, "facts": [], "print_demonstration": None}.items():
            monkeypatch.setattr(f"coopt.cli.demo.{name}", lambda *_, made=made: made)
        quadratic_measurement(fleet).save(tmp_path / "m.npz")
        places = {"FLEET": fleet, "JOB": job, "M": tmp_path / "m.npz"}
        arguments = [places.get(word, word) for word in command.split()]
        with FULL.open("w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert run(*arguments) == 1
        assert capsys.readouterr().err.splitlines()[-1] == "coopt: cannot write: No space left on device"

    def test_an_interrupt_is_said_in_a_line(self, files, monkeypatch, capsys):
        def interrupted(*arguments, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr("coopt.questions.many.solve_many", interrupted)
        assert run("plan", *files) == 130
        assert capsys.readouterr().err == "coopt: interrupted\n"
