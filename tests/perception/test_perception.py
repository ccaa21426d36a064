"""Perception pairs by capture time, and says why when it has nothing to show."""

from dataclasses import replace

import numpy as np
import pytest

from foresight.contract import CameraContract, Contract
from foresight.data import Observation, RobotState
from foresight.perception import Perception, Refusal, RefusalReason
from foresight.robots.profile import load_profile

PROFILE = load_profile("ur5e")
CONTRACT = Contract(
    robot=PROFILE.name,
    joint_names=PROFILE.joint_names,
    cameras=(CameraContract("front", 8, 8, (0, 0, 8, 8), 4), CameraContract("wrist", 8, 8, (0, 0, 8, 8), 4)),
)
RNG = np.random.default_rng(1)


class FirstThreeJoints:
    """Kinematics with a known answer: the tip is the first three joints."""

    def tip(self, q):
        return q[:3]

    def tip_velocity(self, q, dq):
        return dq[:3]


@pytest.fixture
def perception():
    return Perception(CONTRACT, PROFILE, FirstThreeJoints())


def picture(level=None):
    return RNG.integers(30, 220, (8, 8, 3), dtype=np.uint8) if level is None else np.full((8, 8, 3), level, np.uint8)


def state(stamp_s, q=0.0, dq=0.0):
    return RobotState(stamp_s, np.full(6, float(q)), np.full(6, float(dq)))


def feed(perception, stamp_s, **changes):
    """Both frames and a joint state at one time."""
    perception.add_state(changes.get("state", state(stamp_s)))
    perception.add_image("front", stamp_s, changes.get("front", picture()))
    perception.add_image("wrist", stamp_s, changes.get("wrist", picture()))


def reason(answer):
    assert isinstance(answer, Refusal), f"expected a refusal, got {answer}"
    assert answer.detail.endswith(".")
    return answer.reason


def test_joint_state_is_taken_at_the_capture_time(perception):
    """q and dq lie on the line between the joint states around the frames' stamp, and the tip is computed from them."""
    perception.add_state(state(1.000, q=0.0, dq=1.0))
    perception.add_state(state(1.010, q=0.2, dq=2.0))
    perception.add_image("front", 1.004, picture())
    perception.add_image("wrist", 1.004, picture())
    seen = perception.observe(1.02)
    assert isinstance(seen, Observation) and seen.stamp_s == 1.004
    np.testing.assert_allclose(seen.q, 0.08)
    np.testing.assert_allclose(seen.dq, 1.4)
    np.testing.assert_allclose(seen.tip, 0.08)
    np.testing.assert_allclose(seen.tip_velocity, 1.4)


def test_frames_just_ahead_of_the_joint_states_are_carried_on(perception):
    """A frame 8 ms newer than the newest joint state gets that state moved on with its own velocity."""
    feed(perception, 2.008, state=state(2.0, q=0.5, dq=1.0))
    np.testing.assert_allclose(perception.observe(2.02).q, 0.508)


def test_images_come_in_the_contracts_order(perception):
    """However the frames arrive, the observation stacks them as the contract lists the cameras."""
    perception.add_image("wrist", 1.0, picture(200))
    perception.add_image("front", 1.0, picture(100))
    perception.add_state(state(1.0))
    assert perception.observe(1.0).images[:, 0, 0, 0].tolist() == [100, 200]


def test_the_newest_common_time_wins(perception):
    """While one camera is a frame ahead, the pair before is used, not a mixed pair."""
    feed(perception, 1.0)
    feed(perception, 1.033, front=picture(77))
    perception.add_image("front", 1.066, picture())
    perception.add_state(state(1.066))
    seen = perception.observe(1.07)
    assert seen.stamp_s == 1.033 and seen.images[0, 0, 0, 0] == 77


def test_cameras_that_never_agree_are_refused(perception):
    """Stamps more than the allowed skew apart are no observation."""
    perception.add_state(state(1.0))
    perception.add_image("front", 1.0, picture())
    perception.add_image("wrist", 0.97, picture())
    assert reason(perception.observe(1.01)) is RefusalReason.CAMERAS_APART


