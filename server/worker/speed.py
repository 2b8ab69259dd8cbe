"""Speed of this worker, as its heartbeats send it to whoever estimates."""

from server.jobs.estimate import StepTimes

SMOOTHING = 0.1
PICTURE_SMOOTHING = 0.5  # a job tells it once


class MeasuredSpeed:
    """Smoothed seconds of steps and of rendering."""

    def __init__(self) -> None:
        self.step_seconds = 0.0
        self.step_times = StepTimes()
        self.picture_seconds = 0.0  # from the last step of a picture to its pixels
        self.latest_seconds = 0.0  # of the latest step

    def count_step(self, seconds: float, slots: int) -> None:
        previous = self.step_seconds or seconds
        self.step_seconds = previous + SMOOTHING * (seconds - previous)
        self.step_times.add(slots, seconds)
        self.latest_seconds = seconds

    def count_pictures(self, seconds: float, count: int) -> None:
        each = seconds / count
        previous = self.picture_seconds or each
        self.picture_seconds = previous + PICTURE_SMOOTHING * (each - previous)
