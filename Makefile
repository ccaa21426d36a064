# Foresight. Nothing needs preparing but `make` itself; `make help` lists what there is.
SHELL := /bin/bash
PYTHON_ENV := .venv/bin/python
# Runs a command where the ROS 2 workspace is found (src/foresight/ros_environment.py).
IN_ROS := $(PYTHON_ENV) -m foresight.ros_environment

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint clean

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

setup:  ## virtual environment, pinned packages, GL, ROS 2 workspace; instant when nothing changed
	@tools/setup

demo: setup  ## 10 simulated episodes through the ROS graph; report and films in runs/demo/ (ARGS="--help" shows options)
	@.venv/bin/foresight demo $(ARGS)

test: setup  ## every test (ARGS="tests/sim -x" narrows it)
	@$(IN_ROS) $(PYTHON_ENV) -m pytest $(ARGS)

lint:  ## ruff, where it is installed
	@ruff check .

clean:  ## remove what setup made: .venv and the workspace's build (data/ and runs/ stay)
	rm -rf .venv ros_ws/build ros_ws/install ros_ws/log src/*.egg-info
