"""The controller: in simulated training, under faults and lies, and on the clock of this machine."""
