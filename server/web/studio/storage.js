/** What this browser remembers; where storage is forbidden, nothing, and that is no fault. */

export function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function store(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch {
    // Full or forbidden: all that is kept here is a convenience.
  }
}
