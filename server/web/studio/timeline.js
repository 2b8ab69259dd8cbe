/** A slider over the steps of a painting, with play and pause. It follows a live painting until it is touched. */

import { button, el, uniqueId, wantsLessMotion } from "./dom.js";
import { icon } from "./icons.js";
import { onFreeKey } from "./shortcuts.js";

const PLAY_MILLISECONDS = 2600; // of a replay, within the bounds of one step
const [LEAST_STEP, MOST_STEP] = [45, 220];
const FOLLOW_MILLISECONDS = 1300; // in which a live painting catches up with what is known, at most
const LONGEST_FOLLOW = 60;
const MOST_BEHIND = 16; // steps; who is further behind takes several at a time

export class Timeline {
  /** `onMove(t, isForward)` is called at each moment that is to be shown. */
  constructor(onMove) {
    this.onMove = onMove;
    this.t = 0;
    this.length = 0;
    this.expected = 0;
    this.isFollowing = true;
    this.isPlaying = false;
    this.stops = null; // the moments that there are to look at; null: all
    this.timer = 0;
    this.build();
    this.render();
    onFreeKey((event) => this.onFreeKey(event));
  }

  build() {
    const id = uniqueId("time");
    this.playButton = button("Play", { symbol: icon("play"), quiet: true, on: { click: () => this.toggle() } });
    this.slider = el("input", {
      type: "range", id, min: "0", max: "0", value: "0", step: "1",
      on: { input: () => this.seek(Number(this.slider.value)), keydown: (event) => this.onKey(event) },
    });
    this.reading = el("output", { class: "reading", for: id });
    const label = el("label", { class: "visually-hidden", for: id, text: "Step of the painting" });
    this.element = el("div", { class: "timeline", role: "group", "aria-label": "Replay" },
      this.playButton, label, this.slider, this.reading);
  }

  onKey(event) {
    if (event.key === " ") {
      event.preventDefault();
      this.toggle();
    }
  }

  /** The same keys where nothing else wants them. */
  onFreeKey(event) {
    if (!this.length || !this.element.checkVisibility()) return;
    const target = { ArrowLeft: this.t - 1, ArrowRight: this.t + 1, Home: 0, End: this.length }[event.key];
    if (target === undefined) this.onKey(event);
    else this.seek(Math.max(0, target));
  }

  /** A new painting: from its first step on. */
  reset() {
    this.pause();
    Object.assign(this, { t: 0, length: 0, expected: 0, isFollowing: true, stops: null });
    this.render();
  }

  /** That `length` steps are known, of `expected` in all. `atOnce` shows the last one without a walk there. */
  extend(length, expected, { atOnce = false } = {}) {
    this.length = length;
    this.expected = Math.max(length, expected);
    this.t = Math.min(this.t, length);
    if (this.isFollowing && (atOnce || wantsLessMotion())) this.moveTo(length);
    else if (this.isFollowing) this.follow();
    this.render();
  }

  follow() {
    if (this.timer || this.isPlaying || this.t >= this.length) return;
    const pause = Math.min(LONGEST_FOLLOW, FOLLOW_MILLISECONDS / Math.max(1, this.expected));
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (!this.isFollowing) return;
      this.moveTo(this.t + Math.max(1, Math.ceil((this.length - this.t) / MOST_BEHIND)));
      this.follow();
    }, pause);
  }

  /** To where the reader wants to look; it stays there. */
  seek(t) {
    this.pause();
    this.isFollowing = t >= this.length;
    this.moveTo(this.stopNear(Math.min(t, this.length)));
  }

  /** The first stop from here on in the direction of `t`, so that a key never stays where it is. */
  stopNear(t) {
    if (!this.stops) return t;
    return (t > this.t ? this.stops.find((stop) => stop >= t) : this.stops.findLast((stop) => stop <= t)) ?? this.length;
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    if (!this.length) return;
    this.stopTimer();
    this.isFollowing = false;
    this.isPlaying = true;
    if (this.t >= this.length) this.moveTo(0);
    this.render();
    this.tick();
  }

  tick() {
    const pause = Math.min(MOST_STEP, Math.max(LEAST_STEP, PLAY_MILLISECONDS / this.expected));
    this.timer = setTimeout(() => {
      this.moveTo(this.stopNear(this.t + 1));
      if (this.t < this.length) return this.tick();
      this.isFollowing = true;
      return this.pause();
    }, pause);
  }

  pause() {
    this.stopTimer();
    if (!this.isPlaying) return;
    this.isPlaying = false;
    this.render();
  }

  stopTimer() {
    clearTimeout(this.timer);
    this.timer = 0;
  }

  moveTo(t) {
    const isForward = t > this.t;
    this.t = t;
    this.render();
    this.onMove(t, isForward);
  }

  render() {
    this.slider.max = String(this.expected);
    this.slider.value = String(this.t);
    this.slider.disabled = this.length === 0;
    this.slider.style.setProperty("--share", this.expected ? `${(100 * this.t) / this.expected}%` : "0%");
    this.slider.setAttribute("aria-valuetext", `Step ${this.t} of ${this.expected}`);
    this.reading.textContent = this.expected ? `${this.t} / ${this.expected}` : "–";
    this.playButton.disabled = this.length === 0;
    const label = this.isPlaying ? "Pause" : "Play";
    if (this.playButton.title === label) return;
    this.playButton.title = label;
    this.playButton.setAttribute("aria-label", label);
    this.playButton.replaceChildren(icon(this.isPlaying ? "pause" : "play"));
  }
}
