from setuptools import setup

package = "foresight_nodes"

setup(
    name=package,
    version="0.1.0",
    packages=[package],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="Foresight maintainers",
    maintainer_email="maintainers@foresight.invalid",
    description="Foresight's lifecycle nodes: thin adapters over the core.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "perception = foresight_nodes.run:perception",
            "world_model = foresight_nodes.run:world_model",
            "planner = foresight_nodes.run:planner",
            "composed = foresight_nodes.run:composed",
            "guard = foresight_nodes.run:guard",
            "sim = foresight_nodes.run:sim",
            "mock_driver = foresight_nodes.run:mock_driver",
            "recorder = foresight_nodes.run:recorder",
            "lifecycle_manager = foresight_nodes.run:lifecycle_manager",
        ],
    },
)