def test_silence_is_named(perception):
    """Before anything came, the refusal says which source is silent."""
    assert "front, wrist" in perception.observe(0.0).detail
    perception.add_image("front", 0.0, picture())
    perception.add_image("wrist", 0.0, picture())
    assert reason(perception.observe(0.0)) is RefusalReason.NO_STATE


def test_old_frames_and_old_joint_states_are_refused(perception):
    """An image older than 0.15 s, or joint states older than 0.1 s, give no observation; the number is in the sentence."""
    feed(perception, 1.0)
    assert isinstance(perception.observe(1.09), Observation)
    assert reason(perception.observe(1.11)) is RefusalReason.STALE_STATE
    perception.add_state(state(1.2))
    stale = perception.observe(1.2)
    assert reason(stale) is RefusalReason.STALE_IMAGE and "0.200" in stale.detail
    feed(perception, 1.21)
    assert isinstance(perception.observe(1.22), Observation)


def test_a_frame_far_from_every_joint_state_is_refused(perception):
    """Joint positions are not carried on over more than 0.05 s."""
    feed(perception, 1.06, state=state(1.0))
    refusal = perception.observe(1.07)
    assert reason(refusal) is RefusalReason.STALE_STATE and "0.060" in refusal.detail


def test_frozen_stamps_are_told_from_silence(perception):
    """A camera that keeps sending the same stamp is reported as such once its frame is old."""
    feed(perception, 1.0)
    perception.add_image("wrist", 1.0, picture())
    assert isinstance(perception.observe(1.0), Observation)
    perception.add_state(state(1.3))
    perception.add_image("front", 1.3, picture())
    assert reason(perception.observe(1.3)) is RefusalReason.FROZEN_STAMP


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("member", ["q", "dq"])
def test_a_joint_state_that_is_not_finite_is_refused_until_a_good_one_comes(perception, wrong, member):
    """NaN in a joint state stops observations, names the joint, and a good state ends it."""
    feed(perception, 1.0)
    values = np.zeros(6)
    values[2] = wrong
    assert "elbow_joint" in perception.add_state(replace(state(1.008), **{member: values})).detail
    assert reason(perception.observe(1.01)) is RefusalReason.BAD_STATE
    perception.add_state(state(1.016))
    assert isinstance(perception.observe(1.02), Observation)


def test_a_missing_joint_is_refused(perception):
    """Five joints are not six."""
    refusal = perception.add_state(RobotState(1.0, np.zeros(5), np.zeros(5)))
    assert reason(refusal) is RefusalReason.BAD_STATE and "(5,)" in refusal.detail and "(6,)" in refusal.detail


def test_a_wrong_frame_is_refused_until_a_good_one_comes(perception):
    """A frame of another size is not taken, and is the reason for no observation while nothing better comes."""
    feed(perception, 1.0)
    assert reason(perception.add_image("wrist", 1.033, np.zeros((4, 4, 3), np.uint8))) is RefusalReason.BAD_IMAGE
    assert reason(perception.observe(1.04)) is RefusalReason.BAD_IMAGE
    feed(perception, 1.066)
    assert isinstance(perception.observe(1.07), Observation)


def test_an_unknown_camera_is_refused_and_the_known_ones_named(perception):
    """A frame of a camera that the model does not have changes nothing."""
    feed(perception, 1.0)
    refusal = perception.add_image("ceiling", 1.0, picture())
    assert reason(refusal) is RefusalReason.UNKNOWN_CAMERA and "front, wrist" in refusal.detail
    assert isinstance(perception.observe(1.0), Observation)


def test_a_clock_that_jumps_back_starts_everything_anew(perception):
    """After a jump back nothing from before is paired with anything after, and all sources must report again."""
    feed(perception, 50.0, front=picture(200))
    perception.add_image("front", 1.0, picture(90))
    assert reason(perception.observe(1.0)) is RefusalReason.CLOCK_JUMPED
    perception.add_image("wrist", 1.0, picture())
    perception.add_state(state(1.0))
    seen = perception.observe(1.01)
    assert seen.stamp_s == 1.0 and seen.images[0, 0, 0, 0] == 90


