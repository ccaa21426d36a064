"""What happened before a stop: kept in memory, written as one folder, judged again. Knows neither torch nor ROS."""
