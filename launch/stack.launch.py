"""Foresight's nodes alone: cameras, joint states and the controller come from elsewhere.

ros2 launch foresight_bringup stack.launch.py --show-args
"""

from foresight_bringup.ros_launch import description


def generate_launch_description():
    return description("stack")