def test_stamps_from_the_future_are_refused(perception):
    """Sources that run on another clock than the caller are not believed."""
    feed(perception, 100.0)
    assert reason(perception.observe(1.0)) is RefusalReason.CLOCK_JUMPED


def run(perception, seconds, arm_speed, front):
    """Frames at 30 Hz while the arm turns; the answer after the last."""
    for i in range(round(30 * seconds)):
        t = 10 + i / 30
        feed(perception, t, front=front(i), state=state(t, q=arm_speed * (t - 10)))
    return perception.observe(t)


def test_a_camera_that_shows_the_same_pixels_while_the_arm_moves_is_frozen(perception):
    """New stamps on old pixels are found out within 1.1 s of motion."""
    still = picture()
    assert reason(run(perception, 1.1, 0.1, lambda i: still)) is RefusalReason.FROZEN_CAMERA


def test_the_same_pixels_before_a_still_arm_are_no_fault(perception):
    """A scene at rest in a simulator without sensor noise gives identical frames, rightly."""
    still = picture()
    assert isinstance(run(perception, 3, 0.0, lambda i: still), Observation)


def test_one_changed_frame_proves_a_camera_alive(perception):
    """The time of standing still counts from the last change."""
    a, b = picture(), picture()
    assert isinstance(run(perception, 1.8, 0.1, lambda i: a if i < 27 else b), Observation)


def test_a_covered_camera_is_refused(perception):
    """Black without structure is a cover; black with something to see is a dark room."""
    feed(perception, 1.0, wrist=picture(1))
    assert reason(perception.observe(1.0)) is RefusalReason.DARK_CAMERA
    night = picture(0)
    night[:4, :4] = 40
    feed(perception, 1.033, wrist=night)
    assert isinstance(perception.observe(1.033), Observation)


def test_a_model_of_another_robot_is_refused():
    """Perception does not start with joints that are not the model's, or in another order."""
    swapped = replace(CONTRACT, joint_names=CONTRACT.joint_names[::-1])
    with pytest.raises(ValueError, match="shoulder_pan_joint"):
        Perception(swapped, PROFILE, FirstThreeJoints())


@pytest.fixture
def sparing():
    """For a model that can do without cameras, as long as one is seen."""
    return Perception(CONTRACT, PROFILE, FirstThreeJoints(), spare_cameras=("front", "wrist"))


@pytest.mark.parametrize("loss", ["silent", "stale", "dark", "wrong_size"])
def test_a_lost_camera_costs_its_view_and_not_the_observation(sparing, perception, loss):
    """Where the model can spare it; the picture of the lost camera is black, whatever was the matter with it."""
    shown = picture()
    for each in (sparing, perception):
        each.add_state(state(1.0))
        each.add_image("front", 1.0, shown)
        if loss != "silent":
            wrong = {"stale": picture(), "dark": picture(0), "wrong_size": np.zeros((4, 4, 3), np.uint8)}[loss]
            each.add_image("wrist", 0.8 if loss == "stale" else 1.0, wrong)
    found = sparing.observe(1.02)
    assert found.seen == (True, False) and found.images[0].any() and not found.images[1].any()
    assert isinstance(perception.observe(1.02), Refusal)


def test_a_camera_that_comes_back_is_seen_again(sparing):
    """The next frames of all cameras make a whole observation."""
    sparing.add_state(state(1.0))
    sparing.add_image("wrist", 1.0, picture())
    assert sparing.observe(1.01).seen == (False, True)
    feed(sparing, 1.05)
    found = sparing.observe(1.06)
    assert found.seen is None and found.stamp_s == 1.05


def test_without_any_camera_or_joint_state_there_is_no_observation(sparing):
    """Sparing has an end: nothing seen, and nothing known of the arm, are refused as ever."""
    sparing.add_state(state(1.0))
    assert reason(sparing.observe(1.0)) is RefusalReason.NO_IMAGE
    sparing.reset()
    sparing.add_image("front", 1.0, picture())
    assert reason(sparing.observe(1.0)) is RefusalReason.NO_STATE
