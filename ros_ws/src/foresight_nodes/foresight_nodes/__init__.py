"""Foresight's ROS 2 nodes: each declares parameters, builds core objects, and in each callback converts, calls, publishes."""
