import optuna
from federation import COST, SECONDS, round_time, samples, throughput, train


def plan_of(epochs, batch):
    batches = samples.clip(max=batch)
    steps = max(1, round(epochs * samples.mean() / batch))
    cost = steps * batches.sum()
    seconds = (steps * batches / throughput + round_time).max()
    return max(1, int(min(COST / cost, SECONDS / seconds))), steps, batches


def objective(trial):
    epochs = trial.suggest_int("epochs", 1, 10)
    batch = trial.suggest_categorical("batch", [1, 2, 4, 8, 16, 32, 64])
    return train(*plan_of(epochs, batch))


study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(objective, n_trials=20)
print(study.best_params, study.best_value)
