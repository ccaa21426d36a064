"""An incident as a folder: `incident.mcap` (all messages), `incident.json` (what happened), `metadata.yaml` (for rosbag2).

Written completely or not at all. The MCAP file holds the definitions of its own messages, so it is read here, by
Foxglove and by `ros2 bag` without the workspace that wrote it. Knows no ROS.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import yaml

from foresight.files import write_folder_atomically
from foresight.incidents.ring import Recorded

MCAP, SUMMARY, BAG = "incident.mcap", "incident.json", "metadata.yaml"


class IncidentError(RuntimeError):
    """A file is no incident, or not a whole one; the message is one line."""


@dataclass(frozen=True)
class Definition:
    """A topic's message type with all that is needed to read its messages."""

    type: str  # package/msg/Name
    text: str  # its .msg file, followed by those of the types within
    qos: str = ""  # the offered quality of service as rosbag2 writes it


def write_pack(
    folder: Path, messages: Sequence[Recorded], definitions: dict[str, Definition], summary: dict[str, object]
) -> Path:
    """Writes the folder, which must not exist; returns it. Raises OSError with nothing half written."""

    def fill(partial: Path) -> None:
        _write_mcap(partial / MCAP, messages, definitions)
        (partial / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
        (partial / BAG).write_text(yaml.safe_dump(_bag(messages, definitions), sort_keys=False))

    return write_folder_atomically(folder, fill)


def remove_oldest(parent: Path, keep: int) -> list[Path]:
    """Removes incidents below `parent` until the `keep` newest by name are left; returns what was removed.

    Only whole incidents under the name that they were given: one being written has another, and one renamed by a person stays.
    """
    named = [path for path in parent.glob("????-??-??_??-??-??_*") if path.is_dir() and not path.is_symlink()]
    packs = [path for path in named if all((path / name).is_file() for name in (MCAP, SUMMARY, BAG))]
    packs.sort(key=lambda path: (path.name[:19], path.stat().st_mtime_ns))
    oldest = packs[: max(0, len(packs) - keep)]
    for path in oldest:
        shutil.rmtree(path, ignore_errors=True)
    return oldest


def _write_mcap(path: Path, messages: Iterable[Recorded], definitions: dict[str, Definition]) -> None:
    from mcap.well_known import MessageEncoding, Profile, SchemaEncoding
    from mcap.writer import Writer

    schemas: dict[str, int] = {}
    channels: dict[str, int] = {}
    sequence: Counter[str] = Counter()
    with open(path, "wb") as file:
        writer = Writer(file)
        writer.start(profile=Profile.ROS2, library="foresight")
        for message in messages:
            if message.topic not in channels:
                definition = definitions[message.topic]
                if definition.type not in schemas:
                    schemas[definition.type] = writer.register_schema(
                        definition.type, SchemaEncoding.ROS2, definition.text.encode()
                    )
                channels[message.topic] = writer.register_channel(
                    message.topic, MessageEncoding.CDR, schemas[definition.type], {"offered_qos_profiles": definition.qos}
                )
            sequence[message.topic] += 1
            writer.add_message(
                channels[message.topic],
                log_time=message.received_ns,
                data=message.data,
                publish_time=message.received_ns,
                sequence=sequence[message.topic],
            )
        writer.finish()


def _bag(messages: Sequence[Recorded], definitions: dict[str, Definition]) -> dict:
    """What rosbag2 wants to know of a bag, in its format 5, which every version since Humble reads."""
    counts = Counter(message.topic for message in messages)
    begin = messages[0].received_ns if messages else 0
    end = messages[-1].received_ns if messages else 0
    start, duration = {"nanoseconds_since_epoch": begin}, {"nanoseconds": end - begin}
    topics = [
        {
            "topic_metadata": {
                "name": topic,
                "type": definitions[topic].type,
                "serialization_format": "cdr",
                "offered_qos_profiles": definitions[topic].qos,
            },
            "message_count": count,
        }
        for topic, count in counts.items()
    ]
    file = {"path": MCAP, "starting_time": start, "duration": duration, "message_count": len(messages)}
    return {
        "rosbag2_bagfile_information": {
            "version": 5,
            "storage_identifier": "mcap",
            "duration": duration,
            "starting_time": start,
            "message_count": len(messages),
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [MCAP],
            "files": [file],
        }
    }


@dataclass(frozen=True)
class Message:
    """A decoded message; `content` has the fields of its definition."""

    topic: str
    type: str
    received_s: float
    content: SimpleNamespace


class Pack:
    """A recorded incident, read from its folder or its .mcap file alone."""

    def __init__(self, path: Path) -> None:
        self.path = path / MCAP if path.is_dir() else path
        if not self.path.is_file():
            raise IncidentError(f"No incident at {path}: {self.path} does not exist. Give a folder of runs/incidents.")
        self.summary = self._read_summary()

    def messages(self, *types: str) -> Iterator[Message]:
        """Those of the given types (`foresight_msgs/msg/GuardVerdict`), in the order received."""
        from mcap.reader import SeekingReader
        from mcap_ros2.decoder import DecoderFactory

        try:
            with open(self.path, "rb") as file:
                reader = SeekingReader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
                known = reader.get_summary()
                if known is None:
                    raise IncidentError(f"{self.path} has no summary at its end; expected a complete MCAP file.")
                names = {schema.id: schema.name for schema in known.schemas.values()}
                topics = [c.topic for c in known.channels.values() if names.get(c.schema_id) in types]
                if not topics:
                    return
                for schema, channel, message, content in reader.iter_decoded_messages(topics):
                    yield Message(topic=channel.topic, type=schema.name, received_s=message.log_time * 1e-9, content=content)
        except (IncidentError, OSError, GeneratorExit):
            raise
        except Exception as error:  # the reader raises whatever a broken byte leads to: struct, zstd, unicode, CRC, keys
            said = " ".join(str(error).split()) or type(error).__name__
            raise IncidentError(f"{self.path} is not a whole MCAP file of ROS 2 messages: {said}") from error

    def _read_summary(self) -> dict:
        path = self.path.with_name(SUMMARY)
        try:
            read = json.loads(path.read_text()) if path.is_file() else {}
        except ValueError as error:
            raise IncidentError(f"{path} is not JSON: {error}") from error
        if not isinstance(read, dict):
            raise IncidentError(f"{path} must hold a JSON object, got {type(read).__name__}.")
        return read
