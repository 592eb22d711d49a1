"""coopt: how many rounds, how many local steps, and which batch size on which device.

Given a fleet of devices, a cost budget and a deadline, coopt finds the rounds K, the local steps tau
and the batch size s_i of every device that minimise a proved bound on the error of federated SGD, and
proves that nothing better exists. Start with :func:`solve_allocation`.
"""

import lazy_loader

# Importing coopt costs nothing: what __init__.pyi lists is loaded name by name when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
