"""A client's part: local steps and batches as the server says, and a report."""

import numpy as np
import nvflare.client as flare
from workflow import RATE, SAMPLES

from coopt import ClientProbe

flare.init()
i = list(SAMPLES).index(flare.get_site_name())
rng, n = np.random.default_rng(i), list(SAMPLES.values())[i]
x = rng.normal(size=(n, 20)) * np.linspace(0.3, 1.5, 20)
y = x @ np.ones(20) + rng.normal(loc=0.3 * i, size=n)  # the sites' best models differ


def gradient(model, batch):
    error = x[batch] @ model - y[batch]
    return 0.5 * float(error @ error) / len(batch), x[batch].T @ error / len(batch)


probe = ClientProbe(i, gradient, lambda size: rng.integers(n, size=size))
while flare.is_running() and (task := flare.receive()) is not None:
    steps, size, local = task.meta["steps"], task.meta["size"], task.params["model"]
    local = local - RATE * probe.begin(local, round=task.current_round, batch_size=size)
    for _ in range(steps - 1):
        local = local - RATE * gradient(local, rng.integers(n, size=size))[1]
    report = probe.end(local, samples=n, local_steps=steps, extra_evaluation=task.meta["extra"])
    flare.send(flare.FLModel(params={"model": local}, meta={"report": report.to_json()}))
