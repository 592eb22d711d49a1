"""Situations that people report from real federations, each as a run with figures."""

from benchmarks.online.situations import what_devices_do, what_plans_know, who_answers

SITUATIONS = (*who_answers.SITUATIONS, *what_devices_do.SITUATIONS, *what_plans_know.SITUATIONS)
