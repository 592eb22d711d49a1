"""Local SGD across machines with plain torch.distributed, planned by coopt.

    torchrun --nproc-per-node 2 train.py          # two processes on this machine
    torchrun --nnodes 2 --nproc-per-node 1 --rdzv-endpoint HOST:29500 train.py    # two machines

Each process holds its own rows, which never leave it. Together they measure the loss (a few gradients each),
time a step and an average, and plan: how many rounds, how many local steps between two averages, and which
batch size on which machine. Then they train. Rank 1 plays a slow machine, on which samples take longer.
"""

import time

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from coopt import Budget, Problem, solve_allocation
from coopt.adapters.simulated import digits
from coopt.measuring.exchange import ClientMeasure, Message, measure_clients

RATE, SECONDS = 0.3, 6.0
SLOWNESS = (1e-5, 1e-4)  # seconds that a sample takes beyond computing, on each machine


def gather(thing):
    """The same thing of every rank, on every rank."""
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, thing)
    return found


def from_rank_0(thing=None):
    """What rank 0 has, on every rank."""
    sent = [thing]
    dist.broadcast_object_list(sent, src=0)
    return sent[0]


def mean_seconds(work, times=20):
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times


class Machine:
    """One process: its rows, its copy of the model, and local SGD on them."""

    def __init__(self, rank, images, labels):
        self.rank, self.rows, self.rng = rank, (images, labels), np.random.default_rng(rank)
        self.inputs, self.targets = torch.tensor(images, dtype=torch.float32), torch.tensor(labels)
        torch.manual_seed(0)
        self.model = torch.nn.Linear(64, 10)
        samples = gather(len(labels))
        self.samples, self.share = samples, samples[rank] / sum(samples)

    @property
    def parameters(self):
        return parameters_to_vector(self.model.parameters()).detach().clone()

    @parameters.setter
    def parameters(self, flat):
        vector_to_parameters(torch.as_tensor(flat, dtype=torch.float32), self.model.parameters())

    def loss(self, inputs, targets):
        return torch.nn.functional.cross_entropy(self.model(inputs), targets)

    def gradient(self, parameters, rows):
        """Mean loss and gradient over some rows of this process, as coopt measures them."""
        self.parameters = parameters
        loss = self.loss(torch.as_tensor(rows[0], dtype=torch.float32), torch.as_tensor(rows[1]))
        slopes = parameters_to_vector(torch.autograd.grad(loss, list(self.model.parameters())))
        return loss.item(), slopes.numpy().astype(np.float64)

    def step(self, size):
        """One local step on a fresh mini-batch."""
        rows = torch.as_tensor(self.rng.integers(len(self.targets), size=size))
        self.model.zero_grad()
        self.loss(self.inputs[rows], self.targets[rows]).backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter -= RATE * parameter.grad
        time.sleep(SLOWNESS[self.rank % 2] * size)

    def average(self):
        """Average the models of all processes, each with its share of the rows."""
        flat = self.share * self.parameters
        dist.all_reduce(flat)
        self.parameters = flat

    def loss_everywhere(self):
        with torch.no_grad():
            return sum(gather(self.share * self.loss(self.inputs, self.targets).item()))


def measure(machine):
    """Rank 0 measures: it sends each message to all, and every process answers for its own rows."""
    device = ClientMeasure(machine.rank, machine.gradient, machine.rows)

    def ask(message, clients):
        answers = answer(from_rank_0(message.to_bytes()))
        return [(client, Message.from_bytes(answers[client])) for client in clients]

    def answer(sent):
        return gather(device.answer(Message.from_bytes(sent)).to_bytes())

    if machine.rank == 0:
        measurement = measure_clients(ask, machine.parameters.numpy(), machine.samples)
        from_rank_0(b"")  # no more messages
        return measurement
    while sent := from_rank_0():
        answer(sent)
    return None


def plan(machine, measurement):
    """Time a step, a sample and an average on every machine; rank 0 plans with them."""
    small, large = (mean_seconds(lambda size=size: machine.step(size)) for size in (1, 101))
    dist.barrier()
    timings = gather((small, max(large - small, 1e-6) / 100.0, mean_seconds(machine.average)))
    if machine.rank > 0:
        return from_rank_0()
    steps, sample, averaging = np.array(timings).T
    fleet = measurement.fleet(step_time=steps, throughput=1.0 / sample, round_time=averaging)
    problem = Problem(fleet, measurement.constants(RATE), Budget(time=SECONDS, max_local_steps=200))
    best = solve_allocation(problem, bound=measurement.forecast(), gap_tolerance=0.01)
    return from_rank_0((best.rounds, best.local_steps, best.batch_sizes.tolist()))


def main():
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    machine = Machine(rank, *digits(devices=world).clients[rank])
    start = machine.parameters
    rounds, local_steps, batches = plan(machine, measure(machine))

    machine.parameters = start
    before, begun = machine.loss_everywhere(), time.perf_counter()
    for _ in range(rounds):
        for _ in range(local_steps):
            machine.step(batches[rank])
        machine.average()
    seconds, after = time.perf_counter() - begun, machine.loss_everywhere()
    models = len({parameters.numpy().tobytes() for parameters in gather(machine.parameters)})
    if rank == 0:
        print(f"plan: {rounds} rounds of {local_steps} steps, batches {batches}")
        print(f"loss {before:.4f} to {after:.4f} in {seconds:.1f} s; {world} ranks hold {models} model")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
