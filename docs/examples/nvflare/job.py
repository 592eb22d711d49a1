"""The job, run in NVFlare's simulator."""

import sys

from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import FrameworkType, ScriptRunner
from workflow import SAMPLES, CoOptWorkflow

job = FedJob(name="coopt-digits", min_clients=len(SAMPLES))
job.to_server(CoOptWorkflow())
for site in SAMPLES:
    job.to(ScriptRunner(script="client.py", framework=FrameworkType.NUMPY), site)
sys.exit(job.simulator_run(sys.argv[1], threads=len(SAMPLES)))
