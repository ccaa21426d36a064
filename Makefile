# Foresight. Nothing needs preparing but `make` itself; `make help` lists what there is.
SHELL := /bin/bash
PYTHON_ENV := .venv/bin/python
# Runs a command where the ROS 2 workspace is found (src/foresight/ros_environment.py).
IN_ROS := $(PYTHON_ENV) -m foresight.ros_environment

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage faults nightly kernels lint clean

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

setup:  ## virtual environment, pinned packages, GL, ROS 2 workspace; instant when nothing changed
	@tools/setup

demo: setup  ## 10 simulated episodes through the ROS graph; report and films in runs/demo/ (ARGS="--help" shows options)
	@.venv/bin/foresight demo $(ARGS)

test: setup  ## every test (ARGS="tests/sim -x" narrows it)
	@tools/test $(ARGS)

coverage: setup  ## branch coverage of the guard's core: fails below 95 %, and below 100 % for the failsafe
	@OMP_NUM_THREADS=1 $(IN_ROS) $(PYTHON_ENV) -m pytest tests/safety -n 2 -q --cov=foresight.safety --cov-branch --cov-report= $(ARGS)
	@$(PYTHON_ENV) -m coverage report --show-missing --fail-under=95
	@$(PYTHON_ENV) -m coverage report --include='*/safety/failsafe.py' --fail-under=100

faults: setup  ## planners killed and frozen at full speed on three arms, then crashes of every node (figures in runs/faults/)
	@.venv/bin/foresight bench faults --json runs/faults/stop.json $(ARGS)
	@.venv/bin/foresight bench faults --matrix --json runs/faults/matrix.json

nightly: setup  ## message fuzz for 10 minutes, then the simulated graph for an hour (HOURS=0.1 shortens it; figures in runs/nightly/)
	@FORESIGHT_FUZZ_S=600 FORESIGHT_FUZZ_SEED=$$(date +%j) $(IN_ROS) $(PYTHON_ENV) -m pytest tests/ros/test_fuzz.py -q -s $(ARGS)
	@.venv/bin/foresight bench soak --hours $(or $(HOURS),1) --json runs/nightly/soak.json --log runs/nightly/graph.log

kernels: setup  ## the kernels for GPUs in Triton's interpreter, on the CPU; installs Triton (700 MB) beside the rest
	@$(PYTHON_ENV) -m pip install -q --no-deps "triton>=3.6,<4"
	@$(IN_ROS) $(PYTHON_ENV) -m pytest tests/world_model/test_fused.py -q -r s $(ARGS)

lint:  ## ruff, where it is installed
	@ruff check .

clean:  ## remove what setup made: .venv and the workspace's build (data/ and runs/ stay)
	rm -rf .venv ros_ws/build ros_ws/install ros_ws/log src/*.egg-info
