"""What every device runs."""

from coopt.adapters.flower.client import partition_id, torch_client_app
from coopt_digits.task import digits, model, split


def data(context):
    """The digits that this device holds."""
    return digits(split(context.run_config["devices"])[partition_id(context)])


app = torch_client_app(model, data)
