"""What the server runs."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from coopt import Budget, Controller, Fleet
from coopt.adapters.flower import CoOptStrategy
from coopt_digits.task import digits, model, split

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train until cost, time or rounds are used up."""
    config = context.run_config
    parts = split(config["devices"])
    controller = Controller(
        Fleet([len(part) for part in parts], gradient_noise=1.0, divergence=1.0),  # measured while training
        Budget(
            cost=config["cost"],
            time=config["seconds"],
            round_cost=config["round-cost"],
            max_rounds=config["rounds"] or None,
        ),
        learning_rate=config["learning-rate"],
        curvature_floor=0.0,  # the loss is convex
        deadline_slack=config["deadline-slack"],
    )
    needed = config["min-devices"] or len(parts)
    strategy = CoOptStrategy(
        controller,
        FedAvg(fraction_evaluate=0.0, min_train_nodes=needed, min_available_nodes=needed),
        seed=config["seed"],
        checkpoint=config["folder"] or None,
    )
    result = strategy.start(grid, ArrayRecord(model().module.state_dict()), evaluate_fn=evaluate)
    accuracy = result.evaluate_metrics_serverapp[max(result.evaluate_metrics_serverapp)]["accuracy"]
    print(f"accuracy {accuracy:.3f}, cost {controller.spent_cost:.0f}, {controller.spent_seconds:.0f} s")


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Share of all digits that the model gets right."""
    classifier, (images, labels) = model().module, digits()
    classifier.load_state_dict(arrays.to_torch_state_dict())
    with torch.no_grad():
        right = (classifier(images).argmax(dim=1) == labels).float().mean()
    return MetricRecord({"accuracy": float(right)})
