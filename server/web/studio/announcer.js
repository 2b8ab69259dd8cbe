/** What is said to those who listen to the page: one sentence at a time. */

const region = document.getElementById("announcer");

export function announce(sentence) {
  if (region.textContent !== sentence) region.textContent = sentence;
}
