"""The server's part: a workflow that sends each client a plan of its own."""

import time

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController

from coopt import Budget, ClientReport, Controller, Fleet, Stopped

SAMPLES = {"site-1": 150, "site-2": 300, "site-3": 500, "site-4": 850}
RATE = 0.1


class CoOptWorkflow(ModelController):
    def run(self):
        fleet = Fleet(list(SAMPLES.values()), gradient_noise=1.0, divergence=1.0, names=list(SAMPLES))
        controller = Controller(fleet, Budget(cost=4000, round_cost=100), RATE, curvature_floor=0.0)
        model = np.zeros(20)
        while not isinstance(plan := controller.plan(), Stopped):
            print(
                f"round {plan.round}: {plan.local_steps} local steps, batches {plan.batch_sizes}", flush=True
            )
            self.start, self.reports, self.models = time.monotonic(), [], []
            self.answered = np.full(len(SAMPLES), np.inf)
            for site, size in zip(SAMPLES, plan.batch_sizes.tolist(), strict=True):
                work = {"steps": plan.local_steps, "size": size, "extra": plan.extra_evaluation}
                data = FLModel(params={"model": model}, meta=work, current_round=plan.round)
                wait = 1 + int(min(plan.deadline, 60))
                self.send_model(data=data, targets=[site], timeout=wait, callback=self.receive)
            while self.get_num_standing_tasks() and not self.abort_signal.triggered:
                time.sleep(0.05)
            seconds = time.monotonic() - self.start
            controller.observe(self.reports, seconds=seconds, answered=self.answered)
            if self.models:
                weights = [report.samples for report in self.reports]
                model = np.average(self.models, axis=0, weights=weights)
        print(f"spent {plan.cost:.0f} in {plan.rounds} rounds: {plan.reason.value}")

    def receive(self, answer):
        report = ClientReport.from_json(answer.meta["report"])
        # Clients ask for work every so often: only the server sees how long a round trip takes.
        self.answered[report.client] = time.monotonic() - self.start
        self.reports.append(report)
        self.models.append(answer.params["model"])
