"""Foresight with a simulated arm.

ros2 launch foresight_bringup sim.launch.py --show-args
"""

from foresight_bringup.ros_launch import description


def generate_launch_description():
    return description("sim")
