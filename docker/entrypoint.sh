#!/usr/bin/env bash
# Opens ROS 2 and Foresight's workspace, then runs the command. `exec` keeps signals going to it: Ctrl-C stops the graph.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /foresight/tools/activate
exec "$@"
