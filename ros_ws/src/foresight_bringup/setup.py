from glob import glob

from setuptools import setup

package = "foresight_bringup"

setup(
    name=package,
    version="0.1.0",
    packages=[package],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (f"share/{package}", ["package.xml"]),
        (f"share/{package}/launch", glob("../../../launch/*.launch.py")),  # relative: colcon's symlinks need it so
        (f"share/{package}/config", glob("config/*")),
        (f"share/{package}/security", glob("security/*")),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    maintainer="Foresight maintainers",
    maintainer_email="maintainers@foresight.invalid",
    description="Which nodes make up Foresight, described once.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["up = foresight_bringup.up:main"]},
)
