"""Foresight on a real arm, or on a stand-in driver with use_mock_hardware:=true.

ros2 launch foresight_bringup robot.launch.py --show-args
"""

from foresight_bringup.ros_launch import description


def generate_launch_description():
    return description("robot")
